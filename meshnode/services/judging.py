"""What a broker makes of several answers to one thing, and whom it believes.

A unit of a job that wants to be sure is judged before it is awarded, and whenever its answers
are there (:mod:`meshnode.domain.judging`).  Here is what that needs of the node: what it knows
of the agents, what the answers say and which of them say the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import trio

from meshnode.domain.declared import grouping
from meshnode.domain.facts import Failed, Judged
from meshnode.domain.job import JobState
from meshnode.domain.judging import Bench, begin, go_on, stake
from meshnode.domain.matching import Candidate
from meshnode.domain.trust.allocation import Bidder
from meshnode.domain.units import SINGLE, Attempt, Unit
from meshnode.domain.verification import read_output
from meshnode.errors import ArtifactError, ArtifactTooLarge
from meshnode.ports import Embedder, JsonValue
from meshnode.services.agreement import agreeing
from meshnode.services.checking import Checking
from meshnode.services.context import Context
from meshnode.services.experience import Experience, Learned, capability_of
from meshnode.services.market import Market
from protocol.likeness import Likeness


class Arbiters(Protocol):
    """Who is asked when nothing else decides (:mod:`meshnode.services.panels`)."""

    async def call(self, state: JobState, unit: Unit, judged: Judged) -> Judged | None:
        """Return a judgement that nothing decides as one that waits for a panel, or None."""

    async def hear(self, state: JobState, unit: Unit) -> Judged:
        """Return what the panel that was called makes of it."""


class OnBegin(Protocol):
    """See :attr:`Judging.on_begin`."""

    def __call__(self, ranked: Sequence[Candidate], *, alarmed: bool) -> None:
        """Take note; does nothing that takes time."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a judgement that takes time goes by.

    Attributes:
        judgements: How many there were before.
        answers: Numbers of the attempts whose answers wait.
    """

    judgements: int
    answers: tuple[int, ...]

    @classmethod
    def of(cls, unit: Unit) -> Self:
        """Return that of a judgement that is begun now."""
        return cls(unit.judgements, tuple(one.number for one in unit.answers()))

    def holds(self, state: JobState, unit: Unit, fact: Judged | Failed) -> bool:
        """Tell whether what came of a judgement by it may still be written down."""
        called = fact.sitting if isinstance(fact, Judged) and not fact.outcome else None
        free_mc = state.required_plan.budget_mc - state.spent_mc - state.reserved_mc()
        if called is not None and called.cap_mc > free_mc:  # others took it meanwhile
            return False
        return self == Basis.of(unit) and state.cancelled is None


class _AnswerGone(ArtifactError):
    """An answer can't be had any more, such as of who made it for another broker.

    Attributes:
        attempt: Whose answer it is.
        why: What stood in the way.
    """

    def __init__(self, attempt: Attempt, why: ArtifactError) -> None:
        super().__init__(str(why), hint=why.hint)
        self.attempt, self.why = attempt, why

    def fact(self, unit: Unit) -> Failed:
        """Return the end of that attempt: not for want of what its maker did.

        What is too large is so for this node.
        """
        own = isinstance(self.why, ArtifactTooLarge)
        return Failed(
            unit=unit.name,
            attempt=self.attempt.number,
            peer="" if own else self.attempt.peer,
            code=self.why.code,
            text=str(self)[:500],
            blame="broker" if own else "artifact",
        )


def _nothing(ranked: Sequence[Candidate], *, alarmed: bool) -> None:
    pass


def _no_family(capability: str, agent: str) -> str:  # noqa: ARG001 - as it is called
    return ""


#: Agents that have offers out for a unit, beside as many as it needs.
_NEAR: Final = 4


class Judging:
    """See the module."""

    def __init__(
        self,
        context: Context,
        *,
        experience: Experience,
        market: Market,
        checking: Checking,
        embedder: Embedder | None = None,
    ) -> None:
        """Judge by ``experience``."""
        self._context = context
        self._experience = experience
        self._reputation = experience.reputation
        self._market = market
        self._checking = checking
        self._embedder = embedder
        #: Of which model family an agent counts, by capability and id; empty for none.
        self.family: Callable[[str, str], str] = _no_family
        self.arbiters: Arbiters | None = None
        #: Told who is about to be asked, the first choice first.
        self.on_begin: OnBegin = _nothing

    # --- judging ---

    async def judge(
        self, state: JobState, unit: Unit, *, last: bool
    ) -> tuple[Judged | Failed, Learned]:
        """Return a judgement of ``unit``, and what it teaches.

        Or the end of an attempt whose answer can't be had any more: the others are judged
        without it.

        Args:
            state: Of its job.
            unit: It isn't settled.
            last: Nobody else can be asked.

        Raises:
            ArtifactError: What a panel is to be shown can't be had any more.
        """
        try:
            return await self._judgement(state, unit, last=last)
        except _AnswerGone as gone:
            return gone.fact(unit), Learned()

    async def _judgement(
        self, state: JobState, unit: Unit, *, last: bool
    ) -> tuple[Judged, Learned]:
        task = state.tasks[unit.subtask]
        if unit.summons is not None and self.arbiters is not None:
            heard = await self.arbiters.hear(state, unit)
            self._experience.judged(task.capability)
            return heard, Learned()
        answers = unit.answers()
        offered = [] if last else self._offered(unit, task.capability)
        if not answers:
            await trio.lowlevel.checkpoint()
            if not offered:
                return Judged(unit=unit.name, wanted=1), Learned()
            bench = self._bench(state, unit, offered, offered)
            begun = begin(unit.name, bench, checked=bool(task.checks))
            ids = {one.agent_id: one for one in offered}
            # Whoever is asked beside the first, or instead of it, must have an offer out.
            near = [ids[agent] for agent in begun.ask[: begun.wanted + _NEAR]]
            self._market.approach(task.capability, near)
            self.on_begin([ids[agent] for agent in begun.ask], alarmed=bench.alarmed)
            return begun, Learned()
        values = [await self._value(state, unit, attempt) for attempt in answers]
        like = grouping(task.like, [self._declared(attempt) for attempt in answers])
        groups = await agreeing(values, like, self._embedder, emit=self._context.emit)
        voters = [self._voter(attempt) for attempt in answers]
        known = offered or self._market.candidates(task.capability)
        bench = self._bench(state, unit, offered, known)
        judged, lessons = go_on(unit, groups, voters, bench)
        if judged.outcome == "contested" and self.arbiters is not None:
            waiting = await self.arbiters.call(state, unit, judged)
            if waiting is not None:
                return waiting, Learned()
        sources = {voter.agent: attempt for voter, attempt in zip(voters, answers, strict=True)}
        if judged.outcome:
            self._experience.judged(task.capability)
        return judged, self._experience.of(
            (sources[lesson.agent], lesson.kind) for lesson in lessons
        )

    def _declared(self, attempt: Attempt) -> Likeness | None:
        """Return when answers say the same by the record of who made one."""
        name = capability_of(attempt)
        offer = self._market.capability(attempt.peer, attempt.agent, name)
        return offer.like if offer is not None else None

    def _offered(self, unit: Unit, query: str) -> list[Candidate]:
        """Return who else could be asked: after the first answer, who has an offer out."""
        tried = {attempt.peer for attempt in unit.attempts}
        found = [
            one
            for one in self._market.candidates(query)
            if one.peer not in tried and one.items_max >= unit.calls and not one.failing
        ]
        if unit.judged is not None:
            found = [one for one in found if one.offer or one.asked]
        return sorted(found, key=lambda one: one.agent_id)

    def _bench(
        self,
        state: JobState,
        unit: Unit,
        offered: Sequence[Candidate],
        known: Sequence[Candidate],
    ) -> Bench:
        load = self._market.load()
        capability = state.tasks[unit.subtask].capability
        job = stake(
            known,
            calls=unit.calls,
            theta_ppm=state.required_plan.theta_ppm,
            out=sum(load.values()),
        )
        return Bench(
            bidders=[
                self._bidder(one, unit, open_mc=load.get(one.agent_id, 0) * job.value_mc)
                for one in offered
            ],
            job=job,
            rng=self._context.rng,
            alarmed=self._experience.is_alarmed(capability),
            rules=self._reputation.rules,
        )

    def _bidder(self, one: Candidate, unit: Unit, *, open_mc: int) -> Bidder:
        return Bidder(
            agent=one.agent_id,
            price_mc=one.price_mc * unit.calls,
            latency_ms=one.latency_ms * unit.calls + one.queue_ms,
            standing=self._reputation.standing(one.capability, one.agent_id),
            imported=self._reputation.imported(one.capability, one.agent_id),
            open_mc=open_mc,
            family=self.family(one.capability, one.agent_id),
            last=one.troubled,
        )

    def _voter(self, attempt: Attempt) -> Bidder:
        """Return who gave an answer."""
        agent = f"{attempt.peer}/{attempt.agent}"
        capability = capability_of(attempt)
        return Bidder(
            agent=agent,
            price_mc=0,
            latency_ms=0,
            standing=self._reputation.standing(capability, agent),
            imported=self._reputation.imported(capability, agent),
            family=self.family(capability, agent),
        )

    async def _value(self, state: JobState, unit: Unit, attempt: Attempt) -> JsonValue:
        """Return an answer; half of the time that is left is kept for the others.

        Raises:
            _AnswerGone: It can't be had any more, or not in time.
        """
        left_ms = state.required_plan.deadline_ms - self._context.clock.now_ms()
        try:
            with trio.fail_after(max(0.0, left_ms / 2000)):
                data = await self._checking.output(state, attempt)
        except trio.TooSlowError:
            raise _AnswerGone(attempt, ArtifactError("an answer took too long")) from None
        except ArtifactError as exc:
            raise _AnswerGone(attempt, exc) from exc
        outputs = read_output(data, calls=unit.calls, single=unit.items == SINGLE)
        return outputs[0] if unit.items == SINGLE else outputs
