"""What a broker signs: calls, awards, and its half of receipts, as facts to be recorded.

Nothing here is sent; nothing here writes a journal.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from meshnode.domain.attempts import inputs_were_lost
from meshnode.domain.bindings import (
    PART_INLINED_BYTES_MAX,
    Holder,
    artifacts,
    bind,
    put_inline,
    slice_input,
)
from meshnode.domain.facts import (
    ArtifactRef,
    Awarded,
    Called,
    Charged,
    Delivered,
    Verified,
)
from meshnode.domain.job import JobState
from meshnode.domain.ledger import Posting
from meshnode.domain.step_kinds import Call, MakeAward, Step, View
from meshnode.domain.units import Attempt, Unit, charge_key
from meshnode.domain.values import canonical, parse
from meshnode.errors import ArtifactError, NoProvider
from meshnode.ports import JsonValue, Put, Write
from meshnode.services.artifacts import Artifacts
from meshnode.services.bodies import ReceiptRow
from meshnode.services.checking import SCHEMAS
from meshnode.services.context import Context
from meshnode.services.experience import Experience, Learned
from meshnode.services.ledger import Ledger
from meshnode.services.market import Market
from meshnode.services.receipts import DUE, receipt_writes
from meshnode.services.signer import Topic
from protocol.codec import encode
from protocol.graph import Source
from protocol.keys import digest
from protocol.limits import LIFETIME_MS_MAX
from protocol.messages import Award, Binding, Budget, Cfp, Part
from protocol.receipts import Acceptance

#: Beyond the agent's own time for the items: fetching inputs, waiting for slots.
_SLACK_MS: Final = 30_000
#: A contractor that is away for this long never gets the broker's half of its receipt.
_ACCEPTANCE_MS: Final = 7 * 24 * 3_600_000
_REPLICA_BYTES: Final = 4


class Contracts:
    """Makes this broker's side of contracts."""

    def __init__(
        self,
        context: Context,
        *,
        market: Market,
        artifacts: Artifacts,
        ledger: Ledger,
        experience: Experience,
    ) -> None:
        self._context = context
        self._ledger = ledger
        self._signer = context.signer
        self._market = market
        self._artifacts = artifacts
        self._experience = experience
        self._learning: dict[bytes, Learned] = {}  # award -> what its charge teaches

    async def slices(
        self, state: JobState, subtask: str, sizes: Sequence[int]
    ) -> tuple[dict[str, list[ArtifactRef]], list[Write]]:
        """Cut what each batch of ``subtask`` takes from the job's inputs.

        Returns:
            Field -> an artifact for each batch, and what keeps them once committed.

        Raises:
            InputInvalid: A source names a place that isn't there.
        """
        task = state.tasks[subtask]
        made: dict[str, list[ArtifactRef]] = {}
        keeps: list[Write] = []
        for field, source in sorted(task.inputs.items()):
            mapped = field in task.each
            small = source.kind == "value" and len(source.value) <= PART_INLINED_BYTES_MAX
            if source.kind == "task" or (small and not mapped):
                continue
            value = await self._given(state, source)
            refs: dict[bytes, ArtifactRef] = {}
            row: list[ArtifactRef] = []
            for piece in slice_input(value, source, tuple(sizes), mapped=mapped):
                data = canonical(piece)
                ref = refs.get(digest(data))
                if ref is None:
                    ref, writes = await self._artifacts.prepare(
                        data, job=state.job, broker=self._context.peer
                    )
                    keeps += writes
                    refs[ref.artifact] = ref
                row.append(ref)
            made[field] = row
        return made, keeps

    async def _given(self, state: JobState, source: Source) -> JsonValue:
        if source.kind == "value":
            return parse(source.value)
        data = await self._artifacts.local(state.required_plan.inputs[source.name].artifact)
        if data is None:
            raise ArtifactError(f"the job input {source.name!r} is no longer here")
        return parse(data)

    def call(self, state: JobState, step: Call) -> Called:
        """Return the fact of CFPs, one for each candidate, signed and not sent yet."""
        unit = state.units[step.unit]
        bindings = bind(state, unit, self._holder(unit))
        size = sum(part.size + len(part.inline) for part in _parts(bindings))
        free_mc = state.required_plan.budget_mc - state.spent_mc - state.reserved_mc()
        cfps: dict[str, bytes] = {}
        for candidate in step.candidates:
            cfp = Cfp(
                h=self._signer.header(candidate.peer, topic(state, unit, free_mc)),
                capability=candidate.capability,
                items=unit.calls,
                input_bytes=size,
                timeout_ms=self._timeout_ms(state, unit, candidate.peer, candidate.agent),
                price_max_mc=max(0, free_mc),
            )
            cfps[candidate.peer] = self._signer.sign(cfp)
        return Called(unit=step.unit, attempt=step.attempt, cfps=cfps)

    def award(self, state: JobState, step: MakeAward) -> tuple[Awarded, Write]:
        """Return the fact of a signed award, and the output schema to keep with it.

        Raises:
            NoProvider: The candidate's record has gone meanwhile.
        """
        candidate = step.candidate
        known = self._market.capability(candidate.peer, candidate.agent, candidate.capability)
        if known is None:
            raise NoProvider(f"{candidate.peer} no longer offers {candidate.capability}")
        plan = state.required_plan
        numbered = plan.theta_ppm or (plan.gold is not None and plan.gold.numbered)
        replica = self._replica() if numbered else 0
        make = self._order if step.by_letter else self._plain
        award = make(state, step, replica)
        schema = digest(known.output_schema)
        fact = Awarded(
            unit=step.unit,
            attempt=step.attempt,
            peer=candidate.peer,
            agent=candidate.agent,
            award=self._signer.sign(award),
            proposal=step.proposal,
            schema=schema,
            price_cap_mc=step.price_cap_mc,
            lease_ms=award.lease_ms,
            ranked=list(step.ranked),
            considered=step.considered,
            hedge=step.hedge,
            subtasks=step.subtasks,
            tokens=step.tokens,
            replica=replica,
            wait_max_ms=step.wait_max_ms,
        )
        return fact, Put(SCHEMAS, schema.hex(), known.output_schema)

    def _replica(self) -> int:
        """Return a number that says nothing of how many others there are."""
        return 1 + int.from_bytes(self._context.entropy.token(_REPLICA_BYTES), "big")

    def _plain(self, state: JobState, step: MakeAward, replica: int) -> Award:
        """Return the award of a unit to a node that is there, unsigned."""
        unit, candidate = state.units[step.unit], step.candidate
        bindings = put_inline(
            bind(state, unit, self._holder(unit)),
            self._artifacts.in_memory,
            reader=candidate.peer,
        )
        about = replace(
            topic(state, unit, 0),
            replica=replica,
            budget=Budget(
                cost_mc=step.price_cap_mc, tokens=step.tokens, subtasks=step.subtasks
            ),
        )
        current = unit.attempt(step.attempt)
        cfp = current.called.get(candidate.peer, b"") if current else b""
        lease_ms = int(self._context.config.host.lease_s * 1000)
        return Award(
            h=self._signer.header(candidate.peer, about, lifetime_ms=LIFETIME_MS_MAX),
            cfp=digest(cfp) if cfp else b"",
            proposal=digest(step.proposal),
            agent=candidate.agent,
            capability=candidate.capability,
            inputs=bindings,
            each=list(state.tasks[unit.subtask].each),
            items=unit.calls,
            price_cap_mc=step.price_cap_mc,
            timeout_ms=self._timeout_ms(state, unit, candidate.peer, candidate.agent),
            lease_ms=lease_ms,
            lengths=_lengths_wanted(state, unit),
            tickets=[
                self._artifacts.ticket(
                    name, holder=part.holder, reader=candidate.peer, topic=about
                )
                for name, part in sorted(artifacts(bindings).items())
                if part.holder != candidate.peer
            ],
            wait_max_ms=step.wait_max_ms,
        )

    def _order(self, state: JobState, step: MakeAward, replica: int) -> Award:
        """Return the award of a unit to a node that is away, unsigned.

        It is held by time alone, has its inputs from here, and hands nothing on.
        """
        unit, candidate = state.units[step.unit], step.candidate
        plan, now_ms = state.required_plan, self._context.clock.now_ms()
        left_ms = min(plan.by_letter_ms, plan.deadline_ms - now_ms)
        timeout_ms = self._timeout_ms(state, unit, candidate.peer, candidate.agent)
        begin_ms = left_ms - min(timeout_ms, left_ms // 2)
        about = replace(
            topic(state, unit, 0),
            replica=replica,
            budget=Budget(cost_mc=step.price_cap_mc, tokens=step.tokens),
            deadline_ms=now_ms + left_ms,
            hops=0,
        )
        record = self._market.record(candidate.peer, candidate.capability)
        copies = bind(state, unit, Holder(self._context.peer, only=True))
        return Award(
            h=self._signer.header(candidate.peer, about, lifetime_ms=begin_ms),
            cfp=b"",
            proposal=digest(b"" if record is None else encode(record)),
            agent=candidate.agent,
            capability=candidate.capability,
            inputs=put_inline(copies, self._artifacts.in_memory, reader=candidate.peer),
            each=list(state.tasks[unit.subtask].each),
            items=unit.calls,
            price_cap_mc=step.price_cap_mc,
            timeout_ms=timeout_ms,
            lease_ms=0,
            lengths=_lengths_wanted(state, unit),
        )

    def charge(
        self, state: JobState, attempt: Attempt, delivered: Delivered, verdict: Verified
    ) -> tuple[Charged, list[Write]]:
        """Return the fact of the broker's half of the receipt, and what is kept with it."""
        name = delivered.unit
        paid_mc = 0 if verdict.verdict == "rejected" else delivered.price_mc
        award = digest(attempt.award)
        acceptance = self._signer.sign(
            Acceptance(
                h=self._signer.header(
                    attempt.peer,
                    replace(topic(state, state.units[name], 0), replica=attempt.replica),
                    lifetime_ms=_ACCEPTANCE_MS,
                ),
                award=award,
                receipt=digest(delivered.receipt),
                verdict=verdict.verdict,
                check=verdict.check,
                paid_mc=paid_mc,
            )
        )
        fact = Charged(
            key=charge_key(state.job, name, attempt.replica),
            unit=name,
            attempt=attempt.number,
            paid_mc=paid_mc,
            acceptance=acceptance,
        )
        row = ReceiptRow(attempt.award, delivered.result, delivered.receipt, acceptance)
        learned = self._learning[award] = self._experience.of_charge(state, attempt, verdict)
        if state.elected is not None:
            return fact, learned.writes  # the rest when it can't be lost: see Charges
        return fact, [
            *learned.writes,
            *receipt_writes(award, row, now_ms=self._context.clock.now_ms()),
            Put(DUE, award.hex(), attempt.peer.encode()),
            *self._ledger.writes(self._posting(state, attempt, fact)),
        ]

    def charged(self, state: JobState, attempt: Attempt, fact: Charged) -> None:
        """Take a charge that was recorded into what is owed, and what is known of who."""
        self._experience.took(self._learning.pop(digest(attempt.award), Learned()))
        if state.elected is None:
            self._ledger.committed(self._posting(state, attempt, fact))

    # --- credit ---

    @property
    def limits_owing(self) -> bool:
        """Whether there may be nodes to which this one owes as much as they let it."""
        return self._ledger.limits_owing

    def view(self, view: View) -> View:
        """Return ``view`` with what may still be awarded to each candidate in it."""
        if not self._ledger.limits_owing:
            return view
        peers = {c.peer for found in view.candidates.values() for c in found}
        return replace(view, credit=self._ledger.credit(sorted(peers)))

    def promise(self, state: JobState, steps: Sequence[Step]) -> None:
        """Count what a job has out, and what ``steps`` award, as owed."""
        if not self._ledger.limits_owing:
            return
        out: Counter[str] = Counter()
        for _, attempt in state.open_attempts():
            if attempt.award:
                out[attempt.peer] += attempt.price_cap_mc
        for step in steps:
            if isinstance(step, MakeAward):
                out[step.candidate.peer] += step.price_cap_mc
        self._ledger.promise(state.job, out)

    def _posting(self, state: JobState, attempt: Attempt, fact: Charged) -> Posting | None:
        return self._ledger.receipt(
            "spent",
            attempt.peer,
            digest(attempt.award),
            fact.paid_mc,
            job=state.job,
            unit=fact.unit,
        )

    def _holder(self, unit: Unit) -> Holder:
        return Holder(self._context.peer, only=inputs_were_lost(unit))

    def _timeout_ms(self, state: JobState, unit: Unit, peer: str, agent: str) -> int:
        task = state.tasks[unit.subtask]
        if task.timeout_ms:
            return task.timeout_ms
        known = self._market.capability(peer, agent, task.capability)
        if known is None:
            return _SLACK_MS
        rounds = -(-unit.calls // max(1, known.limits.concurrency))
        return known.limits.timeout_ms * rounds + _SLACK_MS


def topic(state: JobState, unit: Unit, cost_mc: int) -> Topic:
    """Return what messages about ``unit`` say in their headers."""
    plan = state.required_plan
    again = plan.again.get(unit.subtask)
    return Topic(
        job=state.job,
        subtask=unit.name,
        deadline_ms=plan.deadline_ms,
        idempotency_key=f"{again.job if again else state.job}/{unit.name}",
        traceparent=plan.traceparent,
        budget=Budget(cost_mc=max(0, cost_mc)),
        hops=max(0, plan.hops - 1),
        epoch=state.elected.epoch if state.elected else plan.epoch,
        charter=state.elected.charter if state.elected else b"",
    )


def _parts(bindings: Mapping[str, Binding]) -> Iterator[Part]:
    for binding in bindings.values():
        yield from binding.parts


def _lengths_wanted(state: JobState, unit: Unit) -> list[str]:
    """Return the places in a single call's output that later sub-tasks map over."""
    if state.tasks[unit.subtask].each:
        return []
    wanted = {
        source.pointer
        for task in state.tasks.values()
        for field in task.each
        if (source := task.inputs[field]).kind == "task" and source.name == unit.subtask
    }
    return sorted(wanted)
