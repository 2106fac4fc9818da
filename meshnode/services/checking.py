"""The broker looks at outputs: fetches, checks, keeps a copy, puts the result together."""

from collections.abc import Sequence
from typing import Final

import trio

from meshnode.domain.attempts import INPUTS_GONE
from meshnode.domain.bindings import Holder, artifacts, assemble, bind_output, list_lengths
from meshnode.domain.facts import ArtifactRef, Delivered
from meshnode.domain.gold_tasks import expected_of, usual_finding
from meshnode.domain.job import JobState
from meshnode.domain.units import SINGLE, Attempt, Unit
from meshnode.domain.values import canonical
from meshnode.domain.verification import (
    Finding,
    check_output,
    held_against,
    needs_inputs,
    read_output,
    trials,
)
from meshnode.errors import ArtifactError, InputInvalid, MeshError, OutputInvalid
from meshnode.ports import AgentCall, JsonValue, Sandbox, Write
from meshnode.services.agents import AgentHost
from meshnode.services.artifacts import Artifacts, Wanted
from meshnode.services.context import Context
from meshnode.services.program_checks import try_program
from meshnode.services.signer import Topic
from protocol.graph import Check
from protocol.messages import Award, Binding, Result, read_message

#: Table of output schemas that results are held against: hash -> schema.
SCHEMAS: Final = "schema"

_FETCH_S: Final = 120.0
#: Output schemas in memory.
_SCHEMAS_MAX: Final = 128
#: Programs of others that run at once.
_PROGRAMS_MAX: Final = 2


class InputsGone(ArtifactError):
    """This broker has no copy of an input any more, so it can't check what was made of it."""

    code = INPUTS_GONE


class Checking:
    """Checks outputs as the broker of a job."""

    def __init__(
        self,
        context: Context,
        *,
        artifacts: Artifacts,
        host: AgentHost,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._context = context
        self._sandbox = sandbox
        self._programs = trio.CapacityLimiter(_PROGRAMS_MAX)
        self._artifacts = artifacts
        self._host = host
        self._schemas: dict[bytes, bytes] = {}

    def is_at_hand(self, state: JobState, unit: Unit, delivered: Delivered) -> bool:
        """Tell whether an output came with its result, and its check needs nothing else."""
        result = read_message(delivered.result, Result, network=self._context.network)
        return bool(result.inline) and not state.tasks[unit.subtask].checks

    async def check(
        self, state: JobState, unit: Unit, attempt: Attempt, delivered: Delivered
    ) -> tuple[Finding, list[Write]]:
        """Return what the checks say of an output, and what keeps a copy of it here.

        Raises:
            ArtifactError: The output can't be had from its maker.
            InputsGone: An input can't be had, which is no fault of the maker's.
            OutputInvalid: It isn't what the award asked for.
        """
        data, keeps = await self._output(state, attempt, delivered)
        network = self._context.network
        award = read_message(attempt.award, Award, network=network)
        single = unit.items == SINGLE
        try:
            outputs = read_output(data, calls=unit.calls, single=single)
        except InputInvalid as exc:
            raise OutputInvalid(f"{attempt.peer}: {exc}") from exc
        _check_lengths(delivered, award, outputs)
        schema = await self._schema(attempt.schema)
        checks = state.tasks[unit.subtask].checks
        inputs: list[dict[str, JsonValue]] = []
        recomputed: list[JsonValue] | None = None
        if any(needs_inputs(check) for check in checks):
            try:
                held = await self._held(state, award.inputs)
            except ArtifactError as exc:
                raise InputsGone(
                    f"the result can't be checked, since this node's copy of an input is gone:"
                    f" {exc}"
                ) from exc
            inputs = assemble(award.inputs, award.each, award.items, held)
        if any(check.kind == "recompute" for check in checks):
            recomputed = await self._recompute(award, inputs)
        finding = check_output(
            outputs,
            list(inputs) or outputs,
            schema=schema,
            checks=checks,
            recomputed=recomputed,
            tried=await self._tried(checks, outputs, inputs),
        )
        if (gold := state.required_plan.gold) is not None:
            usual = usual_finding(gold, finding)
            if gold.expected:
                like = state.tasks[unit.subtask].like
                right = expected_of(state, gold, unit.name)
                finding = held_against(outputs, right, like, usual=usual)
            elif finding.check != "schema":  # its checks are another task's
                finding = usual
        return finding, keeps

    async def _tried(
        self,
        checks: Sequence[Check],
        outputs: Sequence[JsonValue],
        inputs: Sequence[dict[str, JsonValue]],
    ) -> dict[int, str | None]:
        """Run the programs among the outputs; return what came of each check that asks it."""
        told: dict[int, str | None] = {}
        for place, check in enumerate(checks):
            if check.kind == "program":
                told[place] = await self._trial(check, outputs, inputs)
        return told

    async def _trial(
        self,
        check: Check,
        outputs: Sequence[JsonValue],
        inputs: Sequence[dict[str, JsonValue]],
    ) -> str | None:
        emit = self._context.emit
        try:
            wanted = trials(outputs, list(inputs), check)
        except InputInvalid as exc:
            emit("check.not_tried", why=str(exc))
            return None
        if isinstance(wanted, str):
            return wanted
        for one in wanted:
            async with self._programs:
                told = await try_program(
                    one.program, one.cases, self._sandbox, kind=one.like, emit=emit
                )
            if told is None or told:
                return told
        return ""

    async def _schema(self, name: bytes) -> bytes:
        known = self._schemas.get(name)
        if known is None:
            known = await self._context.store.read(SCHEMAS, name.hex())
            if known is None:
                raise OutputInvalid("the output schema of this award is no longer here")
            self._schemas[name] = known
            if len(self._schemas) > _SCHEMAS_MAX:
                del self._schemas[next(iter(self._schemas))]
        return known

    async def asked(self, state: JobState, attempt: Attempt) -> list[dict[str, JsonValue]]:
        """Return the inputs of each call of an attempt.

        Raises:
            ArtifactError: This broker's copy of one is gone.
        """
        award = read_message(attempt.award, Award, network=self._context.network)
        held = await self._held(state, award.inputs)
        return assemble(award.inputs, award.each, award.items, held)

    async def output(self, state: JobState, attempt: Attempt) -> bytes:
        """Return what was delivered in an attempt.

        Raises:
            ArtifactError: It can't be had any more.
        """
        delivered = attempt.delivered
        assert delivered is not None, "only answers are compared"
        data, _ = await self._output(state, attempt, delivered)
        return data

    async def _output(
        self, state: JobState, attempt: Attempt, delivered: Delivered
    ) -> tuple[bytes, list[Write]]:
        network = self._context.network
        result = read_message(delivered.result, Result, network=network)
        data = result.inline or await self._artifacts.fetch(
            self._wanted(state, delivered.output, delivered.size, attempt.peer),
            timeout_s=_FETCH_S,
        )
        kept, keeps = await self._artifacts.prepare(
            data, job=state.job, broker=self._context.peer
        )
        if kept.artifact != delivered.output:
            raise OutputInvalid(f"{attempt.peer} sent an output that its result doesn't name")
        return data, keeps

    def _wanted(self, state: JobState, name: bytes, size: int, holder: str) -> Wanted:
        """Return an artifact of the job as its broker asks for it."""
        if state.elected is None or holder == self._context.peer:
            return Wanted(name, size, holder)
        # Whoever made it for a broker before this one knows this one by its ticket.
        plan = state.required_plan
        topic = Topic(
            job=state.job,
            deadline_ms=plan.deadline_ms,
            epoch=state.elected.epoch,
            charter=state.elected.charter,
        )
        own = self._context.peer
        ticket = self._artifacts.ticket(name, holder=holder, reader=own, topic=topic)
        return Wanted(name, size, holder, ticket)

    async def _held(self, state: JobState, bindings: dict[str, Binding]) -> dict[bytes, bytes]:
        """Return the bytes of inputs, which this broker keeps: its own, and checked outputs."""
        held: dict[bytes, bytes] = {}
        for name, part in artifacts(bindings).items():
            wanted = self._wanted(state, name, part.size, part.holder)
            held[name] = await self._artifacts.fetch(wanted, timeout_s=_FETCH_S)
        return held

    async def _recompute(
        self, award: Award, inputs: list[dict[str, JsonValue]]
    ) -> list[JsonValue] | None:
        """Run a deterministic agent of this node's own, unless it is the contractor itself."""
        own = [
            name
            for name, spec in sorted(self._host.specs().items())
            if spec.capability == award.capability and spec.deterministic
        ]
        if not own or award.h.audience == self._context.peer:
            return None
        outputs: list[JsonValue] = []
        for number, value in enumerate(inputs):
            call = AgentCall(
                idempotency_key=f"{award.h.idempotency_key}/check-{number}",
                deadline_s=trio.current_time() + award.timeout_ms / 1000,
            )
            try:
                outputs.append((await self._host.call(own[0], value, call)).value)
            except MeshError as exc:
                self._context.emit("check.recompute_failed", why=str(exc))
                return None
        return outputs

    async def outputs(self, state: JobState) -> tuple[dict[str, ArtifactRef], list[Write]]:
        """Put the job's outputs together; return them with what keeps them here.

        Raises:
            InputInvalid: An output names a place that isn't in what was delivered.
            ArtifactError: A copy has gone.
        """
        if state.graph is None:
            return {}, []
        made: dict[str, ArtifactRef] = {}
        keeps: list[Write] = []
        holder = Holder(self._context.peer)
        for name, source in sorted(state.graph.outputs.items()):
            binding = bind_output(state, source, holder)
            held = await self._held(state, {name: binding})
            try:
                (fields,) = assemble({name: binding}, [], 1, held)
            except InputInvalid as exc:
                why = str(exc).removeprefix(f"input {name!r}: ")
                raise InputInvalid(f"output {name!r}: {why}") from exc
            made[name], writes = await self._artifacts.prepare(
                canonical(fields[name]), job=state.job, broker=self._context.peer
            )
            keeps += writes
        return made, keeps


def _check_lengths(delivered: Delivered, award: Award, outputs: list[JsonValue]) -> None:
    """Hold the lengths that a result tells against its output: later maps are cut by them.

    Raises:
        OutputInvalid: One isn't that of the list that is there.
    """
    told = delivered.lengths
    counted = list_lengths(outputs[0], award.lengths) if award.lengths else {}
    for pointer in award.lengths:
        if told.get(pointer) != counted.get(pointer):
            raise OutputInvalid(
                f"{award.h.audience} tells {told.get(pointer)} items at {pointer[:60]!r},"
                f" its output has {counted.get(pointer)}"
            )
