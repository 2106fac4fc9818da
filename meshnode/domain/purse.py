"""What a job may still give away in one pass of its planner, as that gives it away."""

from collections.abc import Sequence

from meshnode.domain import bounds, tokens
from meshnode.domain.attempts import unaffordable
from meshnode.domain.crowding import wait_max_ms
from meshnode.domain.facts import Ranked
from meshnode.domain.job import JobState
from meshnode.domain.matching import (
    Candidate,
    equals,
    first,
    has_room,
    rank,
    untroubled,
)
from meshnode.domain.step_kinds import MakeAward, View
from meshnode.domain.units import Unit


class Purse:
    """Money, sub-tasks and places at contractors.

    Attributes:
        load: Agent id -> units outstanding there.
        free_mc: What is left of the budget.
        free_subtasks: Awards that may be made, where the job is under one.
        free_tokens: What is left of its model tokens, where they are limited.
        waiting: (sub-task, calls) of units that wait for an offer, whoever of equals may
            give it; while nobody else gets a place.
    """

    def __init__(self, state: JobState, view: View) -> None:
        self._state = state
        self._credit = dict(view.credit)
        self._beside = view.beside
        self.load = dict(view.load)
        self.waiting: set[tuple[str, int]] = set()
        self.free_mc = state.required_plan.budget_mc - state.spent_mc - state.reserved_mc()
        self.free_subtasks = bounds.left(state)
        self._limits_tokens = state.required_plan.tokens > 0
        self.free_tokens = tokens.left(state) if self._limits_tokens else 0
        self._calls = tokens.calls_waiting(state) if self._limits_tokens else 0
        gold = state.required_plan.gold
        self._price_max_mc = None if gold is None else gold.price_max_mc

    @property
    def has_award(self) -> bool:
        """Whether the award that the job is under, if it is, and its tokens let it make one."""
        has_tokens = self.free_tokens > 0 or not self._limits_tokens
        return has_tokens and self._has_subtasks

    @property
    def _has_subtasks(self) -> bool:
        return self.free_subtasks >= bounds.own_awards(self._state)

    def is_out(self) -> tuple[str, str] | None:
        """Return code and text of why no award can be made, now or later, if that is so."""
        state = self._state
        if not self._has_subtasks and not bounds.reserved(state):
            return bounds.out_of_awards(state)
        if self._limits_tokens and self.free_tokens <= 0 and not tokens.may_come_back(state):
            return tokens.out_of_tokens(state)
        return None

    def tokens_for(self, unit: Unit) -> int:
        """Return how many model tokens the next award of ``unit`` may use; 0 for any number."""
        return tokens.share(self._state, unit, self.free_tokens, self._calls)

    def fill(self, candidate: Candidate) -> None:
        """Count a unit as being at ``candidate``."""
        self.load[candidate.agent_id] = self.load.get(candidate.agent_id, 0) + 1
        self.waiting.clear()

    def take(self, unit: Unit, made: MakeAward) -> None:
        """Count an award of ``unit`` as made."""
        candidate, cap_mc, subtasks = made.candidate, made.price_cap_mc, made.subtasks
        self.free_tokens -= made.tokens
        self._calls -= unit.calls if tokens.waits(unit) else 0
        self.free_subtasks -= subtasks + bounds.own_awards(self._state)
        self.free_mc -= cap_mc
        if candidate.peer in self._credit:
            self._credit[candidate.peer] -= cap_mc
        self.fill(candidate)

    def affordable(
        self, unit: Unit, candidates: Sequence[Candidate]
    ) -> list[tuple[Candidate, Ranked]]:
        """Return who can be paid for ``unit``, best first."""
        within = self.within(unit, candidates)
        return rank(within, key=self.key(unit), calls=unit.calls, load=self.load)

    def wait_max_ms(self, unit: Unit, ranked: Sequence[tuple[Candidate, Ranked]]) -> int:
        """Return how long the first of ``ranked`` may let ``unit`` wait; 0 for any time.

        Any time where it matters who it is, or that it is another, where its proposal says
        when it would be done, and where it would wait behind this broker's own work.
        """
        chosen, gold = ranked[0][0], self._state.required_plan.gold
        if unit.judged is not None or unit.tried() or chosen.agent_id in self.load:
            return 0
        others = [row for _, row in ranked[1:2]]
        if gold is not None:  # nobody sees from it that nobody else is asked
            others = [] if gold.numbered else self._rivals(unit, chosen)
        return wait_max_ms([ranked[0][1], *others], turned=unit.turned)

    def _rivals(self, unit: Unit, chosen: Candidate) -> list[Ranked]:
        """Return who would do ``unit`` beside ``chosen`` if it were like others, best first."""
        capability = self._state.tasks[unit.subtask].capability
        free = [
            one
            for one in untroubled(self._beside.get(capability, ()))
            if one.agent_id != chosen.agent_id
            and has_room(one, self.load)
            and one.price_mc * unit.calls <= self.free_mc
        ]
        rows = rank(free, key=self.key(unit), calls=unit.calls, load=self.load)
        return [row for _, row in rows]

    def first(self, unit: Unit, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the first of :meth:`affordable`, for who needs neither the others nor why."""
        within = self.within(unit, candidates)
        if not within:
            return None
        return first(within, key=self.key(unit), calls=unit.calls, load=self.load)

    def equals(self, unit: Unit, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return those of whom the first one is, for any unit of as many calls."""
        within = self.within(unit, candidates)
        return equals(within, calls=unit.calls, load=self.load)

    def within(
        self, unit: Unit, candidates: Sequence[Candidate], *, kept_mc: int = 0
    ) -> list[Candidate]:
        """Return who can be paid for ``unit`` if so much of the budget is kept."""
        return [
            c
            for c in candidates
            if not self._is_dear(c)
            and c.price_mc * unit.calls <= self._payable_mc(c.peer, kept_mc=kept_mc)
        ]

    def why_none(self, unit: Unit, candidates: Sequence[Candidate]) -> tuple[str, str]:
        """Return code and text for a unit that none of ``candidates`` can be paid for."""
        dear = self.too_dear(unit, candidates)
        return dear or unaffordable(unit, candidates, self.free_mc)

    def too_dear(self, unit: Unit, candidates: Sequence[Candidate]) -> tuple[str, str] | None:
        """Return code and text if all of ``candidates`` ask for more than was looked at.

        Then the job ends: whom it is for would be asked again and again until its deadline.
        """
        if not candidates or not all(self._is_dear(one) for one in candidates):
            return None
        return "budget.exceeded", (
            f"sub-task {unit.name} costs more than the {self._price_max_mc} mc a call for which"
            " it was to be asked"
        )

    def key(self, unit: Unit) -> str:
        """Return what ties are broken by."""
        return f"{self._state.job}/{unit.name}"

    def _is_dear(self, candidate: Candidate) -> bool:
        """Tell whether one asks for more than was looked at when the job was decided on.

        The job's budget is no bound for what a probe costs: it is as large as a usual job's,
        so that nobody recognises a probe by it.
        """
        return self._price_max_mc is not None and candidate.price_mc > self._price_max_mc

    def _payable_mc(self, peer: str, *, kept_mc: int) -> int:
        free_mc = self.free_mc - kept_mc
        return min(free_mc, self._credit.get(peer, free_mc))
