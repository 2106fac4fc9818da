"""What a policy of the market can do and gets to see, behind one small interface."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

#: How a task ends: paid for; one answer that isn't sure enough; several that contradict.
End = Literal["accepted", "unverified", "contested"]
#: Rater, agent, good, bad.
Claims = Iterable[tuple[int, int, float, float]]


@dataclass(frozen=True, slots=True)
class Settled:
    """How a task ended.

    Attributes:
        end: See :data:`End`.
        answer: What is accepted, or would be; to be compared only.
        paid: Who gave it.
    """

    end: End
    answer: int
    paid: Sequence[int]


class Desk(Protocol):
    """Asks agents for one task of one buyer.  Every call is an execution."""

    def work(self, agent: int, /) -> int:
        """Return its answer: a number that equals that of the same answer."""

    def gold(self, agent: int, /) -> bool:
        """Tell whether it gets a task right of which the answer is known."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a policy is made for.

    Attributes:
        buyers: How many; those whose number is below ``honest`` are agents, too.
        honest: Agents whose reports are what they have seen.
        agents: How many.
        prices: By agent.
        inviters: By buyer, who invited it; None for nobody.
        rng: Chance.
    """

    buyers: int
    honest: int
    agents: int
    prices: Sequence[float]
    inviters: Sequence[int | None]
    rng: Random


class Policy(Protocol):
    """Buys for all buyers of a market; what each of them sees is its own."""

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Have a task done by some of ``pool``."""

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """Hear that an accepted result of ``agents`` was wrong."""

    def gossip(self, claims: Claims) -> None:
        """Exchange reports; ``claims`` are those of cheats, made up."""

    def reborn(self, agent: int) -> None:
        """Know nothing of ``agent``, which has a new name."""


PolicyMaker = Callable[[Setting], Policy]
