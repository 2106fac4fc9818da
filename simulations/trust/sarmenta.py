"""Sarmenta's credibility-based fault tolerance (2002): votes weighed by passed spot checks.

A worker that passed k spot checks has a credibility of ``1 - f/k``, where f is the largest
share of saboteurs that is reckoned with; who fails one begins anew, since honest workers err
here (his never do, and who failed was out for good).  Answers are collected until the
credibility of a group of equal ones reaches a threshold.  His bound on the error is one less
the threshold; it takes saboteurs for independent.

All buyers share one record of spot checks, as a project has one master there: more than they
would have in a mesh.
"""

from collections.abc import Sequence
from math import prod
from typing import Final

from simulations.trust.policy import Claims, Desk, Setting, Settled

#: Largest share of saboteurs that is reckoned with.
FAULTY: Final = 0.4
#: Share of tasks with a spot check.
CHECKED: Final = 0.1
THRESHOLD: Final = 0.95
VOTERS_MAX: Final = 10


class Credibility:
    """See the module."""

    def __init__(self, setting: Setting, *, threshold: float = THRESHOLD) -> None:
        self._rng = setting.rng
        self._passed = [0] * setting.agents
        self._threshold = threshold

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Ask one after another until a group of answers is credible enough."""
        del buyer
        order = self._rng.sample(pool, min(VOTERS_MAX, len(pool)))
        groups: dict[int, list[int]] = {}
        best = order[0]
        for agent in order:
            if self._rng.random() < CHECKED:
                self._check(agent, desk)
            groups.setdefault(desk.work(agent), []).append(agent)
            chances = self._chances(groups)
            best = max(chances, key=chances.__getitem__)
            if chances[best] >= self._threshold:
                return Settled("accepted", best, groups[best])
        return Settled("contested", best, groups[best])

    def _check(self, agent: int, desk: Desk) -> None:
        self._passed[agent] = self._passed[agent] + 1 if desk.gold(agent) else 0

    def credibility(self, agent: int) -> float:
        """Return the chance that an answer of ``agent`` is right."""
        return 1 - FAULTY / max(1, self._passed[agent])

    def _chances(self, groups: dict[int, list[int]]) -> dict[int, float]:
        """Return each group's credibility given the others."""
        good = {
            answer: prod(self.credibility(one) for one in voters)
            for answer, voters in groups.items()
        }
        bad = {
            answer: prod(1 - self.credibility(one) for one in voters)
            for answer, voters in groups.items()
        }
        every = prod(bad.values())
        weights = {answer: good[answer] * every / bad[answer] for answer in groups}
        total = every + sum(weights.values())
        return {answer: weight / total for answer, weight in weights.items()}

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """It is as good as a failed spot check."""
        del buyer
        for agent in agents:
            self._passed[agent] = 0

    def gossip(self, claims: Claims) -> None:
        """The record is shared already, and nobody else's word counts."""

    def reborn(self, agent: int) -> None:
        """Forget it."""
        self._passed[agent] = 0
