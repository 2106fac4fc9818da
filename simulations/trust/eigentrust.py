"""EigenTrust, as Kamvar, Schlosser and Garcia-Molina published it (WWW 2003).

Local trust is what was good less what was bad, never below zero, normalised; the global one is
the power iteration from the pre-trusted peers.  A source is drawn with a chance that is its
global trust, and one time in ten from those who have none.
"""

from collections.abc import Sequence
from typing import Final

from simulations.trust.policy import Claims, Desk, Setting, Settled

#: Weight of the pre-trusted peers in each step.
RESTART: Final = 0.15
#: Share of tasks that go to those without trust.
UNTRUSTED: Final = 0.1
#: Pre-trusted peers, as in the paper's simulations.
PRETRUSTED: Final = 3
_STEPS: Final = 12


class EigenTrust:
    """See the module."""

    def __init__(self, setting: Setting, *, untrusted: float = UNTRUSTED) -> None:
        self._untrusted = untrusted
        self._setting = setting
        self._local = [[0.0] * setting.agents for _ in range(setting.buyers)]
        self._start = [
            1 / PRETRUSTED if agent < PRETRUSTED else 0.0 for agent in range(setting.agents)
        ]
        self.trust = list(self._start)

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Accept what one says that is drawn by trust."""
        agent = self._drawn(pool)
        self._local[buyer][agent] += 1
        return Settled("accepted", desk.work(agent), (agent,))

    def _drawn(self, pool: Sequence[int]) -> int:
        rng = self._setting.rng
        unknown = [agent for agent in pool if self.trust[agent] <= 0]
        known = [agent for agent in pool if self.trust[agent] > 0]
        if not known or (unknown and rng.random() < self._untrusted):
            return rng.choice(unknown)
        return rng.choices(known, [self.trust[agent] for agent in known])[0]

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """It was counted as good: take that back, and count it as bad."""
        for agent in agents:
            self._local[buyer][agent] -= 2

    def gossip(self, claims: Claims) -> None:
        """Compute the global trust anew."""
        setting = self._setting
        rows: list[dict[int, float]] = [{} for _ in range(setting.agents)]
        for rater, seen in enumerate(self._local[: setting.honest]):
            rows[rater] = {agent: count for agent, count in enumerate(seen) if count > 0}
        for rater, agent, good, bad in claims:
            if good > bad:
                rows[rater][agent] = good - bad
        for row in rows:
            total = sum(row.values())
            for agent in row:
                row[agent] /= total
        self.trust = self._global(rows)

    def _global(self, rows: Sequence[dict[int, float]]) -> list[float]:
        trust = list(self._start)
        for _ in range(_STEPS):
            after = [RESTART * start for start in self._start]
            lost = 0.0
            for held, row in zip(trust, rows, strict=True):
                if not row:  # who knows nobody trusts the pre-trusted
                    lost += held
                for agent, share in row.items():
                    after[agent] += (1 - RESTART) * held * share
            for agent in range(PRETRUSTED):
                after[agent] += (1 - RESTART) * lost / PRETRUSTED
            trust = after
        return trust

    def reborn(self, agent: int) -> None:
        """Forget it."""
        self.trust[agent] = self._start[agent]
        for row in self._local:
            row[agent] = 0.0
