"""A job is its journal: the state is a fold over events, and nothing else.

:meth:`JobState.apply` reads the event and the state before it; it never looks at a
clock, a store, a peer or chance.  What to do next is :mod:`meshnode.domain.steps`.

A *unit* is what is awarded: one batch of one sub-task, named ``subtask/batch``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from meshnode.domain import bounds, tokens
from meshnode.domain.facts import (
    ArtifactRef,
    Awarded,
    Called,
    Cancelled,
    Charged,
    Delivered,
    Done,
    Elected,
    Expanded,
    Fact,
    Failed,
    Judged,
    Planned,
    Progressed,
    Proposed,
    Refused,
    Replanned,
    Verified,
    from_event,
)
from meshnode.domain.patches import patch_trouble
from meshnode.domain.replicas import check_replica, is_beside, judge
from meshnode.domain.units import Attempt, Unit
from protocol.contract import ContractState, advance
from protocol.errors import OutOfTurn
from protocol.graph import SubTask, TaskGraph, decode_graph, edges, order
from protocol.journal import Event

Phase = Literal["waiting", "trying", "delivered", "done", "failed"]


@dataclass(slots=True)
class JobState:
    """Everything that is known of a job; built by :func:`fold`.

    Attributes:
        seq: Events applied.
        plan: The first event.
        graph: Decoded from it: the owner's, whatever was patched.
        tasks: Sub-task by id, as patched.
        patches: Of the plan, in order.
        patched_ms: Sub-task id -> when its last patch was made.
        units: Unit by name, in the order in which they came to be.
        expanded: Sub-task id -> its units' names.
        slices: Sub-task id -> field -> an artifact for each unit.
        path: Sub-task ids, producers before consumers.
        producers: Sub-task id -> ids of those that it draws from.
        fresh: Sub-task id -> its units that were never tried, in order.
        begun: Sub-task id -> its units that were, and have no accepted output.
        outrun: Units with an accepted output, and another attempt that is to be stopped.
        hedges: How many there were.
        spent_mc: Charged so far, and what panels cost: all that was promised to one that
            wasn't heard when the job ended.
        subtasks_used: By attempts that are over.
        tokens_used: Likewise, where the plan limits them.
        charges: Charge key -> millicredits: a key is charged once.
        planned_ms: When the first event was written.
        ended_ms: When the last one was.
        elected: Who its broker is, and by what right, where there is a charter.
        cancelled: Why it is to end early, if it is.
        done: How it ended, if it has.
    """

    job: str
    seq: int = 0
    plan: Planned | None = None
    graph: TaskGraph | None = None
    tasks: dict[str, SubTask] = field(default_factory=dict)
    patches: list[Replanned] = field(default_factory=list)
    patched_ms: dict[str, int] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    expanded: dict[str, list[str]] = field(default_factory=dict)
    slices: dict[str, dict[str, list[ArtifactRef]]] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    producers: dict[str, set[str]] = field(default_factory=dict)
    fresh: dict[str, dict[str, Unit]] = field(default_factory=dict)
    begun: dict[str, dict[str, Unit]] = field(default_factory=dict)
    outrun: dict[str, Unit] = field(default_factory=dict)
    hedges: int = 0
    spent_mc: int = 0
    subtasks_used: int = 0
    tokens_used: int = 0
    charges: dict[str, int] = field(default_factory=dict)
    planned_ms: int = 0
    ended_ms: int = 0
    elected: Elected | None = None
    cancelled: Cancelled | None = None
    done: Done | None = None

    # --- reading ---

    @property
    def required_plan(self) -> Planned:
        """The plan; a job without one has no other event either."""
        if self.plan is None:
            raise OutOfTurn("a step", "unplanned")
        return self.plan

    def reserved_mc(self) -> int:
        """Millicredits promised to open awards, and to panels that are asked."""
        awards = sum(one.price_cap_mc for _, one in self.open_attempts() if one.award)
        return awards + self._promised_mc()

    def _promised_mc(self) -> int:
        """Return what panels may cost that were called, and not heard."""
        if self.done is not None:
            return 0
        begun = (unit for units in self.begun.values() for unit in units.values())
        return sum(unit.promised_mc for unit in begun)

    def open_attempts(self) -> Iterator[tuple[Unit, Attempt]]:
        """Yield every attempt that is open, with its unit."""
        for units in (*self.begun.values(), self.outrun):
            for unit in units.values():
                for attempt in unit.tried():
                    yield unit, attempt

    def finished(self, subtask: str) -> bool:
        """Tell whether every unit of ``subtask`` has an accepted output."""
        return subtask in self.expanded and not self.fresh[subtask] and not self.begun[subtask]

    def waits_since_ms(self, subtask: str) -> int:
        """Return since when nothing but a provider is missing for ``subtask``, Unix time."""
        ends = [
            self.units[unit].ended_ms
            for name in (*self.producers[subtask], subtask)
            for unit in self.expanded.get(name, ())
        ]
        return max(self.planned_ms, self.patched_ms.get(subtask, 0), *ends)

    def kept(self) -> int:
        """Return how many units have an accepted output: they stay, however it ends."""
        return sum(unit.accepted is not None for unit in self.units.values())

    def outputs(self, subtask: str) -> list[tuple[Unit, Delivered]]:
        """Return the accepted outputs of ``subtask``, one for each unit, in order."""
        found: list[tuple[Unit, Delivered]] = []
        for name in self.expanded.get(subtask, ()):
            unit = self.units[name]
            if unit.accepted is not None and unit.accepted.delivered is not None:
                found.append((unit, unit.accepted.delivered))
        return found

    def outstanding(self) -> dict[str, int]:
        """Return the calls awarded and not delivered yet, by peer."""
        load: dict[str, int] = {}
        for unit, attempt in self.open_attempts():
            if attempt.contract is ContractState.AWARDED:
                load[attempt.peer] = load.get(attempt.peer, 0) + unit.calls
        return load

    # --- folding ---

    def apply(self, event: Event) -> None:
        """Take in the next event.

        Raises:
            OutOfTurn: It can't follow what went before: the journal is not a job's.
        """
        if event.seq != self.seq:
            raise OutOfTurn(f"event {event.seq}", f"at event {self.seq}")
        self._expect(event.kind)
        self._take(from_event(event), event.at_ms)

    def add(self, fact: Fact, *, at_ms: int) -> None:
        """Take in ``fact`` as the next event: as :meth:`apply` does, with nothing to be read.

        Raises:
            OutOfTurn: It can't follow what went before.
        """
        self._expect(fact.KIND)
        self._take(fact, at_ms)

    def _expect(self, kind: str) -> None:
        if self.done is not None:
            raise OutOfTurn(kind, "done")
        if (self.plan is None) != (kind == Planned.KIND):
            raise OutOfTurn(kind, "unplanned" if self.plan is None else "planned")

    def _take(  # noqa: C901, PLR0912 - one arm for each kind
        self, fact: Fact, at_ms: int
    ) -> None:
        match fact:
            case Planned():
                self.plan, self.planned_ms = fact, at_ms
                self.graph = decode_graph(fact.graph)
                self.tasks = {task.id: task for task in self.graph.subtasks}
                self.path, self.producers = order(self.graph), edges(self.graph)
            case Elected():
                self._elect(fact)
            case Replanned():
                self._replan(fact, at_ms)
            case Expanded():
                self._expand(fact)
            case Called() | Awarded():
                self._open(fact, at_ms)
            case Judged():
                judge(self._unit(fact), fact, at_ms)
                if fact.outcome and fact.sitting is not None:
                    self.spent_mc += fact.sitting.paid_mc
            case Proposed() | Refused() | Progressed() | Delivered() | Verified() | Failed():
                self._advance(fact, at_ms)
            case Charged():
                self._charge(fact, at_ms)
            case Cancelled():
                self.cancelled = self.cancelled or fact
            case Done():
                # Judges are paid whether or not the job waits for what they say.
                self.spent_mc += self._promised_mc()
                self.done, self.ended_ms = fact, at_ms
            case _:
                raise OutOfTurn(fact.KIND, "folding")
        self.seq += 1

    def _elect(self, fact: Elected) -> None:
        if self.elected is not None and fact.epoch <= self.elected.epoch:
            raise OutOfTurn(f"epoch {fact.epoch}", f"in epoch {self.elected.epoch}")
        self.elected = fact

    def _replan(self, fact: Replanned, at_ms: int) -> None:
        if trouble := patch_trouble(self, fact):
            raise OutOfTurn("replanned", trouble)
        task = self.tasks[fact.subtask]
        self.tasks[task.id] = replace(task, capability=fact.capability)
        self.patches.append(fact)
        self.patched_ms[task.id] = at_ms
        for unit in self.begun.get(task.id, {}).values():
            unit.since = len(unit.attempts)

    def _expand(self, fact: Expanded) -> None:
        if fact.subtask not in self.tasks or fact.subtask in self.expanded:
            raise OutOfTurn("expanded", f"{fact.subtask} is unknown or expanded")
        names = []
        for batch, items in enumerate(fact.sizes):
            name = f"{fact.subtask}/{batch}"
            self.units[name] = Unit(name, fact.subtask, batch, items)
            names.append(name)
        self.expanded[fact.subtask] = names
        self.fresh[fact.subtask] = {name: self.units[name] for name in names}
        self.begun[fact.subtask] = {}
        self.slices[fact.subtask] = fact.slices

    def _open(self, fact: Called | Awarded, at_ms: int) -> None:
        unit = self._unit(fact)
        hedge = isinstance(fact, Awarded) and fact.hedge
        beside = hedge or (isinstance(fact, Awarded) and is_beside(unit, fact))
        attempt = None if beside else unit.current
        if isinstance(fact, Awarded) and hedge:
            self._check_hedge(unit, fact)
            self.hedges += 1
        elif isinstance(fact, Awarded) and beside:
            check_replica(self.required_plan, unit, fact)
        if attempt is None:
            if fact.attempt != len(unit.attempts) or unit.accepted is not None:
                raise OutOfTurn(fact.KIND, f"attempt {len(unit.attempts)} of {unit.name}")
            attempt = Attempt(fact.attempt, at_ms, hedge=hedge)
            unit.attempts.append(attempt)
            self.fresh[unit.subtask].pop(unit.name, None)
            self.begun[unit.subtask][unit.name] = unit
            unit.started_ms = unit.started_ms or at_ms
            first = "cfp" if isinstance(fact, Called) else "offer"
            attempt.contract = advance(attempt.contract, first)
        elif isinstance(fact, Called) or fact.attempt != attempt.number or attempt.award:
            raise OutOfTurn(fact.KIND, f"attempt {attempt.number} of {unit.name} is open")
        elif fact.peer not in attempt.proposals:
            raise OutOfTurn(fact.KIND, f"{fact.peer[:60]} has proposed nothing")
        attempt.at_ms = at_ms
        if isinstance(fact, Called):
            attempt.called = dict(fact.cfps)
            return
        attempt.contract = advance(attempt.contract, "award")
        attempt.peer, attempt.agent = fact.peer, fact.agent
        attempt.award, attempt.lease_ms = fact.award, fact.lease_ms
        attempt.price_cap_mc, attempt.schema = fact.price_cap_mc, fact.schema
        attempt.proposal, attempt.subtasks = fact.proposal, fact.subtasks
        attempt.replica, attempt.tokens = fact.replica, fact.tokens
        attempt.wait_max_ms = fact.wait_max_ms

    def _check_hedge(self, unit: Unit, fact: Awarded) -> None:
        """A hedge runs beside one award that is out, and with another contractor."""
        tried = unit.tried()
        if [attempt.contract for attempt in tried] != [ContractState.AWARDED]:
            raise OutOfTurn("a hedge", f"{unit.name} has not just one award out")
        if tried[0].peer == fact.peer:
            raise OutOfTurn("a hedge", f"{fact.peer[:60]} has {unit.name} already")

    def _advance(  # noqa: C901, PLR0912 - one arm for each kind and for what it may not follow
        self, fact: Fact, at_ms: int
    ) -> None:
        unit = self._unit(fact)
        number = getattr(fact, "attempt", -1)
        attempt = unit.attempt(number)
        if isinstance(fact, Failed) and unit.name in self.outrun:
            self._stopped(unit, fact)
            return
        if attempt is None:
            raise OutOfTurn(fact.KIND, f"no such open attempt of {unit.name}")
        match fact:
            case Proposed() | Refused() if fact.peer not in attempt.called:
                raise OutOfTurn(fact.KIND, f"{fact.peer[:60]} was not asked")
            case Proposed():
                if attempt.contract is ContractState.CALLED:
                    attempt.contract = advance(attempt.contract, "proposal")
                attempt.proposals[fact.peer] = fact
            case Refused():
                attempt.refusals[fact.peer] = fact
            case Progressed():
                attempt.contract = advance(attempt.contract, "progress")
                attempt.items_done, attempt.offset = fact.items_done, fact.offset
            case Delivered() if attempt.delivered is not None:
                raise OutOfTurn("delivered", f"{unit.name} is delivered")
            case Delivered():
                attempt.contract = advance(attempt.contract, "result")
                attempt.delivered, attempt.items_done = fact, unit.calls
            case Verified():
                if attempt.delivered is None or attempt.verdict is not None:
                    stands = "not delivered" if attempt.delivered is None else "verified"
                    raise OutOfTurn("verified", f"{unit.name} is {stands}")
                attempt.verdict = fact
            case Failed():
                attempt.error = fact
                self._use(attempt)
                unit.ended_ms = at_ms
            case _:
                raise OutOfTurn(fact.KIND, "advancing")

    def _stopped(self, unit: Unit, fact: Failed) -> None:
        """Another attempt was faster: that ends this one, and changes nothing else."""
        found = [attempt for attempt in unit.tried() if attempt.number == fact.attempt]
        if not found:
            raise OutOfTurn(fact.KIND, f"no such open attempt of {unit.name}")
        found[0].error = fact
        self._use(found[0])
        if not unit.tried():
            del self.outrun[unit.name]

    def _use(self, attempt: Attempt) -> None:
        """Count what an attempt that is over has used of what it was given."""
        if attempt.award and bounds.was_begun(attempt):
            self.subtasks_used += bounds.own_awards(self) + bounds.below(attempt)
            self.tokens_used += tokens.used(attempt)

    def _charge(self, fact: Charged, at_ms: int) -> None:
        unit = self._unit(fact)
        attempt = unit.attempt(fact.attempt)
        if attempt is None or attempt.verdict is None:
            raise OutOfTurn("charged", f"{unit.name} is not verified")
        rejected = attempt.verdict.verdict == "rejected"
        attempt.contract = advance(attempt.contract, "rejection" if rejected else "acceptance")
        attempt.paid_mc = fact.paid_mc
        self._use(attempt)
        unit.ended_ms = at_ms
        if rejected:
            attempt.error = Failed(
                unit=unit.name,
                attempt=attempt.number,
                peer=attempt.peer,
                code="output.rejected",
                text=attempt.verdict.detail,
                blame="peer",
            )
            return
        if fact.key in self.charges:
            raise OutOfTurn("charged", f"{fact.key} is charged already")
        self.charges[fact.key] = fact.paid_mc
        self.spent_mc += fact.paid_mc
        if unit.judged is not None and unit.settled and unit.judged.chosen != attempt.number:
            return  # it said the same as the one that is chosen, or nobody knows who is right
        unit.accepted = attempt
        del self.begun[unit.subtask][unit.name]
        if unit.tried():
            self.outrun[unit.name] = unit

    def _unit(self, fact: Fact) -> Unit:
        name = getattr(fact, "unit", "")
        unit = self.units.get(name)
        if unit is None:
            raise OutOfTurn(fact.KIND, f"there is no unit {name[:60]!r}")
        return unit


def fold(job: str, events: Iterable[Event]) -> JobState:
    """Return the state that ``events`` make.

    Raises:
        OutOfTurn: They are not a job's journal.
    """
    state = JobState(job)
    for event in events:
        state.apply(event)
    return state
