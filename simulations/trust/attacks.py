"""How agents cheat: threat models of the literature as values, and the crowd that follows one.

Models A to D are those of Kamvar, Schlosser and Garcia-Molina (EigenTrust, WWW 2003).  Theirs
is a network where everybody also downloads; here cheats only sell and testify, so what a cheat
of model A would say of others from its own purchases is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

#: The right answer of every task, and the wrong one that cheats agree on, which is also what
#: honest agents err to when their errors are correlated: nobody can tell them apart by it.
RIGHT: Final = 0
AGREED: Final = 1
_OWN: Final = 10

#: What a cheat claims to have seen of an agent: far more than anybody has.
CLAIMED: Final = 50.0


class Attack(msgspec.Struct, frozen=True):
    """What the cheats of a crowd do.

    Attributes:
        name: For tables.
        lie_chance: That they lie in a task; in the same tasks if they are together.
        together: They agree on one wrong answer; else each has its own.
        spies_share: So many of them are honest, and praise the others.
        period_rounds: They lie in every second half of such a period; 0 for always.
        in_step: All change at once.
        turns_at: They lie from this round on; before they are honest.
        reborn: Caught, they come back under a new name.
        stuffs: They praise one another.
        slanders: They say that the honest are bad.
    """

    name: str
    lie_chance: float = 1.0
    together: bool = True
    spies_share: float = 0.0
    period_rounds: int = 0
    in_step: bool = False
    turns_at: int = 0
    reborn: bool = False
    stuffs: bool = True
    slanders: bool = False


#: From this round on the agents of an exit scam lie.
EXIT_ROUND: Final = 100

NONE: Final = Attack("none")
ATTACKS: Final = {
    attack.name: attack
    for attack in (
        Attack("A: each alone", together=False, stuffs=False),
        Attack("B: collective"),
        Attack("C: camouflaged collective", lie_chance=0.5),
        Attack("D: spies", spies_share=0.5),
        Attack("on-off", period_rounds=60),
        Attack("on-off in step", period_rounds=60, in_step=True),
        Attack("whitewashing", reborn=True),
        Attack("bad-mouthing", lie_chance=0.2, stuffs=False, slanders=True),
        Attack("ballot stuffing", lie_chance=0.2),
        Attack("exit scam", turns_at=EXIT_ROUND),
    )
}
COLLUSION: Final = ATTACKS["B: collective"]


@dataclass(frozen=True, slots=True)
class Errors:
    """How the honest err.

    Attributes:
        share: Of their answers that are wrong.
        rho: Chance that two wrong ones coincide.
    """

    share: float = 0.04
    rho: float = 0.6


USUAL: Final = Errors()


class Crowd:
    """The agents of a market: first the honest ones, then cheats, then better newcomers.

    Attributes:
        attack: What the cheats do.
        honest: How many there are.
        cheats: Their numbers.
        newcomers: Numbers of those that come later, cheaper and better.
        prices: What a task costs there; cheats undercut.
    """

    def __init__(
        self,
        attack: Attack,
        rng: Random,
        *,
        honest: int,
        cheats: int,
        newcomers: int = 0,
        errors: Errors = USUAL,
    ) -> None:
        """Make them.

        Args:
            attack: What the cheats do.
            rng: Chance.
            honest: How many.
            cheats: How many; of these the first are spies, if there are any.
            newcomers: How many.
            errors: Of the honest.
        """
        self.attack = attack
        self.honest = honest
        self.cheats = range(honest, honest + cheats)
        self.newcomers = range(honest + cheats, honest + cheats + newcomers)
        self.prices = [1.0] * honest + [0.8] * (cheats + newcomers)
        self._rng = rng
        self._coincide = errors.rho**0.5
        self._errors = errors.share
        self._spies = range(honest, honest + round(attack.spies_share * cheats))
        phases = range(max(1, attack.period_rounds))
        self._phases = [0 if attack.in_step else rng.choice(phases) for _ in range(len(self))]

    def __len__(self) -> int:
        return len(self.prices)

    def answer(self, agent: int, round_: int, draw: float) -> int:
        """Return what ``agent`` answers.

        Args:
            agent: Its number.
            round_: When.
            draw: Of the task, 0 to 1: those who are together lie in the same tasks.
        """
        rng = self._rng
        if agent in self.cheats and self._lies(agent, round_, draw):
            return AGREED if self.attack.together else _OWN + agent
        errors = self._errors / 4 if agent in self.newcomers else self._errors
        if rng.random() >= errors:
            return RIGHT
        return AGREED if rng.random() < self._coincide else _OWN + agent

    def _lies(self, agent: int, round_: int, draw: float) -> bool:
        attack = self.attack
        if agent in self._spies or round_ < attack.turns_at:
            return False
        if period := attack.period_rounds:
            return (round_ + self._phases[agent]) % period * 2 >= period
        chance = draw if attack.together else self._rng.random()
        return chance < attack.lie_chance

    def claims(self) -> Iterator[tuple[int, int, float, float]]:
        """Yield what cheats say they have seen: rater, agent, good, bad."""
        for rater in self.cheats:
            if self.attack.stuffs:
                for agent in self.cheats:
                    if agent != rater:
                        yield rater, agent, CLAIMED, 0.0
            if self.attack.slanders:
                for agent in range(self.honest):
                    yield rater, agent, 0.0, CLAIMED


def share_of(cheats: float, honest: int) -> int:
    """Return how many cheats make this share of all beside ``honest`` others."""
    return round(honest * cheats / (1 - cheats))


def drawn(rng: Random, among: Sequence[int], count: int, *, but: int) -> list[int]:
    """Return up to ``count`` of ``among`` without ``but``, in no order."""
    pool = rng.sample(among, min(count, len(among)))
    return [agent for agent in pool if agent != but]
