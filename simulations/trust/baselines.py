"""What is usually done: anyone at random, a plain Beta score, a vote among k.

The Beta score is that of Jøsang and Ismail (2002): what was accepted counts as good until it
is noticed to be bad, and everybody's reports are added up.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from simulations.trust.policy import Claims, Desk, Setting, Settled

#: Share of tasks that go to anyone, where a score would else never see newcomers.
EXPLORED: Final = 0.05


class AtRandom:
    """Anyone: what every other policy has to beat."""

    def __init__(self, setting: Setting) -> None:
        self._rng = setting.rng

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Accept what anyone says."""
        del buyer
        agent = self._rng.choice(pool)
        return Settled("accepted", desk.work(agent), (agent,))

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """Remember nothing."""

    def gossip(self, claims: Claims) -> None:
        """Believe nobody."""

    def reborn(self, agent: int) -> None:
        """Nothing was known."""


class Voting(AtRandom):
    """Ask k at random, and accept what more than half of them say."""

    def __init__(self, setting: Setting, *, voters: int) -> None:
        super().__init__(setting)
        self._voters = voters

    @override
    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Accept a majority's answer."""
        del buyer
        voters = self._rng.sample(pool, min(self._voters, len(pool)))
        answers = {agent: desk.work(agent) for agent in voters}
        (answer, count), *_ = Counter(answers.values()).most_common(1)
        paid = [agent for agent, given in answers.items() if given == answer]
        return Settled("accepted" if 2 * count > len(voters) else "contested", answer, paid)


class PlainBeta:
    """Ask the best by the mean of its Beta, and accept what it says."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._good = [[0.0] * setting.agents for _ in range(setting.buyers)]
        self._bad = [[0.0] * setting.agents for _ in range(setting.buyers)]
        self._told = [(0.0, 0.0)] * setting.agents

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Accept what the best says."""
        rng = self._setting.rng
        agent = rng.choice(pool)
        if rng.random() >= EXPLORED:
            agent = max(pool, key=lambda one: (self._score(buyer, one), rng.random()))
        self._good[buyer][agent] += 1
        return Settled("accepted", desk.work(agent), (agent,))

    def _score(self, buyer: int, agent: int) -> float:
        good, bad = self._told[agent]
        good += self._good[buyer][agent]
        bad += self._bad[buyer][agent]
        return (good + 1) / (good + bad + 2)

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """What was good is bad."""
        for agent in agents:
            self._good[buyer][agent] = max(0.0, self._good[buyer][agent] - 1)
            self._bad[buyer][agent] += 1

    def gossip(self, claims: Claims) -> None:
        """Add up what everybody says."""
        setting = self._setting
        good, bad = [0.0] * setting.agents, [0.0] * setting.agents
        for rater in range(min(setting.honest, setting.buyers)):
            for agent in range(setting.agents):
                good[agent] += self._good[rater][agent]
                bad[agent] += self._bad[rater][agent]
        for _, agent, claimed, blamed in claims:
            good[agent] += claimed
            bad[agent] += blamed
        self._told = list(zip(good, bad, strict=True))

    def reborn(self, agent: int) -> None:
        """Forget it."""
        self._told[agent] = (0.0, 0.0)
        for row in (*self._good, *self._bad):
            row[agent] = 0.0
