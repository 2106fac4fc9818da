"""Who is in a simulated market: agents as values, and how they behave.

A :class:`Trader` is an agent as its owner made it; its :class:`Behaviour` is what others
find out about it.  Behaviours are values, so that a population is a list that can be
drawn, printed, and given to a simulation of another kind (``tests/simulations`` gives
the same one to real nodes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

#: Longest run of one call unless an agent says otherwise, seconds.
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Conduct:
    """What befalls one run.  Chances are 0 to 1; one of the first four at most strikes.

    Attributes:
        error_chance: Of failing, and saying so.
        wrong_chance: Of a wrong answer that looks right.
        hang_chance: Of not coming to an end: the contractor stops it at its time limit.
        silent_chance: Of taking the award and never being heard of again.
        slow_chance: Of taking ``slow_factor`` times as long.
        slow_factor: See there.
    """

    error_chance: float = 0.0
    wrong_chance: float = 0.0
    hang_chance: float = 0.0
    silent_chance: float = 0.0
    slow_chance: float = 0.0
    slow_factor: float = 5.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an agent behaves over time.

    Attributes:
        name: For tables.
        conduct: Ordinarily.
        turned: While it is turned, if it ever is.
        period_s: It turns once in each such span, seconds; all that turn do so in step.
        turned_share: For this share of the span, at its end.
        claimed_share: It declares this share of the latency that it has.
        reborn_after: Blamed so often it comes back under a new key; 0 for never.
    """

    name: str
    conduct: Conduct
    turned: Conduct | None = None
    period_s: float = 60.0
    turned_share: float = 0.5
    claimed_share: float = 1.0
    reborn_after: int = 0

    def at(self, now_s: float) -> Conduct:
        """Return its conduct at ``now_s``."""
        if self.turned is None:
            return self.conduct
        passed = now_s % self.period_s / self.period_s
        return self.turned if passed >= 1 - self.turned_share else self.conduct


_FAIR: Final = Conduct(error_chance=0.01, wrong_chance=0.02)
_LYING: Final = Conduct(wrong_chance=0.9)

HONEST: Final = Behaviour("honest", _FAIR)
ERRING: Final = Behaviour("erring", Conduct(error_chance=0.3, wrong_chance=0.02))
SLOW: Final = Behaviour("slow", Conduct(wrong_chance=0.02, slow_chance=0.5))
FLAKY: Final = Behaviour("flaky", Conduct(hang_chance=0.15, silent_chance=0.05))
LYING: Final = Behaviour("lying", _LYING)
SILENT: Final = Behaviour("silent", Conduct(silent_chance=1.0))
ON_OFF: Final = Behaviour("on-off", _FAIR, turned=_LYING)
WHITEWASHING: Final = Behaviour("whitewashing", _LYING, reborn_after=3)
OVERCLAIMING: Final = Behaviour("overclaiming", _FAIR, claimed_share=0.2)

BEHAVIOURS: Final = {
    each.name: each
    for each in (
        HONEST,
        ERRING,
        SLOW,
        FLAKY,
        LYING,
        SILENT,
        ON_OFF,
        WHITEWASHING,
        OVERCLAIMING,
    )
}

#: A behaviour and its share among the agents.
Mix = Sequence[tuple[Behaviour, float]]
#: Mostly fair, with some of every kind.
MIXED: Final[Mix] = (
    (HONEST, 0.76),
    *((each, 0.03) for each in BEHAVIOURS.values() if each is not HONEST),
)


@dataclass(frozen=True, slots=True)
class Trader:
    """An agent that takes part in a market.

    Attributes:
        capability: Index of what it offers.
        behaviour: How it behaves.
        latency_s: Shortest and longest run; uniform between them.
        price_mc: For one call.
        concurrency: Calls that it runs at once; more wait.
        timeout_s: Longest run that it allows itself, seconds.
    """

    capability: int
    behaviour: Behaviour = HONEST
    latency_s: tuple[float, float] = (0.2, 0.8)
    price_mc: int = 2
    concurrency: int = 2
    timeout_s: float = TIMEOUT_S

    @property
    def mean_s(self) -> float:
        """An ordinary run, seconds."""
        return sum(self.latency_s) / 2

    @property
    def calls_per_s(self) -> float:
        """What it can do."""
        return self.concurrency / self.mean_s


def draw_traders(rng: Random, count: int, *, capabilities: int, mix: Mix) -> list[Trader]:
    """Draw ``count`` agents, as evenly over the capabilities as it goes.

    Means of a run are log-uniform from 0.5 to 8 s, as language models on small machines
    are; the quick are somewhat dearer.  Neither hangs on the behaviour: a liar that could
    be told by its price would be no problem.

    Args:
        rng: Chance.
        count: Of agents.
        capabilities: How many kinds of work there are.
        mix: Behaviours and their weights.
    """
    behaviours = [behaviour for behaviour, _ in mix]
    shares = [share for _, share in mix]
    traders = []
    for number in range(count):
        mean_s = 0.5 * 16 ** rng.random()
        spread = rng.uniform(0.1, 0.6)
        traders.append(
            Trader(
                capability=number % capabilities,
                behaviour=rng.choices(behaviours, shares)[0],
                latency_s=(mean_s * (1 - spread), mean_s * (1 + spread)),
                price_mc=max(1, round(20 / mean_s**0.5 * rng.uniform(0.5, 1.5))),
                concurrency=rng.randint(1, 4),
            )
        )
    return traders
