"""Brokers look now and then whether agents do the examples that stand in records.

What a record claims of its examples was measured by its own node.  So a broker asks agents that
it has work done by for one of *their own* examples, or for one of *another's* record, as a task
like any (:mod:`meshnode.services.single_tasks`).  What that shows is decided in
:mod:`meshnode.domain.spot_checks`.

Nothing happens here but by jobs that end: each saves up ``[trust] spot_share`` of the calls
that others did in it, and of what they cost, by capability; once a call is saved up one is
made, a little later.  What is saved up is forgotten at a restart, so all that was spent
stays within the share of all that was earned.  That a check is out is on the disk before it
leaves, and what it teaches goes into the commit that notes its end: neither is done twice.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.domain.circuits import CircuitState
from meshnode.domain.job import JobState
from meshnode.domain.likeness import equivalent
from meshnode.domain.matching import Candidate
from meshnode.domain.spot_checks import (
    OUTCOMES_MAX,
    Outcome,
    Purse,
    Spotted,
    is_belied,
    spotted,
)
from meshnode.domain.trust.rules import Kind
from meshnode.errors import MeshError, StoreError
from meshnode.ports import JsonValue
from meshnode.services.context import Context
from meshnode.services.experience import capability_of
from meshnode.services.market import Market
from meshnode.services.reputation import Noted, Reputation
from meshnode.services.single_tasks import SingleTasks
from meshnode.services.spot_examples import Example, Examples
from meshnode.services.spot_rows import Key, Out, SpotRow, SpotRows
from meshnode.services.supervising import alone
from meshnode.services.unasked_probes import UnaskedProbes
from protocol.errors import ProtocolError
from protocol.keys import digest

#: Calls that are saved up for one capability, at most.
_SAVED_MAX: Final = 4.0
#: A check follows within so long, seconds: who is checked at once could tell by that.
_WITHIN_S: Final = 60.0
#: Where nothing could be asked it isn't looked again for so long, seconds.
_NOTHING_S: Final = 600.0
#: What the disk refused is tried again after this, seconds.
_AGAIN_S: Final = 5.0
#: Examples of others that an agent is remembered to have been asked for.
_SEEN_MAX: Final = 64


class SpotChecks:
    """See the module.

    Attributes:
        rows: What is kept.
    """

    def __init__(
        self,
        context: Context,
        *,
        market: Market,
        reputation: Reputation,
        tasks: SingleTasks,
        probes: UnaskedProbes,
    ) -> None:
        self.rows = SpotRows(context.store)
        self._own = context.peer
        self._clock = context.clock
        self._rng = context.rng
        self._emit = context.emit
        self._share = context.config.trust.spot_share
        self._market = market
        self._reputation = reputation
        self._tasks = tasks
        self._probes = probes
        self._examples = Examples(context, market=market, reputation=reputation, rows=self.rows)
        self._purses: dict[str, Purse] = {}
        self._held_mc: dict[str, int] = {}  # key of a job -> what was paid for it ahead
        self._waits_s: dict[str, float] = {}  # capability -> no check begins before
        self._turn = trio.Lock()  # a row is changed by one at a time
        self._nursery: trio.Nursery | None = None

    def of(self, capability: str, agent: str) -> Spotted:
        """Return what was seen of an agent's examples, beside what it claims now."""
        return self._examples.seen(capability, agent)

    async def run(self) -> None:
        """See to checks that are out, and begin others as jobs end, until cancelled.

        Raises:
            StoreError: What is there can't be read.
        """
        await self.rows.load()
        async with trio.open_nursery() as nursery:
            for capability, agent, out in list(self.rows.under_way()):
                nursery.start_soon(alone, self._emit, self._follow, capability, agent, out.key)
            self._nursery = nursery
            await trio.sleep_forever()

    # --- saving up ---

    def ended(self, state: JobState) -> None:
        """Save up from a job that has ended, and begin what that pays for."""
        plan, nursery = state.plan, self._nursery
        if nursery is None or not self._share or plan is None:
            return
        if plan.gold is not None or plan.only or plan.under or plan.owner != self._own:
            return
        calls, costs_mc, agents = _work_of(state, self._own)
        for name, count in calls.items():
            share = self._share
            if plan.theta_ppm and self._probes.wants(name, agents[name]):
                share /= 2
                self._probes.earn(name, share * count, share * costs_mc[name])
                if (taken := self._probes.take(name)) is not None:
                    nursery.start_soon(alone, self._emit, self._probes.probe, name, taken)
            purse = self._purses.setdefault(name, Purse())
            purse.earn(share * count, share * costs_mc[name], calls_max=_SAVED_MAX)
            if purse.affords(1, 0) and self._may_begin(name):
                pause_s = _WITHIN_S * self._rng.random()
                self._waits_s[name] = trio.current_time() + pause_s
                nursery.start_soon(alone, self._emit, self._later, name, agents[name], pause_s)

    def _may_begin(self, capability: str) -> bool:
        """Tell whether a check may begin now, as far as is known without asking anybody."""
        now_s = trio.current_time()
        if now_s < self._waits_s.get(capability, 0.0):
            return False
        if any(offer.examples for offer in self._market.declared(capability).values()):
            return True
        self._waits_s[capability] = now_s + _NOTHING_S
        return False

    async def _later(self, capability: str, agents: Sequence[str], pause_s: float) -> None:
        """Check one of ``agents`` after a while."""
        await trio.sleep(pause_s)
        try:
            for agent in self._ordered(capability, agents):
                if await self.check(capability, agent):
                    return
        except StoreError as exc:
            self._emit("spots.held_up", capability=capability, why=str(exc))
        else:
            self._emit("spots.nothing", capability=capability)
        self._waits_s[capability] = trio.current_time() + _NOTHING_S

    def _ordered(self, capability: str, agents: Sequence[str]) -> list[str]:
        """Return agents in the order in which they are checked.

        Who did an example otherwise than it says comes first, so that it is soon known whether
        that was chance; then who was asked the least.
        """
        mixed = list(agents)
        self._rng.shuffle(mixed)
        return sorted(mixed, key=lambda agent: self._need(capability, agent))

    def _need(self, capability: str, agent: str) -> tuple[bool, int]:
        row = self.rows.of(capability, agent)
        return not self.of(capability, agent).is_open, len(row.own) + row.others

    # --- asking ---

    async def check(self, capability: str, agent: str) -> str:
        """Ask an agent for an example; return the job, or nothing if none is asked for.

        None is where it isn't there, is being asked, has none to ask for, or nothing is saved.

        Raises:
            StoreError: The disk refused.
        """
        async with self._turn:
            row, found = self.rows.of(capability, agent), self._candidate(capability, agent)
            purse = self._purses.get(capability, Purse())
            if self._nursery is None or row.out is not None or found is None:
                return ""
            price_mc = found.price_mc
            if not purse.affords(1, price_mc):
                return ""
            asked = self._examples.choose(capability, agent)
            if asked is None:
                return ""
            key = self._tasks.key()
            seen = row.seen if asked.owner == agent else [*row.seen, asked.name][-_SEEN_MAX:]
            out, now_ms = Out(key, asked.owner, asked.name), self._clock.now_ms()
            await self.rows.keep(
                {(capability, agent): replace(row, seen=seen, out=out, at_ms=now_ms)}
            )
            purse.pay(1, price_mc)
            self._held_mc[key] = price_mc
        return await self._send(capability, agent, asked, key, price_mc)

    async def _send(
        self, capability: str, agent: str, asked: Example, key: str, price_mc: int
    ) -> str:
        try:
            job = await self._tasks.begin(
                agent, capability, asked.value, key=key, price_max_mc=price_mc
            )
        except StoreError:
            raise  # it is looked up at the next start whether it is there
        except (MeshError, ProtocolError) as exc:  # an example that can't be put in a graph
            self._emit("spots.not_asked", agent=agent, why=str(exc))
            self._settle(capability, key, calls=0, spent_mc=0)
            await self._end(capability, agent)
            return ""
        self._emit("spots.asked", capability=capability, agent=agent, job=job)
        if self._nursery is not None:
            self._nursery.start_soon(alone, self._emit, self._follow, capability, agent, key)
        return job

    def _candidate(self, capability: str, agent: str) -> Candidate | None:
        """Return an agent that can be asked now, and isn't this node's own."""
        for one in self._market.candidates(capability):
            if one.agent_id == agent and one.capability == capability:
                # A name that cost nothing may be asked: it worked here.
                fails = self._market.circuit(one.peer) is CircuitState.OPEN
                return None if fails or one.peer == self._own else one
        return None

    def _settle(self, capability: str, key: str, *, calls: int, spent_mc: int) -> None:
        """Set what was paid ahead against what a check came to."""
        held_mc = self._held_mc.pop(key, None)
        if held_mc is not None:
            self._purses[capability].pay(calls - 1, spent_mc - held_mc)

    # --- what comes of it ---

    async def _follow(self, capability: str, agent: str, key: str) -> None:
        """Wait for the end of a check and note what it shows; forget one that never left."""
        while True:
            try:
                if job := await self._tasks.job_of(key):
                    await self._note(capability, agent, job)
                else:
                    await self._end(capability, agent)
            except StoreError as exc:
                self._emit("spots.held_up", capability=capability, why=str(exc))
                await trio.sleep(_AGAIN_S)
            else:
                return

    async def _note(self, capability: str, agent: str, job: str) -> None:
        out = self.rows.of(capability, agent).out
        try:
            state = await self._tasks.broker.wait(job)
            if out is not None:
                self._settle(capability, out.key, calls=1, spent_mc=state.spent_mc)
            answer = await self._tasks.answer(state)
        except StoreError:
            raise
        except MeshError as exc:  # no answer shows nothing of what is right
            self._emit("spots.no_answer", agent=agent, why=exc.line())
            await self._end(capability, agent)
            return
        try:
            await self._compare(capability, agent, out, answer, _award_of(state))
        except StoreError:
            raise
        except (MeshError, ProtocolError) as exc:  # it can't be held against what is claimed
            self._emit("spots.not_compared", agent=agent, why=str(exc))
            await self._end(capability, agent)

    async def _compare(
        self, capability: str, agent: str, out: Out | None, answer: JsonValue, award: bytes
    ) -> None:
        """Note what an answer shows beside what its example's owner says comes out."""
        async with self._turn:
            asked = self._examples.again(capability, agent, out)
            rows: dict[Key, SpotRow] = {}
            kind: Kind | None = None
            if asked is not None:  # else a record has changed meanwhile
                right = equivalent(answer, asked.output, asked.like)
                if asked.owner == agent:
                    rows, kind = self._own_example(capability, agent, right=right)
                else:
                    rows, kind = self._other(capability, agent, asked.owner, right=right)
            key = capability, agent
            rows[key] = replace(rows.get(key, self.rows.of(*key)), out=None)
            await self._learn(key, rows, kind, award)

    def _own_example(
        self, capability: str, agent: str, *, right: bool
    ) -> tuple[dict[Key, SpotRow], Kind | None]:
        """Return what it changes, and teaches, how an agent did an example of its own."""
        row, now_ms = self.rows.of(capability, agent), self._clock.now_ms()
        own = [*row.own, Outcome(now_ms, right)][-OUTCOMES_MAX:]
        seen = spotted(own, self._examples.claimed(capability, agent), now_ms=now_ms)
        kind: Kind | None = "overclaimed" if seen.overclaims and not right else None
        return {(capability, agent): replace(row, own=own)}, kind

    def _other(
        self, capability: str, agent: str, owner: str, *, right: bool
    ) -> tuple[dict[Key, SpotRow], Kind | None]:
        """Return what it changes, and teaches, how an agent did an example of another's."""
        row, theirs = self.rows.of(capability, agent), self.rows.of(capability, owner)
        by, rules = self._examples.owner(capability, owner), self._reputation.rules
        believed = self._reputation.credibility(capability, agent)
        lost = not right and by.is_heard(rules) and is_belied(by, agent, believed, rules)
        rows = {
            (capability, agent): replace(row, others=row.others + 1, unlike=row.unlike + lost),
            (capability, owner): replace(
                theirs, alike=theirs.alike + right, gainsaid=theirs.gainsaid + (not right)
            ),
        }
        return rows, "unlike" if lost else None

    async def _learn(
        self, key: Key, rows: Mapping[Key, SpotRow], kind: Kind | None, award: bytes
    ) -> None:
        """Keep what came of a check together with what it teaches."""
        capability, agent = key
        before = self.of(capability, agent).overclaims
        noted: list[Noted] = []
        if kind is not None:
            source = digest(award)
            noted = [self._reputation.note(capability, agent, kind, source=source)]
        try:
            await self.rows.keep(rows, *(write for one in noted for write in one.writes))
        except StoreError:
            self._reputation.dropped(*noted)
            raise
        self._reputation.learned(*noted)
        self._emit("spots.seen", capability=capability, agent=agent, taught=kind or "")
        seen = self.of(capability, agent)
        if seen.overclaims != before:
            name = "spots.overclaims" if seen.overclaims else "spots.bears_out"
            self._emit(name, capability=capability, agent=agent, asked=seen.asked)

    async def _end(self, capability: str, agent: str) -> None:
        """Note that a check came to nothing."""
        async with self._turn:
            row = self.rows.of(capability, agent)
            await self.rows.keep({(capability, agent): replace(row, out=None)})


def _work_of(
    state: JobState, own: str
) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
    """Return by capability what others did in a job: calls, millicredits, and who."""
    calls: Counter[str] = Counter()
    costs_mc: Counter[str] = Counter()
    agents: dict[str, dict[str, None]] = {}
    for unit in state.units.values():
        for attempt in unit.attempts:
            if attempt.delivered is None or attempt.peer == own:
                continue
            capability = capability_of(attempt)
            calls[capability] += unit.calls
            costs_mc[capability] += attempt.paid_mc or 0
            agents.setdefault(capability, {})[f"{attempt.peer}/{attempt.agent}"] = None
    return calls, costs_mc, {name: list(some) for name, some in agents.items()}


def _award_of(state: JobState) -> bytes:
    """Return the award of the one task of a job."""
    awards = [a.award for unit in state.units.values() for a in unit.attempts if a.award]
    return awards[-1] if awards else b""
