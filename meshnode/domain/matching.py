"""Who should do a unit: candidates, and an order among them.

The order is by when the candidate would be finished, its price turned into time;
ties are broken by rendezvous hashing over (job, unit, peer), so that many brokers
with the same view don't all run to the same node.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Final

import msgspec

from meshnode.domain.facts import Proposed, Ranked
from protocol.limits import FAN_OUT_MAX
from protocol.records import CapabilityName

#: One call, when nobody has measured it.
LATENCY_GUESS_MS: Final = 500
#: Reaching a node without a session, before the work begins.
DIAL_GUESS_MS: Final = 300
#: Calling for a proposal, where there is no standing offer: a round trip, and its checks.
CALL_GUESS_MS: Final = 100
#: The same, where an offer was asked for a moment ago.
ASKED_GUESS_MS: Final = 50
#: What a millicredit is worth in waiting, milliseconds.
MS_PER_MC: Final = 5
#: Units that may wait at a contractor beyond those that run: enough to keep it busy.
QUEUE_UNITS: Final = 1


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A node that could do a unit, as the broker knows it now.

    Attributes:
        peer: PeerId.
        agent: Its agent's local name.
        capability: The agent's full capability name.
        price_mc: For one call.
        latency_ms: Expected for one call; 0 when unknown.
        watched: That is what was seen of it, and not what it says of itself.
        concurrency: Calls that it runs at once.
        offer: Envelope of a standing offer for this broker, or empty.
        offer_expires_ms: Until when the offer stands, by this node's clock.
        items_max: Calls that one award may hold.
        alive: There is an open session.
        troubled: It failed lately, or its name cost too little: last choice.
        failing: The former of these: no choice at all where answers are compared.
        probe: It failed before that: one unit may go there, to see.
        asked: It was asked for an offer a moment ago, and has not answered yet.
        queue_ms: How long what was awarded there lately waited behind the work of others.
        units_max: Units that it lets this broker have out at once; 0 where nothing is known
            of that.
        batch_mc: Most that one award to it should cost while it may take this broker for a
            stranger; 0 for any amount.
        agent_id: The agent's name in the mesh: ``peer/name``.
        begins_ms: Expected until it would begin a first unit of this broker: its queue, a
            dial, and agreeing on terms.
    """

    peer: str
    agent: str
    capability: str
    price_mc: int
    latency_ms: int
    concurrency: int
    offer: bytes = b""
    offer_expires_ms: int = 0
    items_max: int = 1_000
    alive: bool = False
    troubled: bool = False
    failing: bool = False
    probe: bool = False
    asked: bool = False
    queue_ms: int = 0
    watched: bool = False
    units_max: int = 0
    batch_mc: int = 0

    agent_id: str = ""
    begins_ms: int = 0

    def __post_init__(self) -> None:
        """Say once what a broker that compares many asks of each again and again."""
        msgspec.structs.force_setattr(self, "agent_id", f"{self.peer}/{self.agent}")
        begins_ms = self.queue_ms + sum(_reaching_ms(self))
        msgspec.structs.force_setattr(self, "begins_ms", begins_ms)


#: Whether it is in trouble, then its time and price; the candidate, its time, its price.
_Row = tuple[tuple[bool, int], Candidate, int, int]
_PLACE: Final = itemgetter(0)


def matches(query: str, name: str) -> bool:
    """Tell whether capability ``name`` answers ``query`` (both well-formed)."""
    return CapabilityName.parse(query).covers(CapabilityName.parse(name))


def untroubled(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that have not failed lately; all, if there is no other."""
    return [one for one in candidates if not one.troubled] or list(candidates)


def has_room(candidate: Candidate, load: Mapping[str, int]) -> bool:
    """Tell whether another unit may be sent to ``candidate`` now."""
    room = 1 if candidate.probe else candidate.concurrency + QUEUE_UNITS
    if candidate.units_max:
        room = min(room, candidate.units_max)
    return load.get(candidate.agent_id, 0) < room


def stands(candidate: Candidate, *, until_ms: int) -> bool:
    """Tell whether its standing offer is there, and holds for longer than ``until_ms``."""
    return bool(candidate.offer) and candidate.offer_expires_ms > until_ms


def proposed(proposal: Proposed, calls: int, offered: Iterable[Candidate]) -> Candidate:
    """Return the candidate that a proposal makes of an agent.

    Args:
        proposal: Its answer to a call; it counts in whatever it has to do before.
        calls: Agent calls in the unit.
        offered: What was known of agents before: that one failed lately, or that it is slow,
            is nothing that it would propose.
    """
    agent = (proposal.peer, proposal.agent)
    seen = next((one for one in offered if (one.peer, one.agent) == agent), None)
    slow_ms = seen.latency_ms if seen is not None and seen.watched else 0
    return Candidate(
        peer=proposal.peer,
        agent=proposal.agent,
        capability=proposal.capability,
        price_mc=proposal.price_mc,
        latency_ms=max(1, proposal.eta_ms // calls, slow_ms),
        watched=slow_ms > 0,
        concurrency=FAN_OUT_MAX,
        offer=proposal.proposal,
        alive=True,
        troubled=seen is not None and seen.troubled,
        failing=seen is not None and seen.failing,
        probe=seen is not None and seen.probe,
        units_max=seen.units_max if seen is not None else 0,
    )


def finish_ms(candidate: Candidate, calls: int, load: Mapping[str, int]) -> int:
    """Return the expected time until ``candidate`` is finished, from now."""
    run_ms = (candidate.latency_ms or LATENCY_GUESS_MS) * calls
    if out := load.get(candidate.agent_id):
        run_ms *= 1 + out // max(1, candidate.concurrency)
    return run_ms + candidate.begins_ms


def _reaching_ms(candidate: Candidate) -> tuple[int, int]:
    """Return how long a dial and agreeing on terms may take before ``candidate`` begins."""
    dial_ms = 0 if candidate.alive else DIAL_GUESS_MS
    if candidate.offer:
        return dial_ms, 0
    return dial_ms, ASKED_GUESS_MS if candidate.asked else CALL_GUESS_MS


def rank(
    candidates: Iterable[Candidate], *, key: str, calls: int, load: Mapping[str, int]
) -> list[tuple[Candidate, Ranked]]:
    """Return the candidates, best first, each with what its place was decided by.

    Args:
        candidates: With room, price within budget.
        key: Job and unit: what ties are broken by.
        calls: Agent calls in the unit.
        load: Units outstanding at each agent, by its id.
    """
    rows = []
    for candidate in candidates:
        time_ms = finish_ms(candidate, calls, load)
        price_mc = candidate.price_mc * calls
        place = (candidate.troubled, time_ms + MS_PER_MC * price_mc)
        rows.append((place, candidate, time_ms, price_mc))
    rows.sort(key=_PLACE)
    _break_ties(rows, key)
    return [
        (candidate, _ranked(candidate, calls, time_ms, price_mc))
        for _, candidate, time_ms, price_mc in rows
    ]


def _ranked(candidate: Candidate, calls: int, time_ms: int, price_mc: int) -> Ranked:
    """Return ``candidate`` as the journal shows it: its time taken apart again."""
    run_ms = (candidate.latency_ms or LATENCY_GUESS_MS) * calls
    dial_ms, call_ms = _reaching_ms(candidate)
    return Ranked(
        peer=candidate.peer,
        price_mc=price_mc,
        finish_ms=time_ms,
        agent=candidate.agent,
        run_ms=run_ms,
        wait_ms=time_ms - run_ms - candidate.queue_ms - dial_ms - call_ms,
        queue_ms=candidate.queue_ms,
        dial_ms=dial_ms,
        call_ms=call_ms,
        troubled=candidate.troubled,
    )


def first(
    candidates: Sequence[Candidate], *, key: str, calls: int, load: Mapping[str, int]
) -> Candidate:
    """Return the first of :func:`rank`, for who needs neither the others nor why.

    Args:
        candidates: One at least; as for :func:`rank`, like what follows.
        key: See there.
        calls: See there.
        load: See there.
    """
    return lead(candidates, key=key, calls=calls, load=load)[0]


def equals(
    candidates: Sequence[Candidate], *, calls: int, load: Mapping[str, int]
) -> list[Candidate]:
    """Return those of whom :func:`first` returns one, whatever its key."""
    fit, costs_ms = _costs(candidates, calls, load)
    lowest_ms = min(costs_ms)
    return [c for c, cost_ms in zip(fit, costs_ms, strict=True) if cost_ms == lowest_ms]


def lead(
    candidates: Sequence[Candidate], *, key: str, calls: int, load: Mapping[str, int]
) -> tuple[Candidate, int | None]:
    """Return :func:`first`, and by how much it is better than the next, price as time.

    In milliseconds; None where it is the only one.
    """
    fit, costs_ms = _costs(candidates, calls, load)
    lowest_ms = min(costs_ms)
    if costs_ms.count(lowest_ms) > 1:
        found = (c for c, cost_ms in zip(fit, costs_ms, strict=True) if cost_ms == lowest_ms)
        return min(found, key=lambda c: _rendezvous(key, c)), 0
    best = costs_ms.index(lowest_ms)
    del costs_ms[best]
    return fit[best], min(costs_ms) - lowest_ms if costs_ms else None


def _costs(
    candidates: Sequence[Candidate], calls: int, load: Mapping[str, int]
) -> tuple[list[Candidate], list[int]]:
    """Return those that are no last choice, and what each costs, price turned into time."""
    fit = untroubled(candidates)
    return fit, [finish_ms(c, calls, load) + MS_PER_MC * c.price_mc * calls for c in fit]


def _break_ties(rows: list[_Row], key: str) -> None:
    """Put rows of equal place in the order of their hashes; only those are hashed."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and rows[end][0] == rows[start][0]:
            continue
        if end - start > 1:
            rows[start:end] = sorted(rows[start:end], key=lambda row: _rendezvous(key, row[1]))
        start = end


def why_lost(ranked: Sequence[Ranked], winner: str, loser: str) -> str:
    """Return why ``winner`` was preferred to ``loser``, as a decline says it.

    Args:
        ranked: What the decision went by; who couldn't be paid isn't among them.
        winner: PeerId.
        loser: PeerId.
    """
    rows = {row.peer: row for row in ranked}
    if winner not in rows:
        return "other"
    if loser not in rows:
        return "budget"
    dearer_ms = MS_PER_MC * (rows[loser].price_mc - rows[winner].price_mc)
    later_ms = rows[loser].finish_ms - rows[winner].finish_ms
    if max(dearer_ms, later_ms) <= 0:
        return "tie" if dearer_ms == later_ms == 0 else "other"
    return "price" if dearer_ms >= later_ms else "latency"


def batch_sizes(count: int, *, slots: int, items_max: int) -> list[int]:
    """Cut ``count`` items into batches: about two for each slot, none over ``items_max``.

    Two rather than one, so that a slow or lost batch costs half as much and a fast
    node takes more of them.
    """
    if count == 0:
        return []
    wanted = max(1, min(count, 2 * max(1, slots)))
    size = max(1, min(items_max, -(-count // wanted)))
    whole, rest = divmod(count, size)
    return [size] * whole + ([rest] if rest else [])


def _rendezvous(key: str, candidate: Candidate) -> tuple[bytes, str]:
    drawn = sha256(f"{key}\0{candidate.peer}".encode()).digest()
    return drawn, candidate.agent
