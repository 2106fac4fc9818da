"""What other brokers' work at a contractor means for a broker that can't see it.

All brokers read the same records and offers, and none sees another's awards: where the
fastest agent is everybody's first choice, all pile up there.  Information about load that
is older than a decision makes that worse and not better (M. Mitzenmacher, "How Useful Is
Old Information?", IEEE TPDS 11(1), 2000).  So three things are done here:

* A broker looks at a subset of a large mesh, always the same one and not the others' one
  (:func:`subset`): what it learns there of queues it meets again, and its sessions too.
* An award says how long it may wait (:func:`wait_max_ms`): as long as it would still be
  done sooner than by the next best.  A contractor that can't begin by then refuses, and
  tells how long it would have been; the broker knows a queue more, and decides again.
* A contractor reckons that from the calls that it holds (:func:`wait_ms`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from meshnode.domain.facts import Ranked
from meshnode.domain.matching import LATENCY_GUESS_MS, MS_PER_MC, Candidate
from meshnode.domain.queues import QUEUE_MS_MAX
from protocol.limits import NUMBER_MAX

#: Nodes that could begin at once, of those that a broker looks at.
SUBSET: Final = 16
#: What an award may always wait, milliseconds: going elsewhere takes a message each way, and
#: is written down twice.
WAIT_MIN_MS: Final = 250
#: What an award may wait at most: beside a next best that claims to take a week, any first
#: choice would be worth a week.
WAIT_MAX_MS: Final = QUEUE_MS_MAX
#: Refusals of one unit for its wait; after them it waits wherever it is sent.
TURNED_MAX: Final = 3

_PLACES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Need:
    """What a job has to do of one capability.

    Attributes:
        units: How many agents there is work for; None for as many as there are.
        calls: Of the largest of these units.
        price_max_mc: More than this nobody can be paid for a call.
        whole: All who offer it matter, and no subset does.
    """

    units: int | None = None
    calls: int = 1
    price_max_mc: int = NUMBER_MAX
    whole: bool = True

    def is_met_by(self, candidate: Candidate) -> bool:
        """Tell whether ``candidate`` could be given any of it."""
        return (
            candidate.items_max >= self.calls
            and candidate.price_mc <= self.price_max_mc
            and not candidate.troubled
        )


def subset(
    candidates: Iterable[Candidate],
    *,
    load: Mapping[str, int],
    count: int = SUBSET,
    fits: Callable[[Candidate], bool] = lambda candidate: not candidate.troubled,
) -> list[Candidate]:
    """Return the first of ``candidates``, with ``count`` nodes that could begin at once.

    Who has work of this broker, and whom the work doesn't fit, is taken beside those: a
    broker that gives out more looks at more, and nobody is overlooked because others are
    dear or failed.

    Args:
        candidates: In the order of :func:`place`; not read further than need be.
        load: Units outstanding at each agent, by its id.
        count: How many nodes; several agents of one count once.
        fits: Whether one could be given work.
    """
    found: list[Candidate] = []
    idle: set[str] = set()
    for candidate in candidates:
        found.append(candidate)
        if candidate.agent_id not in load and fits(candidate):
            idle.add(candidate.peer)
            if len(idle) >= count:
                break
    return found


@lru_cache(maxsize=_PLACES_MAX)
def place(salt: bytes, peer: str) -> bytes:
    """Return where ``peer`` stands in the order in which a broker looks at others.

    Rendezvous hashing: each broker has an order of its own, in which who comes or goes moves
    nobody else; each node is near the front of equally many.

    Args:
        salt: The broker's, which nobody else knows: else names could be made that come first.
        peer: PeerId.
    """
    return sha256(salt + peer.encode()).digest()


def wait_max_ms(ranked: Sequence[Ranked], *, turned: int) -> int:
    """Return how long the first of ``ranked`` may let an award wait; 0 for any time.

    As long as it would be done no later than by the second, price turned into time.

    Args:
        ranked: Who is to be awarded, then the best of the others.
        turned: How often the unit was refused because it would have waited too long.
    """
    if not ranked[1:]:
        return 0  # there is nobody else
    chosen, other = ranked[0], ranked[1]
    ahead_ms = other.finish_ms - chosen.finish_ms
    ahead_ms += MS_PER_MC * (other.price_mc - chosen.price_mc)
    return limit_ms(ahead_ms, chosen.queue_ms, turned=turned)


def limit_ms(ahead_ms: int, queue_ms: int, *, turned: int) -> int:
    """Return how long an award may wait; 0 for any time.

    Args:
        ahead_ms: What its contractor is better by than the next, expecting ``queue_ms``.
        queue_ms: As it was last seen.
        turned: As for :func:`wait_max_ms`.
    """
    if turned >= TURNED_MAX:
        return 0
    return min(max(0, ahead_ms) + queue_ms + WAIT_MIN_MS, WAIT_MAX_MS)


def wait_ms(pending: int, *, concurrency: int, latency_ms: int) -> int:
    """Return how long a call that comes now waits for its turn at an agent.

    Args:
        pending: Calls that it has before it, those that run with them.
        concurrency: Calls that it runs at once.
        latency_ms: Of one call; 0 where nobody has measured it.
    """
    slots = max(1, concurrency)
    before = max(0, pending + 1 - slots)
    return before * (latency_ms or LATENCY_GUESS_MS) // slots
