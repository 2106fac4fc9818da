"""How long an agent took, beside how long it claims to take.

What a node says of itself costs nothing, so it counts until something was seen.  From a few
results on a broker goes by those.  Two things are seen of each: when its result was there
(which holds the network, too, and the work of others before it), and how long it ran, which
is the contractor's own word.

The *expected* latency is what it says that it ran, the middle one, but never less than what
the quickest of its results took: whoever says less than it takes is found out by that, and
whoever is at the end of a slow line, or busy for others, isn't taken for slow itself as long
as some of its results were quick.

To *overclaim* is more than to be slow: claims move, networks are slow, and work differs from
what was measured.  It is said only where, by its own word or by the quickest results with
the way there taken off, the claim is wrong by more than all that.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import msgspec

#: Results of one agent that are looked at, and how many tell something.
RUNS_MAX: Final = 32
RUNS_MIN: Final = 8
#: Older ones count no more, milliseconds: the agent may be another by now.
RUN_LIFETIME_MS: Final = 7 * 24 * 3_600_000
#: The quickest are so large a part of all.
_QUICK: Final = 0.2
_MIDDLE: Final = 0.5
#: A claim is wrong from so many times what is claimed, and so much, on.  A record is told
#: anew at 1.5 times (:mod:`meshnode.domain.claims`), so up to that it may be merely old.
_RATIO: Final = 2.0
_ROOM_MS: Final = 100
#: Round trips of one award: the award, and what has to be fetched for it.
_TRIPS: Final = 3


class Run(msgspec.Struct, frozen=True):
    """A result, as its broker saw it; for one call, milliseconds.

    Attributes:
        took_ms: From the award to the result, less this broker's own work before it there.
        run_ms: How long it ran, as its contractor says.
        trip_ms: A round trip to its contractor; 0 where it isn't known.
        at_ms: When, Unix time.
    """

    took_ms: int
    run_ms: int
    trip_ms: int
    at_ms: int


class Watched(msgspec.Struct, frozen=True):
    """What was seen of an agent, beside what it claims; milliseconds for one call.

    Attributes:
        n: Results it is made of.
        claimed_ms: What it claims; 0 for nothing.
        said_ms: How long its calls ran by its own word, the middle one.
        seen_ms: How long they took, as seen from here: the middle one.
        expected_ms: What to expect; 0 while too little was seen.
        overclaims: The claim is wrong, and neither age nor the network explains it.
    """

    n: int
    claimed_ms: int
    said_ms: int = 0
    seen_ms: int = 0
    expected_ms: int = 0
    overclaims: bool = False


def watched(runs: Sequence[Run], claimed_ms: int, *, now_ms: int) -> Watched:
    """Hold what was seen of an agent against what it claims now.

    Args:
        runs: Of it, in any order.
        claimed_ms: For one call; 0 if it claims nothing that still counts.
        now_ms: Unix time.
    """
    fresh = [run for run in runs if now_ms < run.at_ms + RUN_LIFETIME_MS]
    if not fresh:
        return Watched(n=0, claimed_ms=claimed_ms)
    said_ms = _quantile([run.run_ms for run in fresh], _MIDDLE)
    seen_ms = _quantile([run.took_ms for run in fresh], _MIDDLE)
    quick_ms = _quantile(
        [max(0, run.took_ms - _TRIPS * run.trip_ms - _ROOM_MS) for run in fresh], _QUICK
    )
    enough = len(fresh) >= RUNS_MIN
    worst_ms = max(said_ms, quick_ms)
    return Watched(
        n=len(fresh),
        claimed_ms=claimed_ms,
        said_ms=said_ms,
        seen_ms=seen_ms,
        expected_ms=max(1, worst_ms) if enough else 0,
        overclaims=enough and _is_wrong(claimed_ms, worst_ms),
    )


def per_call(whole_ms: int, *, calls: int, at_once: int) -> int:
    """Return how long one call of a batch took, if as many ran at once as might.

    Args:
        whole_ms: The batch.
        calls: In it.
        at_once: Calls that its agent runs at once.
    """
    rounds = ceil(calls / max(1, at_once))
    return max(0, whole_ms) // max(1, rounds)


def told(seen: Watched) -> str:
    """Return a line for people; empty where nothing was seen."""
    if not seen.n:
        return ""
    claims = f"claims {seen.claimed_ms} ms" if seen.claimed_ms else "claims nothing"
    says = f", says it ran {seen.said_ms} ms" if seen.overclaims else ""
    return f"{claims}{says}, seen {seen.seen_ms} ms (n={seen.n}){_blame(seen)}"


def _blame(seen: Watched) -> str:
    if not seen.overclaims:
        return ""
    by_its_word = _is_wrong(seen.claimed_ms, seen.said_ms)
    return "; it overclaims" if by_its_word else "; it overclaims, or its line is slow"


def _is_wrong(claimed_ms: int, took_ms: int) -> bool:
    return claimed_ms > 0 and took_ms > _RATIO * claimed_ms + _ROOM_MS


def _quantile(values: Sequence[int], part: float) -> int:
    """Return the value that ``part`` of them don't exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
