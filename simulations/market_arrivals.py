"""When tasks come: a Poisson process for each capability, with or without a flash crowd.

Arrivals are drawn as they are needed, one stream for each capability, merged in order of
time; a million of them are never held at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from random import Random
from typing import Final, NamedTuple

_NEVER_S: Final = float("inf")


class Arrival(NamedTuple):
    """A task comes.

    Attributes:
        at_s: When, seconds.
        capability: Index of what it needs.
        broker: Index of whose it is.
    """

    at_s: float
    capability: int
    broker: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """For a while ``factor`` times as many tasks come as before and after.

    Attributes:
        factor: See there.
        begin_s: From then on, seconds.
        length_s: For so long, seconds.
        capabilities: Only to the first so many; 0 for all.
    """

    factor: float = 3.0
    begin_s: float = 30.0
    length_s: float = 10.0
    capabilities: int = 0


def arrivals(
    rates_per_s: Sequence[float], *, brokers: int, seed: str, crowd: Crowd | None = None
) -> Iterator[Arrival]:
    """Return tasks in order of time, without end.

    Args:
        rates_per_s: For each capability.
        brokers: How many; each task is any one's.
        seed: Fixes all; a capability's arrivals don't hang on the others' rates.
        crowd: Whether there is one.
    """
    streams = []
    for capability, rate_per_s in enumerate(rates_per_s):
        if rate_per_s > 0:
            reached = crowd if crowd and capability < (crowd.capabilities or 1e9) else None
            rng = Random(f"{seed}/arrivals/{capability}")
            streams.append(_stream(rng, capability, rate_per_s, brokers, reached))
    return merge(*streams)


def _stream(
    rng: Random, capability: int, rate_per_s: float, brokers: int, crowd: Crowd | None
) -> Iterator[Arrival]:
    """Draw gap by gap; where the rate changes, a gap is drawn anew from there.

    That is exact: what is left of an exponential gap is distributed as the whole was.
    """
    at_s = 0.0
    while True:
        rate, until_s = _rate(at_s, rate_per_s, crowd)
        next_s = at_s + rng.expovariate(rate)
        if next_s >= until_s:
            at_s = until_s
            continue
        at_s = next_s
        yield Arrival(at_s, capability, int(rng.random() * brokers))


def _rate(at_s: float, rate_per_s: float, crowd: Crowd | None) -> tuple[float, float]:
    """Return the rate at ``at_s`` and until when it holds."""
    if crowd is None:
        return rate_per_s, _NEVER_S
    if at_s < crowd.begin_s:
        return rate_per_s, crowd.begin_s
    end_s = crowd.begin_s + crowd.length_s
    if at_s < end_s:
        return rate_per_s * crowd.factor, end_s
    return rate_per_s, _NEVER_S
