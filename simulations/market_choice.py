"""Whom a broker in a simulated market takes: policies behind one small interface.

A policy sees what a broker sees and nothing else: candidates with what they declare, the
broker's own load, and later what became of its awards.  Whether an answer that was
accepted is right it hears only when the broker does.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, Literal, Protocol

import msgspec

from meshnode.domain.matching import Candidate, first

#: What a broker comes to know of an award: paid for; what came back was refused; its
#: contractor failed, and said so; it was never heard of; it had no room; the answer was
#: accepted, and is found out to be wrong only now.
Outcome = Literal["accepted", "rejected", "failed", "no_answer", "busy", "noticed"]


class Evidence(msgspec.Struct, frozen=True):
    """What one broker learns about one agent.

    Attributes:
        broker: Index of who learns it.
        peer: PeerId of the contractor.
        capability: Index of what it was to do.
        outcome: What became of it.
        at_s: When it is learned, seconds.
        took_s: From the award to the answer, seconds.
        price_mc: Of the award.
    """

    broker: int
    peer: str
    capability: int
    outcome: Outcome
    at_s: float
    took_s: float
    price_mc: int


class Choice(msgspec.Struct, frozen=True):
    """A task for which somebody is to be chosen.

    Attributes:
        broker: Index of whose task it is.
        capability: Index of what it needs.
        key: The task's name, the same for all attempts.
        load: Agent id -> this broker's units outstanding there.
        now_s: Seconds.
    """

    broker: int
    capability: int
    key: str
    load: Mapping[str, int]
    now_s: float


class Policy(Protocol):
    """Chooses contractors for every broker of a market; each broker's view is its own."""

    @property
    def name(self) -> str:
        """For tables."""

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return one of ``candidates``, none of them without room; None to wait."""

    def learn(self, evidence: Evidence) -> None:
        """Take in what became of an award."""


class ByFinish:
    """As a broker of today: who would be finished first, price turned into time."""

    name = "by_finish"

    def __init__(self, rng: Random) -> None:
        del rng  # nothing is left to chance

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Candidate | None:
        """See :meth:`Policy.choose`."""
        return first(candidates, key=choice.key, calls=1, load=choice.load)

    def learn(self, evidence: Evidence) -> None:
        """Remember nothing: trouble is in the candidates already."""


class AtRandom:
    """Anyone: what every other policy has to beat."""

    name = "at_random"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Candidate | None:
        """See :meth:`Policy.choose`."""
        del choice
        return candidates[int(self._rng.random() * len(candidates))]

    def learn(self, evidence: Evidence) -> None:
        """Remember nothing."""


#: Makes the policy of one run.
PolicyMaker = Callable[[Random], Policy]

POLICIES: Final[Mapping[str, PolicyMaker]] = {
    policy.name: policy for policy in (ByFinish, AtRandom)
}
