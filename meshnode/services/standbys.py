"""Standing by: the journals of others' jobs, kept so that this node can go on with them.

What a job's broker ships is taken in if a certificate says that it is the broker, and if
its segment's head signs the events.  What the events say that the broker holds is fetched
before the answer: whoever takes a job over must have its inputs.

Specified in protocol/spec/86-shipping.md.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from meshnode.domain.failover import Position
from meshnode.errors import Busy, StoreError
from meshnode.services.admission import Admission
from meshnode.services.artifacts import Artifacts
from meshnode.services.context import Context
from meshnode.services.job_rows import JOBS
from meshnode.services.journal_copies import (
    copied,
    drop,
    grow,
    job_of,
    keys,
    read_copies,
    replace,
)
from meshnode.services.ledger import Ledger
from meshnode.services.seat import Seat
from meshnode.services.seats import Seats
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.standby_artifacts import StandbyArtifacts
from protocol.charter import Chartered, Epoch, read_certificate
from protocol.codec import encode
from protocol.errors import Malformed
from protocol.journal import (
    END,
    SegmentExport,
    chain_next,
    chain_start,
    decode_segment,
    read_head,
)
from protocol.keys import digest
from protocol.shipping import SHIP, Ship, Shipped, read_ship
from protocol.signing import peek

#: What a standby's record says.
FEATURE: Final = "standby"
#: Bytes of events that are kept before anything signs them, and of a job's in all.
_STAGED_BYTES_MAX: Final = 32 * 1024 * 1024
_JOURNAL_BYTES_MAX: Final = 256 * 1024 * 1024
_NOTHING: Final = bytes(32)
_TWO: Final = 2


@dataclass(slots=True)
class _Copy:
    """A job's journal as it is here.

    Attributes:
        segments: On the disk.
        key: Under which the last of them is kept.
        chain: After the last event of it.
        shed: From this epoch on the broker has another story, which takes the place of what
            is here when it has come; 0 for none.
        size: Bytes of events on the disk.
        staged: (header, events) that nothing has signed yet.
    """

    segments: list[SegmentExport]
    key: str = ""
    chain: bytes = _NOTHING
    shed: int = 0
    size: int = 0
    staged: tuple[bytes, list[bytes]] = (b"", [])
    turn: trio.Lock = field(default_factory=trio.Lock)

    @property
    def shared(self) -> list[SegmentExport]:
        """Those that the broker has too, as far as is known."""
        if not self.shed:
            return self.segments
        return [one for one in self.segments if decode_segment(one.header).epoch < self.shed]

    def become(self, segments: Sequence[SegmentExport], key: str) -> None:
        """Be what was just written down."""
        self.segments, self.key, self.chain = list(segments), key, _chain(segments)
        self.shed = 0
        self.size = sum(len(body) for one in segments for body in one.events)


#: Told of a job of which more was taken in.
Grown = Callable[[Seat, Sequence[SegmentExport]], Awaitable[None]]


class Standbys:
    """See the module."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        seats: Seats,
        door: Admission,
        artifacts: Artifacts,
        ledger: Ledger,
    ) -> None:
        self._context = context
        self._config = context.config.standby
        self._seats = seats
        self._door = door
        self._ledger = ledger
        self._artifacts = StandbyArtifacts(context, artifacts)
        self._copies: dict[bytes, _Copy] = {}
        self.grown: Grown = _nobody
        seats.admit = self._admit
        seats.ended = self.release
        sessions.handle(SHIP, self._on_ship)

    async def _admit(self, chartered: Chartered) -> None:
        """Let this node be a standby, if its owner wants that.

        Raises:
            MeshError: It is not to be.
        """
        charter = chartered.charter
        if not self._config.enabled:
            raise Malformed("this node is nobody's standby")
        if (no := await self._door.stranger(charter.owner)) is not None:
            raise Malformed(no.text)
        if not self._has_room(charter.owner):
            raise Busy("the jobs that this node stands by for")
        owed_mc = sum(
            seat.chartered.charter.budget.cost_mc
            for seat in self._seats.all()
            if not seat.over and seat.chartered.charter.owner == charter.owner
        )
        # It would pay in the owner's place.
        no = self._ledger.unwilling(
            charter.owner, working_mc=owed_mc, more_mc=charter.budget.cost_mc
        )
        if no is not None:
            raise Malformed(no.text)
        row = await self._context.store.read(JOBS, charter.job)
        if row is not None or self._seats.of_job(charter.job) is not None:
            raise Malformed("this job's id is another's here")

    def _has_room(self, owner: str) -> bool:
        """Tell whether one more job of ``owner`` may come: others' must have room beside it.

        An owner has as many as are free then, at most; so none can keep all others out.
        """
        held = Counter(
            seat.chartered.charter.owner for seat in self._seats.all() if not seat.over
        )
        del held[self._context.peer]  # its own jobs are no standing by
        return self._config.jobs_max - held.total() > held[owner]

    # --- what is here ---

    async def segments(self, charter: bytes) -> list[SegmentExport]:
        """Return a job's journal as it was shipped here.

        Raises:
            StoreError: The disk refused.
        """
        return (await self._copy(charter)).segments

    async def _copy(self, charter: bytes) -> _Copy:
        known = self._copies.get(charter)
        if known is None:
            segments = await read_copies(self._context, charter)
            made = _Copy([])
            made.become(segments, (*await keys(self._context, charter), "")[len(segments) - 1])
            known = self._copies.setdefault(charter, made)
            seat = self._seats.seat(charter)
            # It may have written more itself, as the broker.
            if seat is not None and position_of(known.segments) >= seat.position:
                self._moved(seat, known)
        return known

    def release(self, seat: Seat) -> None:
        """Leave what is here of a job that is over to the disk."""
        self._copies.pop(seat.chartered.name, None)

    async def load(self) -> None:
        """Say of every seat how much of its job is here; before anybody asks.

        Raises:
            StoreError: The disk refused.
        """
        for seat in self._seats.all():
            await self._copy(seat.chartered.name)
            if seat.over:
                self.release(seat)

    async def keep_own(self, seat: Seat, segments: Sequence[SegmentExport]) -> None:
        """Keep what this node wrote as a broker, to go on from it in a later epoch.

        Raises:
            StoreError: The disk refused.
        """
        copy = await self._copy(seat.chartered.name)
        async with copy.turn:
            with trio.CancelScope(shield=True):  # or memory would lag behind the disk
                key = await replace(self._context, seat.chartered.name, segments, since=0)
                copy.become(segments, key)
                self._moved(seat, copy)

    def _moved(self, seat: Seat, copy: _Copy) -> None:
        """Count what is here, and what is not here alone."""
        seat.moved(position_of(copy.segments), ended=is_over(copy.segments))
        if copy.segments and seat.chartered.majority <= _TWO:
            writer = decode_segment(copy.segments[-1].header).writer
            if writer != self._context.peer:
                seat.safe = seat.position.events  # who shipped it has it too

    async def forget_old(self) -> None:
        """Forget the journals of jobs that are listed here no more, and whose time is over.

        Raises:
            StoreError: The disk refused; the rest goes the next time.
        """
        for charter, kept in (await copied(self._context)).items():
            seat = self._seats.seat(charter)
            if seat is not None and not self._seats.is_past(seat):
                continue
            job = await job_of(self._context, kept[0])
            if await self._context.store.read(JOBS, job) is not None:
                continue  # its journal begins with them
            for key in kept:
                await drop(self._context, key)
            self._copies.pop(charter, None)
            self._context.emit("standby.forgotten", job=job)
        for seat in self._seats.all():
            if self._seats.is_past(seat):
                await self._seats.leave(seat)

    # --- taking in ---

    async def _on_ship(self, incoming: Incoming) -> bytes:
        ship = read_ship(incoming.body)
        won = read_certificate(
            ship.certificate,
            network=self._context.network,
            now_ms=self._context.clock.now_ms(),
        )
        seat = self._seats.seat(won.chartered.name)
        if seat is None:
            raise Malformed("this node is no member of that job")
        await self._seats.show(seat, ship.certificate, incoming.peer)
        copy = await self._copy(won.chartered.name)
        async with copy.turn:
            self._seats.need_newest(seat, won.epoch)
            if self._seats.is_broker(seat):
                raise Malformed("this node is the broker")
            try:
                grew = await self._take(seat, copy, ship, won)
            except StoreError:
                self._copies.pop(won.chartered.name, None)  # the disk alone knows now
                raise
        if grew:
            with trio.CancelScope(shield=True):  # or who follows would never hear of it
                await self.grown(seat, copy.segments)
        told = encode(self._told(copy))
        if seat.over:
            self.release(seat)
        return told

    def _told(self, copy: _Copy) -> Shipped:
        header, staged = copy.staged
        if staged:
            return Shipped(decode_segment(header).epoch, len(staged), _chain_of(header, staged))
        if not copy.shared:
            return Shipped(0, 0, _NOTHING)
        last = copy.shared[-1]
        chain = copy.chain if last is copy.segments[-1] else _chain(copy.shared)
        return Shipped(decode_segment(last.header).epoch, len(last.events), chain)

    async def _take(self, seat: Seat, copy: _Copy, ship: Ship, won: Epoch) -> bool:
        """Take in what fits what is here; tell whether anything did."""
        segment = decode_segment(ship.header)
        if (segment.job, segment.network, segment.charter) != (
            seat.job,
            self._context.network,
            seat.chartered.name,
        ):
            raise Malformed("a segment of another job")
        if segment.epoch > won.epoch or (
            segment.epoch == won.epoch and segment.writer != won.broker
        ):
            raise Malformed("a segment is shipped by its writer or a later one")
        if not (ship.events or ship.head):
            # It still counts until the broker's own story takes its place: who has less of
            # what a majority had must not win meanwhile.
            copy.staged, copy.shed = (b"", []), segment.epoch
            return False
        place = self._place(copy, ship)
        there = self._there(copy, place, ship)
        if self._is_here(copy, place, ship):
            copy.staged = (b"", [])
            if _ends(ship.head):  # from its first event on, maybe: its broker can't know
                await self._hold(seat, won)
            return False  # all of it is here
        if place is None or ship.first != len(there):
            copy.staged = (b"", [])
            return False  # the answer says what is here
        if copy.size + sum(map(len, ship.events)) > _JOURNAL_BYTES_MAX:
            raise Busy("the room for one job's journal")
        await self._artifacts.fetch(seat, ship)
        if not ship.head:
            events = [*there, *ship.events]
            if sum(map(len, events)) > _STAGED_BYTES_MAX:
                raise Busy("what nothing has signed yet")
            copy.staged = (ship.header, events)
            return False
        async with seat.turn:  # nobody is granted anything between the look and the commit
            self._seats.need_newest(seat, won.epoch)
            made = SegmentExport(ship.header, [*there, *ship.events], ship.head)
            held = won.epoch if _ends(ship.head) else 0
            await self._keep(seat, copy, place, made, held=held)
        copy.staged = (b"", [])
        return True

    async def _hold(self, seat: Seat, won: Epoch) -> None:
        """Note that the end that is here is what another broker has, too."""
        async with seat.turn:
            self._seats.need_newest(seat, won.epoch)
            await self._context.store.commit(self._seats.holding(seat, won.epoch))
            self._seats.hold(seat, won.epoch)
        if seat.telling:  # which that broker does
            await self._seats.end(seat)

    def _place(self, copy: _Copy, ship: Ship) -> int | None:
        """Return where the segment of ``ship`` stands: last, or after the one it follows."""
        last = len(copy.shared) - 1
        if last >= 0 and copy.shared[last].header == ship.header:
            return last
        parent = decode_segment(ship.header).parent
        if not parent:
            return 0
        for number, segment in enumerate(copy.shared):
            if digest(segment.head) == parent:
                return number + 1
        return None

    def _is_here(self, copy: _Copy, place: int | None, ship: Ship) -> bool:
        """Tell whether all that ``ship``'s head signs is on the disk."""
        known = copy.shared[place : place + 1] if place is not None else []
        return bool(ship.head) and [one.head for one in known] == [ship.head]

    def _there(self, copy: _Copy, place: int | None, ship: Ship) -> list[bytes]:
        """Return the events of the segment that are here, signed or not."""
        header, staged = copy.staged
        if staged and header == ship.header:
            return staged
        if place is not None and place < len(copy.shared):
            known = copy.shared[place]
            return list(known.events) if known.header == ship.header else []
        return []

    async def _keep(
        self, seat: Seat, copy: _Copy, place: int, made: SegmentExport, *, held: int
    ) -> None:
        """Prove, and write down, a segment whose end the broker of epoch ``held`` had."""
        # Nothing grows before the end of what is on the disk.
        goes_on = place == len(copy.segments) - 1 and place < len(copy.shared)
        goes_on = goes_on and copy.shared[place].header == made.header
        count = len(copy.shared[place].events) if goes_on else 0
        chain = copy.chain if goes_on else chain_start(made.header)
        for body in made.events[count:]:
            chain = chain_next(chain, body)
        segment = decode_segment(made.header)
        head = read_head(made.head, segment)
        if (head.count, head.chain) != (len(made.events), chain):
            copy.staged = (b"", [])
            raise Malformed("the head signs other events than these")
        with trio.CancelScope(shield=True):  # or memory would lag behind the disk
            holding = [self._seats.holding(seat, held)] if held else []
            if goes_on:
                grown = grow(copy.key, made, first=count)
                await self._context.store.commit(*grown, *holding)
                copy.segments, copy.chain = [*copy.segments[:place], made], chain
                copy.size += sum(map(len, made.events[count:]))
            else:  # in the place of what a broker that lost the job wrote
                gone = [decode_segment(one.header).epoch for one in copy.segments[place:]]
                since = min([segment.epoch, *gone])
                name = seat.chartered.name
                key = await replace(self._context, name, [made], since=since, also=holding)
                copy.become([*copy.segments[:place], made], key)
            seat.held = max(seat.held, held)
            self._moved(seat, copy)


def _chain_of(header: bytes, events: Sequence[bytes]) -> bytes:
    chain = chain_start(header)
    for body in events:
        chain = chain_next(chain, body)
    return chain


def _chain(segments: Sequence[SegmentExport]) -> bytes:
    return _chain_of(segments[-1].header, segments[-1].events) if segments else _NOTHING


def is_over(segments: Sequence[SegmentExport]) -> bool:
    """Tell whether the last of ``segments`` ends its job."""
    return bool(segments) and _ends(segments[-1].head)


def _ends(head: bytes) -> bool:
    return peek(head).t == END


def position_of(segments: Sequence[SegmentExport]) -> Position:
    """Return how much of a job's journal ``segments`` are."""
    if not segments:
        return Position(0, 0)
    epoch = decode_segment(segments[-1].header).epoch
    return Position(epoch, sum(len(segment.events) for segment in segments))


async def _nobody(_: Seat, __: Sequence[SegmentExport]) -> None:
    await trio.lowlevel.checkpoint()
