"""Doing one award: fetch its inputs, run the agent within limits, sign what came of it."""

from typing import Final, Literal

import trio
from msgspec.structs import replace

from meshnode.domain.bindings import artifacts, assemble, list_lengths
from meshnode.domain.values import canonical, sendable
from meshnode.errors import (
    AgentTimeout,
    ArtifactTooLarge,
    InputInvalid,
    MeshError,
    TokensReached,
)
from meshnode.ports import AgentCall, JsonValue, Output
from meshnode.services.agents import AgentHost
from meshnode.services.artifacts import Artifacts, Wanted
from meshnode.services.bodies import TERMS_BYTES_MAX
from meshnode.services.checkpoints import Checkpoints, ended
from meshnode.services.context import Context
from meshnode.services.delegation import Delegations, unaccounted
from meshnode.services.execution import Execution
from meshnode.services.room import Room
from meshnode.services.served import Served
from meshnode.services.signer import Topic
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.keys import digest
from protocol.limits import INLINE_SIZE_MAX, LETTER_BODY_SIZE_MAX
from protocol.messages import Award, Header, Progress, Result, Ticket, read_message
from protocol.receipts import Receipt

#: Inputs of one award, all artifacts together.
_INPUTS_BYTES_MAX: Final = 256 * 1024 * 1024


#: The output of what was ordered by letter, which has to fit into one beside the result.
ORDERED_BYTES_MAX: Final = LETTER_BODY_SIZE_MAX - 2 * TERMS_BYTES_MAX


class Executor:
    """Turns an award into a signed result and the contractor's half of the receipt.

    An award's inputs are in memory until it is done, and those of all awards are together
    no more than the machine's owner gives them: an award waits for room, on its own time.
    """

    def __init__(
        self, context: Context, *, artifacts: Artifacts, host: AgentHost, served: Served
    ) -> None:
        self.checkpoints = Checkpoints(context)
        self._signer = context.signer
        self._served = served
        self._emit = context.emit
        self._artifacts = artifacts
        self._host = host
        self.delegations = Delegations(context)
        self._room = Room(context.config.host.inputs_bytes_max)

    def progress(self, execution: Execution, text: str) -> Progress:
        """Return the progress message of now."""
        execution.progress_seq += 1
        return Progress(
            h=self._signer.header(execution.broker, Topic.of(execution.award.h)),
            award=execution.name,
            seq=execution.progress_seq,
            items_done=execution.items_done,
            offset=execution.offset,
            checkpoint=execution.checkpoint,
            text=text,
        )

    async def execute(self, execution: Execution) -> tuple[bytes, bytes]:
        """Do the award; return the envelopes of result and receipt, whatever came of it."""
        result: Result | None = None
        with execution.scope:
            result = await self._attempt(execution)
        if result is None:
            code, text = execution.ending
            state: Literal["failed", "cancelled"] = (
                "cancelled" if code == "cancelled" else "failed"
            )
            result = self._result(execution, state=state, code=code, text=text)
        execution.is_over = True
        execution.below = await self.delegations.close(execution)
        if result.state == "completed" and (text := execution.over_cap):
            code, execution.keeps = TokensReached.code, []
            result = self._result(execution, state="failed", code=code, text=text)
        execution.keeps = [*execution.keeps, *ended(execution)]
        try:
            return self._sign(execution, result)
        except LocalProtocolError as exc:  # a bug in one result must not end the node
            self._emit("award.bug", award=execution.name.hex(), error=repr(exc))
            text = "an error at this node"
            failed = self._result(execution, state="failed", code="node.internal", text=text)
            execution.below = unaccounted(execution)  # it may be what can't be signed
            return self._sign(execution, failed)

    async def _attempt(self, execution: Execution) -> Result:
        """Run within the award's time; every failure becomes a result that says why."""
        hint = ""  # for this node's owner: the broker is told what happened, not where
        try:
            return await self._run(execution)
        except MeshError as exc:
            code, text, hint = exc.code, sendable(str(exc)), exc.hint
        except RemoteProtocolError as exc:
            code, text = "award.malformed", str(exc)
        except Exception as exc:  # noqa: BLE001 - a bug in one award must not end the node
            self._emit("award.bug", award=execution.name.hex(), error=repr(exc))
            code, text = "node.internal", "an error at this node"
        told = {"hint": hint} if hint else {}
        self._emit("award.failed", award=execution.name.hex(), code=code, why=text, **told)
        return self._result(execution, state="failed", code=code, text=text)

    async def _run(self, execution: Execution) -> Result:
        begun_s = trio.current_time()
        left_s = execution.deadline_s - begun_s
        limit_s = min(execution.award.timeout_ms / 1000, max(0.0, left_s))
        size = self._input_bytes(execution.award)
        # As it is when the work begins: by its end the agent may be dearer, or gone.
        spec = self._host.specs().get(execution.award.agent)
        price_mc = spec.price_mc * execution.award.items if spec is not None else 0
        with trio.move_on_after(limit_s) as scope:
            async with self._room.taken(size, whose=execution.broker):
                outputs = await self._outputs(execution, begun_s + limit_s)
        if scope.cancelled_caught:
            raise AgentTimeout(f"the award's {limit_s:g} s are over")
        return await self._completed(execution, outputs, price_mc)

    def _input_bytes(self, award: Award) -> int:
        """Return how much memory the artifacts among an award's inputs take.

        Raises:
            InputInvalid: More than there is for one award.
        """
        size = sum(part.size for part in artifacts(award.inputs).values())
        size_max = min(_INPUTS_BYTES_MAX, self._room.bytes_max)
        if size > size_max:
            raise InputInvalid(f"inputs of {size} bytes; {size_max} are the most here")
        return size

    async def _outputs(self, execution: Execution, deadline_s: float) -> list[Output]:
        award = execution.award
        inputs = assemble(
            award.inputs,
            award.each,
            award.items,
            await self._fetch_all(award, deadline_s),  # and not kept beside what is read of it
        )
        outputs: dict[int, Output] = {}
        failure: list[MeshError] = []

        def ran(run_ms: int) -> None:
            call_began_s = trio.current_time() - run_ms / 1000
            execution.started_s = min(execution.started_s, call_began_s)
            self._served.count(award.h.issuer, award.capability, run_ms=run_ms)

        under = self.delegations.under(execution)
        if execution.again:
            await self.checkpoints.load(execution)

        async def one(number: int, value: dict[str, JsonValue]) -> None:
            call = AgentCall(
                idempotency_key=f"{award.h.idempotency_key}/{number}",
                deadline_s=deadline_s,
                traceparent=award.h.traceparent,
                label=f"secrecy={award.h.label.secrecy} taint={award.h.label.taint}",
                handover=under,
                checkpoint=self.checkpoints.of(execution, number),
            )
            try:
                made = outputs[number] = await self._host.call(
                    award.agent,
                    value,
                    call,
                    on_chunk=lambda text: execution.tell(text=text),
                    on_ran=ran,
                )
                _meter(execution, made)
            except MeshError as exc:
                # A failed item fails its batch: the first reason is the batch's.
                failure.append(exc)
                nursery.cancel_scope.cancel()
                return
            execution.tell(items=1)

        async with trio.open_nursery() as nursery:
            for number, value in enumerate(inputs[1:], 1):
                nursery.start_soon(one, number, value)
            await one(0, inputs[0])  # alone, it needs no task of its own
        if failure:
            raise failure[0]
        return [outputs[number] for number in sorted(outputs)]

    async def _fetch_all(self, award: Award, deadline_s: float) -> dict[bytes, bytes]:
        """Fetch the inputs' artifacts, all at once."""
        tickets: dict[bytes, bytes] = {}
        for envelope in award.tickets:
            ticket = read_message(envelope, Ticket, network=self._signer.network)
            tickets[ticket.artifact] = envelope
        held: dict[bytes, bytes] = {}
        failure: list[MeshError] = []
        parts = artifacts(award.inputs)

        async def one(wanted: Wanted) -> None:
            try:
                left_s = deadline_s - trio.current_time()
                held[wanted.artifact] = await self._artifacts.fetch(wanted, timeout_s=left_s)
            except MeshError as exc:
                failure.append(exc)
                nursery.cancel_scope.cancel()

        for name, part in list(parts.items()):  # what is at hand needs no task of its own
            data = self._artifacts.in_memory(
                name, broker=award.h.issuer, job=award.h.job, charter=award.h.charter
            )
            if data is not None and len(data) == part.size:
                held[name] = data
                del parts[name]
        if not parts:
            return held
        async with trio.open_nursery() as nursery:
            for name, part in parts.items():
                wanted = Wanted(
                    name,
                    part.size,
                    part.holder,
                    tickets.get(name, b""),
                    broker=award.h.issuer,
                    job=award.h.job,
                    charter=award.h.charter,
                )
                nursery.start_soon(one, wanted)
        if failure:
            raise failure[0]
        return held

    async def _completed(
        self, execution: Execution, outputs: list[Output], price_mc: int
    ) -> Result:
        award = execution.award
        values = [output.value for output in outputs]
        value: JsonValue = values if award.each else values[0]
        data = canonical(value)
        if not award.lease_ms and len(data) > ORDERED_BYTES_MAX:
            raise ArtifactTooLarge(
                len(data), ORDERED_BYTES_MAX, hint="no letter holds the output"
            )
        ref, execution.keeps = await self._artifacts.prepare(
            data, job=award.h.job, broker=award.h.issuer, charter=award.h.charter
        )
        now_s = trio.current_time()
        started_s = min(execution.started_s, now_s)
        return Result(
            h=self._header(execution),
            award=execution.name,
            state="completed",
            output=ref.artifact,
            size=ref.size,
            inline=data if len(data) <= INLINE_SIZE_MAX else b"",
            lengths=list_lengths(value, award.lengths),
            metering=replace(
                execution.metered,
                queue_ms=max(0, int((started_s - execution.received_s) * 1000)),
                run_ms=int((now_s - started_s) * 1000),
            ),
            price_mc=min(price_mc, award.price_cap_mc),
        )

    def _result(
        self,
        execution: Execution,
        *,
        state: Literal["failed", "cancelled"],
        code: str,
        text: str,
    ) -> Result:
        return Result(
            h=self._header(execution),
            award=execution.name,
            state=state,
            metering=execution.metered,
            error_code=code,
            error_text=text[:500],
        )

    def _header(self, execution: Execution) -> Header:
        return self._signer.header(execution.broker, Topic.of(execution.award.h))

    def _sign(self, execution: Execution, result: Result) -> tuple[bytes, bytes]:
        envelope = self._signer.sign(result)
        execution.ended = "finished" if result.state == "completed" else result.state
        execution.price_mc = result.price_mc
        receipt = Receipt(
            h=self._header(execution),
            award=execution.name,
            result=digest(envelope),
            capability=execution.award.capability,
            agent=execution.award.agent,
            cost_mc=result.price_mc,
            latency_ms=int((trio.current_time() - execution.received_s) * 1000),
            below=execution.below,
        )
        return envelope, self._signer.sign(receipt)


def _meter(execution: Execution, made: Output) -> None:
    """Count what a call used.

    Raises:
        TokensReached: It is more than the award lets, with all that was used before.
    """
    usage = made.usage
    execution.meter(tokens_in=usage.get("tokens_in", 0), tokens_out=usage.get("tokens_out", 0))
    if text := execution.over_cap:
        raise TokensReached(text)
