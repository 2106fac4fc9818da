"""What a job may still give away in one pass of its planner, as that gives it away."""

from collections.abc import Sequence

from meshnode.domain import bounds
from meshnode.domain.facts import Ranked
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate, rank
from meshnode.domain.step_kinds import View
from meshnode.domain.units import Unit


class Purse:
    """Money, sub-tasks and places at contractors.

    Attributes:
        load: Agent id -> units outstanding there.
        free_mc: What is left of the budget.
        free_subtasks: Awards that may be made, where the job is under one.
    """

    def __init__(self, state: JobState, view: View) -> None:
        self._state = state
        self._credit = dict(view.credit)
        self.load = dict(view.load)
        self.free_mc = state.required_plan.budget_mc - state.spent_mc - state.reserved_mc()
        self.free_subtasks = bounds.left(state)

    @property
    def has_award(self) -> bool:
        """Whether the award that the job is under, if it is, lets it make another."""
        return self.free_subtasks >= bounds.own_awards(self._state)

    def fill(self, candidate: Candidate) -> None:
        """Count a unit as being at ``candidate``."""
        self.load[candidate.agent_id] = self.load.get(candidate.agent_id, 0) + 1

    def take(self, candidate: Candidate, *, cap_mc: int, subtasks: int) -> None:
        """Count an award as made."""
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

    def within(
        self, unit: Unit, candidates: Sequence[Candidate], *, kept_mc: int = 0
    ) -> list[Candidate]:
        """Return who can be paid for ``unit`` if so much of the budget is kept."""
        return [
            c
            for c in candidates
            if c.price_mc * unit.calls <= self._payable_mc(c.peer, kept_mc=kept_mc)
        ]

    def key(self, unit: Unit) -> str:
        """Return what ties are broken by."""
        return f"{self._state.job}/{unit.name}"

    def _payable_mc(self, peer: str, *, kept_mc: int) -> int:
        free_mc = self.free_mc - kept_mc
        return min(free_mc, self._credit.get(peer, free_mc))
