"""Faults that are planted in the node's code, one at a time, for scenarios to find.

Each is a mistake that somebody could make: a line forgotten, two lines in the wrong order.
None of them shows while nothing goes wrong, or not to whoever looks at results alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import ANY, MagicMock

import msgspec
import pytest
import trio

from meshnode.domain.facts import Charged, Fact
from meshnode.domain.job import JobState
from meshnode.domain.ledger import Posting
from meshnode.errors import MeshError, StoreError
from meshnode.ports import Once, Put, Write
from meshnode.services import artifacts
from meshnode.services.agents import AgentHost
from meshnode.services.broker import Broker
from meshnode.services.contractor import Contractor
from meshnode.services.contracts import Contracts
from meshnode.services.execution import Execution
from meshnode.services.job_runner import JobRunner
from meshnode.services.job_terms import Terms
from meshnode.services.journals import JobJournal
from meshnode.services.ledger import Ledger
from meshnode.services.receipts import DUE
from meshnode.services.sessions import Incoming
from protocol.messages import Cancel, read_message
from simulations.mesh import NETWORK

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault that the five nodes find, and what is said of it.

    Attributes:
        name: For people.
        plant: Puts it into the code.
        seeds: Of the scenario; within these it is found.
        told: What the checkers say, in part.
    """

    name: str
    plant: Plant
    seeds: Sequence[int]
    told: str


def _later(patch: pytest.MonkeyPatch) -> None:
    """The journal says that it has written what it is only about to write."""

    async def hasty(self: JobJournal, group: Any) -> None:
        if not group.events:
            return
        head = Put("journal_head", self.job, self._sign_head(self._context.clock.now_ms()))

        async def write() -> None:
            await trio.sleep(0.2)
            try:
                await self._context.store.commit(*group.writes, head)
            except StoreError:
                return  # it crashed meanwhile: lost, as such a write would be

        trio.lowlevel.spawn_system_task(write)
        self._durable = len(self._events)
        self.poke()
        for seq, fact in group.events:
            self._context.emit(f"job.{fact.KIND}", job=self.job, seq=seq, fact=fact)
        await trio.lowlevel.checkpoint()

    patch.setattr(JobJournal, "_commit", hasty)


def _forgotten(patch: pytest.MonkeyPatch) -> None:
    """A broker that comes back doesn't know of the awards that are out."""
    honest = JobJournal._load

    async def forgetful(self: JobJournal, entries: Sequence[bytes]) -> None:
        await honest(self, entries)
        for unit, attempt in list(self.state.open_attempts()):
            if attempt.award and attempt.delivered is None:
                unit.attempts.remove(attempt)
                del self.state.begun[unit.subtask][unit.name]
                self.state.fresh[unit.subtask][unit.name] = unit

    patch.setattr(JobJournal, "_load", forgetful)


def _unkeyed(patch: pytest.MonkeyPatch) -> None:
    """A charge that is made again is another charge."""
    honest_charge, honest_fold = JobRunner._charge, JobState._charge

    def again(self: JobRunner, step: Any) -> tuple[list[Fact], list[Write]]:
        facts, writes = honest_charge(self, step)
        more = [
            msgspec.structs.replace(fact, key=f"{fact.key}/again")
            for fact in facts
            if isinstance(fact, Charged)
        ]
        return [*facts, *more], writes

    def credulous(self: JobState, fact: Charged, at_ms: int) -> None:
        if fact.key.endswith("/again"):
            self.spent_mc += fact.paid_mc
        else:
            honest_fold(self, fact, at_ms)

    patch.setattr(JobRunner, "_charge", again)
    patch.setattr(JobState, "_charge", credulous)


def _hasty_cancel(patch: pytest.MonkeyPatch) -> None:
    """A cancel is acknowledged when the work is told to stop, and not when it has."""

    async def hasty(self: Contractor, incoming: Incoming) -> bytes:
        cancel = read_message(incoming.body, Cancel, network=NETWORK)
        execution = self._bench.running.get(cancel.award)
        if execution is not None:
            execution.stop("cancelled", cancel.reason)
        self._emit(
            "award.stopped", award=cancel.award.hex(), job=cancel.h.job, unit=cancel.h.subtask
        )
        await trio.lowlevel.checkpoint()
        return b""

    patch.setattr(Contractor, "_on_cancel", hasty)


def _reserved(patch: pytest.MonkeyPatch) -> None:
    """What an attempt reserved stays reserved when it comes to nothing."""

    def stingy(self: JobState) -> int:
        return sum(
            attempt.price_cap_mc
            for unit in self.units.values()
            for attempt in unit.attempts
            if attempt.award and attempt.paid_mc is None
        )

    patch.setattr(JobState, "reserved_mc", stingy)


def _slot(patch: pytest.MonkeyPatch) -> None:
    """An agent that fails keeps its slot."""
    honest = AgentHost.call

    async def leaky(self: AgentHost, name: str, *args: Any, **options: Any) -> Any:
        try:
            return await honest(self, name, *args, **options)
        except MeshError:
            self._hosted[name].limiter.acquire_on_behalf_of_nowait(object())
            raise

    patch.setattr(AgentHost, "call", leaky)


def _undelivered(patch: pytest.MonkeyPatch) -> None:
    """What could not be delivered at once isn't written down as due."""
    honest = Contracts.charge

    def careless(self: Contracts, *args: Any) -> tuple[Charged, list[Write]]:
        charged, writes = honest(self, *args)
        return charged, [w for w in writes if not (isinstance(w, Put) and w.table == DUE)]

    patch.setattr(Contracts, "charge", careless)


def _posted_twice(patch: pytest.MonkeyPatch) -> None:
    """What is owed is taken in when it is written down, and again when that is told."""
    honest = Contracts.charged

    def eager(self: Contracts, *args: Any) -> None:
        honest(self, *args)
        honest(self, *args)

    patch.setattr(Contracts, "charged", eager)


def _posted_unkeyed(patch: pytest.MonkeyPatch) -> None:
    """Postings have no key, where one may be written twice; with a key that is no matter."""
    honest = Ledger.writes

    def unkeyed(posting: Posting | None) -> list[Write]:
        return [
            write
            for once in [*honest(posting), *honest(posting)]
            if isinstance(once, Once)
            for write in (Put(once.table, once.key, once.value), *once.writes)
        ]

    patch.setattr(Ledger, "writes", staticmethod(unkeyed))


def _posted_by_one(patch: pytest.MonkeyPatch) -> None:
    """A contractor doesn't write down what it is owed."""
    honest = Ledger.commit

    async def forgetful(self: Ledger, _: Posting | None, *writes: Write) -> None:
        await honest(self, None, *writes)

    patch.setattr(Ledger, "commit", forgetful)


def _two_jobs(patch: pytest.MonkeyPatch) -> None:
    """The key of a job is kept in memory only."""
    honest = Broker.submit

    async def forgetful(
        self: Broker, graph: Any, inputs: Any, terms: Terms, **options: Any
    ) -> str:
        known: dict[str, str] = self.__dict__.setdefault("_known", {})
        key = terms.idempotency_key
        if key not in known:
            unkeyed = replace(terms, idempotency_key="")
            known[key] = await honest(self, graph, inputs, unkeyed, **options)
        return known[key]

    patch.setattr(Broker, "submit", forgetful)


def _unread(patch: pytest.MonkeyPatch) -> None:
    """After the disk refused, the journal goes on with what it holds in memory."""

    async def blithe(self: JobJournal) -> None:
        self._broken = ""
        self._durable = len(self._events)
        self.poke()
        await trio.lowlevel.checkpoint()

    patch.setattr(JobJournal, "_reload", blithe)


def endless(patch: pytest.MonkeyPatch) -> None:
    """A job is held to another deadline than its owner's.

    To leave out the broker's look at the clock alone is not enough: no award is waited for
    past the deadline either.
    """
    honest = Broker._take

    async def patient(self: Broker, graph: Any, inputs: Any, terms: Terms, **named: Any) -> str:
        late = replace(terms, deadline_s=10 * terms.deadline_s)
        return await honest(self, graph, inputs, late, **named)

    patch.setattr(Broker, "_take", patient)


def unhashed(patch: pytest.MonkeyPatch) -> None:
    """What was fetched is taken for what was wanted."""

    def gullible(_: bytes) -> Any:
        hashed = MagicMock()
        hashed.digest.return_value = ANY  # equals whatever it is held against
        return hashed

    patch.setattr(artifacts, "sha256", gullible)


def unleased(patch: pytest.MonkeyPatch) -> None:
    """The work for a broker that has gone goes on."""
    patch.setattr(Execution, "_let_lease_run", lambda _: None)


#: What the five nodes find, and within which seeds.
FIVE_NODES: Final = (
    Mutant("written too late", _later, (0,), "before writing it down"),
    Mutant("awards forgotten in a crash", _forgotten, (0,), "does not verify"),
    Mutant("charged under another key", _unkeyed, (0,), "acceptances pay"),
    Mutant("cancel acknowledged early", _hasty_cancel, (1,), "and it runs"),
    Mutant("reservations kept", _reserved, (1,), "are reserved after the end"),
    Mutant("slots kept", _slot, (56,), "slots for upper free"),
    Mutant("receipts sent once", _undelivered, (80,), "was never given its receipt"),
    Mutant("posted twice", _posted_twice, (0,), "believes in balances of"),
    Mutant("posted without a key", _posted_unkeyed, (0,), "its postings make"),
    Mutant("posted at one side", _posted_by_one, (0,), "posted nothing for award"),
    Mutant("a key for each life", _two_jobs, (0,), "the same key gave another job"),
    Mutant("a full disk believed", _unread, (56,), "signs other events than these"),
)
