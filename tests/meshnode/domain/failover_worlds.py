"""Everything that three members and a contractor can come to, walked through.

A world is one tuple.  Its messages are a set: any may be delivered at any time, again and
again, or never, so all orders, losses and repetitions are among the walks.  A crash
leaves a seat its promise; since a turn writes before it sends, a crash between the two is
a turn whose messages are never delivered.  Everyone may stand at any time: whatever
:meth:`Rules.wake` chooses is among it.

Time has no bound.  It is always 0 for everyone; when a clock goes on, what it measured
moves back instead, and what has lapsed is all the same, so worlds that differ only in
how late it is are one.  Bounded are asks, epochs, crashes and drifts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from meshnode.domain.failover import (
    Asked,
    Granted,
    Mandate,
    Position,
    Refused,
    Rules,
    Seat,
    Seen,
    Turn,
    admits,
    follows,
)
from tests.meshnode.domain.walks import walk_through

MEMBERS = ("A", "B", "C")
CHARTER = b"charter"

Sent = frozenset[Asked | Granted]
Admits = Callable[[Seen | None, Seen], bool]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far the walks go.

    Attributes:
        asks: Times that anybody stands or asks for more time.
        epochs: The highest that is asked for.
        crashes: Of all members together.
        drifts: Clocks that go a tick ahead of the others.
        drifts_free: Drifts may be more than the allowance: nothing is claimed of leases.
        contracts: Whether brokers award to a contractor.
    """

    asks: int
    epochs: int = 2
    crashes: int = 0
    drifts: int = 0
    drifts_free: bool = False
    contracts: bool = False


class World(NamedTuple):
    """One state; ``won``, ``taken`` and ``broken`` are what the claims are about."""

    seats: tuple[Seat, ...]
    sent: Sent = frozenset()
    asks: int = 0
    crashes: int = 0
    drifts: int = 0
    won: frozenset[tuple[int, str]] = frozenset()
    awards: frozenset[Seen] = frozenset()
    seen: Seen | None = None
    taken: int = 0
    broken: str = ""


class Walk:
    """All worlds that the rules allow within bounds."""

    def __init__(self, rules: Rules, bounds: Bounds, *, admits: Admits = admits) -> None:
        self.rules = rules
        self.bounds = bounds
        self.admits = admits
        # An older lease lets nobody act, whoever granted it: all such are one.
        self._lapsed = rules.mandate.skew_ms - rules.mandate.lease_ms
        # Few seats stand in very many worlds.
        self._stand = lru_cache(None)(partial(rules.stand, now_ms=0))
        self._asked = lru_cache(None)(partial(rules.asked, now_ms=0))
        self._granted = lru_cache(None)(rules.granted)
        self._no = lru_cache(None)(partial(rules.refused, now_ms=0))
        self._restarted = lru_cache(None)(partial(rules.restarted, now_ms=0))
        self._acts = lru_cache(None)(partial(rules.may_act, now_ms=0))
        self._aged = lru_cache(None)(self._one_later)

    def start(self, *counts: int) -> World:
        """A has just stood, the first of all; members have so many events of the journal.

        Whoever is first is called A; nothing that happens before makes a difference.
        """
        seats = tuple(
            _bare(self.rules.seat(name, Position(0, count), now_ms=0))
            for name, count in zip(MEMBERS, counts or (0, 0, 0), strict=True)
        )
        return self._after(World(seats, asks=1), 0, self._stand(seats[0]))

    def worlds(self, start: World) -> Iterator[World]:
        """Each world once, with those that break a claim."""
        return walk_through(start, self.steps)

    def steps(self, world: World) -> Iterator[World]:
        """What may happen next."""
        for place in range(len(MEMBERS)):
            yield from self._alone(world, place)
        for message in world.sent:
            yield from self._deliver(world, message)
        yield self._later(world, *range(len(MEMBERS)))
        if self.bounds.contracts:
            yield from self._contracts(world)

    def _alone(self, world: World, place: int) -> Iterator[World]:
        seat = world.seats[place]
        turn = self._stand(seat)
        if world.asks < self.bounds.asks and turn.seat.promise.epoch <= self.bounds.epochs:
            yield self._after(world._replace(asks=world.asks + 1), place, turn)
        if seat.candidacy is not None:
            yield from self._refused(world, place)
        if world.crashes < self.bounds.crashes:
            turn = Turn(self._restarted(seat))
            yield self._after(world._replace(crashes=world.crashes + 1), place, turn)
        if world.drifts < self.bounds.drifts:
            yield self._later(world._replace(drifts=world.drifts + 1), place)

    def _refused(self, world: World, place: int) -> Iterator[World]:
        """What another has promised it may have told, and that may arrive at any time."""
        for other in world.seats:
            promise = other.promise
            if promise.broker not in {"", MEMBERS[place]}:
                no = Refused(promise.epoch, promise.broker, other.me)
                turn = self._no(world.seats[place], no)
                yield self._after(world, place, turn)

    def _deliver(self, world: World, message: Asked | Granted) -> Iterator[World]:
        for place, seat in enumerate(world.seats):
            if isinstance(message, Asked) and seat.me != message.broker:
                yield self._after(world, place, self._asked(seat, message))
            if isinstance(message, Granted) and seat.me == message.broker:
                yield self._after(world, place, self._granted(seat, message))

    def _after(self, world: World, place: int, turn: Turn) -> World:
        before, seat = world.seats[place], _bare(turn.seat)
        sent = world.sent.union(
            message for _, message in turn.sends if not isinstance(message, Refused)
        )
        if seat == before and sent == world.sent:
            return world
        seats = (*world.seats[:place], seat, *world.seats[place + 1 :])
        won = world.won
        if seat.candidacy is not None and self.rules.has_won(seat):
            won |= {(seat.candidacy.epoch, seat.me)}
        return self._judged(world._replace(seats=seats, sent=self._alive(sent, seats), won=won))

    @staticmethod
    def _alive(sent: Sent, seats: tuple[Seat, ...]) -> Sent:
        """Leave out what nobody would do anything about any more: promises only rise."""
        epochs = {seat.me: seat.promise.epoch for seat in seats}
        asking = {seat.me: seat.candidacy.epoch for seat in seats if seat.candidacy is not None}
        lowest = min(epochs.values())

        def is_alive(message: Asked | Granted) -> bool:
            if isinstance(message, Asked):
                return message.epoch >= lowest
            whose = message.broker
            return message.epoch >= epochs[whose] or message.epoch == asking.get(whose)

        return frozenset(filter(is_alive, sent))

    def _later(self, world: World, *places: int) -> World:
        """A tick of some clocks: what they measured moves back."""
        seats = list(world.seats)
        for place in places:
            seats[place] = self._aged(seats[place])
        whose = {MEMBERS[place] for place in places}
        sent = frozenset(
            message._replace(asked_ms=self._back(message.asked_ms))
            if message.broker in whose
            else message
            for message in world.sent
        )
        return self._judged(world._replace(seats=tuple(seats), sent=sent))

    def _one_later(self, seat: Seat) -> Seat:
        promise = seat.promise._replace(until_ms=max(0, seat.promise.until_ms - 1))
        asks = seat.candidacy
        if asks is not None:
            grants = tuple((member, self._back(at_ms)) for member, at_ms in asks.grants)
            asks = asks._replace(asked_ms=self._back(asks.asked_ms), grants=grants)
        return seat._replace(promise=promise, candidacy=asks)

    def _back(self, at_ms: int) -> int:
        return max(self._lapsed, at_ms - 1)

    def _contracts(self, world: World) -> Iterator[World]:
        """An award arrives, with its broker's certificate."""
        for award in world.awards:
            seen = award if follows(world.seen, award) else world.seen
            if self.admits(seen, award):
                broken = ""
                if award.epoch < world.taken:
                    broken = f"epoch {award.epoch} was taken after {world.taken}"
                taken = max(world.taken, award.epoch)
                yield world._replace(seen=seen, taken=taken, broken=broken)

    def _is_held(self, world: World, acting: Seat) -> bool:
        """Tell whether a majority still waits for it: what a loser does ends before that."""
        held = [
            seat
            for seat in world.seats
            if seat.promise.broker == acting.me and seat.promise.until_ms > 0
        ]
        return len(held) >= self.rules.mandate.majority

    def _judged(self, world: World) -> World:
        if len(world.won) > len({epoch for epoch, _ in world.won}):
            return world._replace(broken="an epoch has two brokers")
        acting = [seat for seat in world.seats if self._acts(seat)]
        if len(acting) > 1 and not self.bounds.drifts_free:
            return world._replace(broken="two act at once")
        if not self.bounds.drifts_free and not all(self._is_held(world, one) for one in acting):
            return world._replace(broken="one acts beyond its lease")
        if self.bounds.contracts:
            # Who may act awards at once: when that arrives, if at all, is open.
            awards = (
                Seen(asks.epoch, one.me, CHARTER) for one in acting if (asks := one.candidacy)
            )
            world = world._replace(awards=world.awards.union(awards))
        return world


def _bare(seat: Seat) -> Seat:
    """Without what only :meth:`Rules.wake` looks at: here everyone may always stand."""
    return seat._replace(quiet_until_ms=0)


def mandate(*, lease_ms: int = 2, skew_ms: int = 1) -> Mandate:
    """A job of three members; a millisecond is a tick."""
    return Mandate(MEMBERS, 1, lease_ms, skew_ms)
