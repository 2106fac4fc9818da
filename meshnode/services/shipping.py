"""Shipping: the journal of a job goes to its other members as it grows.

Each member is told what it lacks, and says what it has then; whoever has something else is
told from the beginning.  What a majority of the members has can't be lost with the broker.

Specified in protocol/spec/86-shipping.md.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import trio

from meshnode.domain.facts import (
    ArtifactRef,
    Awarded,
    Delivered,
    Done,
    Elected,
    Expanded,
    Fact,
    Planned,
    from_event,
)
from meshnode.domain.failover import Position
from meshnode.errors import MeshError
from meshnode.services.artifacts import Artifacts
from meshnode.services.checking import SCHEMAS
from meshnode.services.context import Context
from meshnode.services.journals import JobJournal
from meshnode.services.seat import Seat
from meshnode.services.seats import Seats
from meshnode.services.sessions import Sessions
from meshnode.services.signer import Topic
from protocol.codec import encode
from protocol.errors import RemoteProtocolError
from protocol.journal import (
    END,
    Head,
    SegmentExport,
    chain_of,
    decode_event,
    decode_segment,
    sign_head,
)
from protocol.shipping import SHIP, Ship, Shipped, read_shipped
from protocol.signing import peek

#: Events in one request take so many bytes at most, and one more.
_BYTES_MAX: Final = 96 * 1024
_EVENTS_MAX: Final = 256
#: A member also fetches what the events name before it answers.
_TIMEOUT_S: Final = 30.0
#: A member that can't be told is told again after this, doubled each time, seconds.
_RETRY_S: Final = 0.25
_RETRY_S_MAX: Final = 4.0
#: Whether the charter has expired is looked at so often, seconds.
_LOOK_S: Final = 60.0


class Shipping:
    """One job's journal on its way to the other members.

    Attributes:
        journal: Of this node, the broker.
        seat: Of the job.
        epoch: As whose broker this node ships: a later one than wrote a journal that has
            ended.
    """

    def __init__(
        self,
        context: Context,
        journal: JobJournal,
        seat: Seat,
        *,
        seats: Seats,
        sessions: Sessions,
        artifacts: Artifacts,
    ) -> None:
        self.journal = journal
        self.seat = seat
        self._context = context
        self._seats = seats
        self._sessions = sessions
        self._artifacts = artifacts
        self.epoch, self._certificate = ships_as(seat, journal, context.peer)
        #: Member -> events of the job that it has.
        self._has: dict[str, int] = {}
        #: Members that know that the end is that of this broker too.
        self._know_end: set[str] = set()
        self._moved = trio.Event()

    async def run(self) -> None:
        """Ship until every member has all of a finished job; until cancelled."""
        others = [one for one in self.seat.chartered.members if one != self._context.peer]
        async with trio.open_nursery() as nursery:
            for member in others:
                nursery.start_soon(self._ship_to, member)

    # --- what is safe ---

    @property
    def safe(self) -> int:
        """Events of the job that a majority of the members has, this one among them.

        All, once the charter has expired: nobody goes on with less any more.  Who has the
        last one from an earlier broker only might give it up for another story.
        """
        segments = self.journal.segments
        count = _count(segments)
        if self._seats.is_past(self.seat):
            return count
        short = count - 1 if _is_over(segments) else count
        theirs = (
            events if member in self._know_end else min(events, short)
            for member, events in self._has.items()
        )
        have = sorted([count, *theirs], reverse=True)
        majority = self.seat.chartered.majority
        return have[majority - 1] if len(have) >= majority else 0

    def is_safe_end(self) -> bool:
        """Tell whether the job has ended, and a majority has all of it."""
        if self.journal.state.done is None:
            return False
        segments = self.journal.segments  # what of it is durable
        return _is_over(segments) and self.safe >= _count(segments)

    def is_behind(self) -> bool:
        """Tell whether what a majority hasn't got is older than a lease: award nothing."""
        safe = self.safe
        for segment in self.journal.segments:
            if safe < len(segment.events):
                at_ms = decode_event(segment.events[safe]).at_ms
                break
            safe -= len(segment.events)
        else:
            return False
        age_ms = self._context.clock.now_ms() - at_ms
        return age_ms > self.seat.chartered.charter.lease_ms

    async def until_safe(self, count: int) -> None:
        """Wait until a majority has the first ``count`` events."""
        while self.safe < count:
            with trio.move_on_after(_LOOK_S):
                await self._moved.wait()

    # --- shipping ---

    async def _ship_to(self, member: str) -> None:
        """Tell ``member`` what it lacks, again and again."""
        place = (0, 0)  # segment, events of it
        retry_s = _RETRY_S
        while not self._seats.is_past(self.seat):
            self._moved_to(self.journal.segments)
            owes_end = _is_over(self.journal.segments) and member not in self._know_end
            if self._is_all(place) and not owes_end:
                if self.journal.done is not None:
                    return
                with trio.move_on_after(_LOOK_S):
                    await self.journal.changed()
                continue
            try:
                place = await self._tell(member, place)
                retry_s = _RETRY_S
            except (MeshError, RemoteProtocolError) as exc:
                self._context.emit(
                    "standby.untold", job=self.journal.job, peer=member, why=str(exc)
                )
                await trio.sleep(retry_s * self._context.rng.uniform(0.75, 1.25))
                retry_s = min(2 * retry_s, _RETRY_S_MAX)

    def _moved_to(self, segments: Sequence[SegmentExport]) -> None:
        """Count what this node has, while it is the broker."""
        position = Position(decode_segment(segments[-1].header).epoch, _count(segments))
        self.seat.moved(position, ended=_is_over(segments))

    def _is_all(self, place: tuple[int, int]) -> bool:
        segments = self.journal.segments
        return place == (len(segments) - 1, len(segments[-1].events))

    async def _tell(self, member: str, place: tuple[int, int]) -> tuple[int, int]:
        """Ship what follows ``place``; return from where to go on."""
        number, first = place
        segments = self.journal.segments
        segment = segments[number]
        last = number == len(segments) - 1
        if first < 0:  # it has another story from here on
            ship = Ship(self._certificate, segment.header, 0, [], b"", [], [])
        else:
            ship = await self._pack(member, segment, first, last=last)
        raw = await self._sessions.request(member, SHIP, encode(ship), timeout_s=_TIMEOUT_S)
        told = read_shipped(raw)
        place = self._place(segments, told)
        if ship.head or first < 0:  # else it is kept in memory only
            self._has[member] = _count(segments[: place[0]]) + max(0, place[1])
            if last and _is_over(segments) and place == (number, len(segment.events)):
                self._know_end.add(member)
            self._moved.set()
            self._moved = trio.Event()
            self.journal.poke()
        if not last and place == (number, len(segment.events)) and ship.head == segment.head:
            return number + 1, 0  # which follows that very head
        if place <= (number, first) and ship.events:
            await trio.sleep(_RETRY_S)  # it took nothing: not again at once
        return place

    def _place(self, segments: Sequence[SegmentExport], told: Shipped) -> tuple[int, int]:
        """Return how far ``told`` agrees with what is here: -1 for not at all."""
        for number, segment in enumerate(segments):
            if decode_segment(segment.header).epoch == told.segment:
                known = told.count <= len(segment.events) and (
                    chain_of(segment.header, segment.events[: told.count]) == told.chain
                )
                return number, told.count if known else -1
        return 0, -1 if told.segment else 0

    async def _pack(
        self, member: str, segment: SegmentExport, first: int, *, last: bool
    ) -> Ship:
        events = list(_some(segment.events[first:]))
        own = last and decode_segment(segment.header).writer == self._context.peer
        head = self._head(segment, first + len(events), own=own)
        schemas: list[bytes] = []
        tickets: list[bytes] = []
        for body in events:
            fact = from_event(decode_event(body))
            if isinstance(fact, Awarded):
                raw = await self._context.store.read(SCHEMAS, fact.schema.hex())
                schemas += [raw] if raw is not None else []
            for name in artifacts_of(fact):
                holder = await self._holder(name, fact)
                tickets.append(
                    self._artifacts.ticket(
                        name, holder=holder, reader=member, topic=self._topic()
                    )
                )
        return Ship(self._certificate, segment.header, first, events, head, schemas, tickets)

    async def _holder(self, name: bytes, fact: Fact) -> str:
        """Return who serves an artifact: its maker, while this node has no copy yet."""
        if isinstance(fact, Delivered) and await self._artifacts.local(name) is None:
            unit = self.journal.state.units.get(fact.unit)
            if unit is not None and fact.attempt < len(unit.attempts):
                return unit.attempts[fact.attempt].peer
        return self._context.peer

    @property
    def _elected(self) -> Elected:
        elected = self.journal.state.elected
        assert elected is not None, "only jobs with a charter are shipped"
        return elected

    def _head(self, segment: SegmentExport, count: int, *, own: bool) -> bytes:
        """Return what signs the first ``count`` events of a segment, or nothing.

        That of an earlier broker is signed as a whole only: the parts before the last are
        taken on trust until then.
        """
        if count == len(segment.events):
            return segment.head
        if not own:
            return b""
        head = Head(
            job=self.journal.job,
            epoch=decode_segment(segment.header).epoch,
            count=count,
            chain=chain_of(segment.header, segment.events[:count]),
            at_ms=self._context.clock.now_ms(),
        )
        return sign_head(self._context.signer.identity, self._context.network, head)

    def _topic(self) -> Topic:
        plan = self.journal.state.required_plan
        return Topic(
            job=self.journal.job,
            deadline_ms=plan.deadline_ms,
            epoch=self._elected.epoch,
            charter=self._elected.charter,
        )


def epoch_of(journal: JobJournal) -> int:
    """Return the epoch of a job's newest broker, as its journal says; 0 for none."""
    elected = journal.state.elected
    return elected.epoch if elected is not None else 0


def elected_of(seat: Seat) -> Elected:
    """Return the fact that this node is the broker of the newest epoch."""
    epoch, broker = seat.newest
    return Elected(
        epoch=epoch,
        broker=broker,
        charter=seat.chartered.name,
        certificate=seat.certificate,
    )


def artifacts_of(fact: Fact) -> dict[bytes, int]:
    """Return what the broker that wrote ``fact`` holds, or has checked: hash -> bytes."""
    refs: list[ArtifactRef] = []
    match fact:
        case Planned():
            return {ref.artifact: ref.size for ref in fact.inputs.values()}
        case Expanded():
            refs = [ref for row in fact.slices.values() for ref in row]
        case Delivered():
            return {fact.output: fact.size}
        case Done():
            refs = list(fact.outputs.values())
        case _:
            pass
    return {ref.artifact: ref.size for ref in refs}


def ships_as(seat: Seat, journal: JobJournal, me: str) -> tuple[int, bytes]:
    """Return epoch and certificate that let a node ship a journal."""
    if seat.newest[1] == me and seat.certificate:
        return seat.newest[0], seat.certificate
    elected = journal.state.elected
    assert elected is not None, "only jobs with a charter are shipped"
    return elected.epoch, elected.certificate


def _is_over(segments: Sequence[SegmentExport]) -> bool:
    return peek(segments[-1].head).t == END


def _count(segments: Sequence[SegmentExport]) -> int:
    return sum(len(segment.events) for segment in segments)


def _some(events: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the first of ``events``, as many as go into one request."""
    size = 0
    for number, body in enumerate(events):
        if number >= _EVENTS_MAX or (number and size + len(body) > _BYTES_MAX):
            return
        size += len(body)
        yield body
