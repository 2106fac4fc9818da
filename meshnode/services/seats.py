"""Seats: this node's part in electing the brokers of jobs of which it is a member.

A :class:`Seat` is one job's.  What the rules of :mod:`meshnode.domain.failover` make of it
is written down before anybody hears of it; asking others, and waiting until something is
due, is done here.  What follows from an election is for others to do: they are told.

Specified in protocol/spec/85-failover.md, "Granting" and "Acting".
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from meshnode.domain.failover import (
    Asked,
    Candidacy,
    Granted,
    Position,
    Promise,
    Refused,
    Turn,
)
from meshnode.errors import MeshError, StoreError
from meshnode.ports import Delete, Put
from meshnode.services.context import Context
from meshnode.services.seat import Seat, SeatRow
from meshnode.services.sessions import Incoming, Sessions
from protocol.charter import (
    Answer,
    Ask,
    Chartered,
    Grant,
    read_answer,
    read_ask,
    read_certificate,
    read_charter,
    read_grant,
    sign_grant,
    write_certificate,
)
from protocol.codec import decode_as, encode
from protocol.errors import Malformed, ProtocolError, RemoteProtocolError
from protocol.limits import SKEW_MS_MAX

EPOCH: Final = "epoch"

#: Charter's name, hex -> SeatRow.
SEATS: Final = "seat"
_SEATS_MAX: Final = 100_000
#: A member is given so much of a lease to answer in; a third goes by between two askings.
_ANSWER_SHARE: Final = 0.3
_ANSWER_S_MAX: Final = 5.0
#: What the disk refused is tried again after this, seconds.
_AGAIN_S: Final = 0.5


_ROW: Final = msgspec.msgpack.Decoder(SeatRow)


Tell = Callable[[Seat], Awaitable[None]]


class Seats:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        self._context = context
        self._clock = context.clock
        self._sessions = sessions
        self._seats: dict[bytes, Seat] = {}
        self._nursery: trio.Nursery | None = None
        self._admitting = trio.Lock()
        self.won: Tell = _nobody
        self.lost: Tell = _nobody
        self.ended: Callable[[Seat], None] = lambda _: None
        self.heard: Tell = _nobody  # that a majority has the end
        self.admit: Callable[[Chartered], Awaitable[None]] = _admit_none
        self.tells: Callable[[Seat], int] = lambda _: 0  # as the broker of which epoch
        sessions.handle(EPOCH, self._on_epoch)

    async def load(self) -> None:
        """Take up the seats from before.

        Raises:
            StoreError: The disk refused.
        """
        now_ms = self._clock.now_ms()
        for key, raw in await self._context.store.scan(SEATS, count_max=_SEATS_MAX):
            row = decode_as(raw, _ROW)
            try:
                chartered = read_charter(
                    row.charter, network=self._context.network, now_ms=now_ms
                )
            except RemoteProtocolError as exc:  # it has expired, mostly
                self._context.emit("seat.forgotten", charter=key, why=str(exc))
                await self._context.store.commit(Delete(SEATS, key))
                continue
            seat = Seat(row.charter, chartered, self._context.peer, now_ms)
            promise = Promise(row.epoch, row.broker, row.until_ms)
            seat.view = seat.rules.restarted(seat.view._replace(promise=promise), now_ms=now_ms)
            seat.over, seat.given, seat.held = row.over, row.given, row.held
            seat.settled = row.settled or row.over
            self._seats[chartered.name] = seat

    async def run(self) -> None:
        """Stand, and prolong leases, where that is due; until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for seat in self._seats.values():
                nursery.start_soon(self._attend, seat)
            await trio.sleep_forever()

    # --- who has a seat ---

    def seat(self, charter: bytes) -> Seat | None:
        """Return the seat of the job with that charter, or None."""
        return self._seats.get(charter)

    def of_job(self, job: str) -> Seat | None:
        """Return the seat of the job of that id, or None."""
        return next((seat for seat in self._seats.values() if seat.job == job), None)

    def all(self) -> list[Seat]:
        """Return every seat."""
        return list(self._seats.values())

    @property
    def held(self) -> int:
        """Jobs that go on and of which this node is a member."""
        return sum(not seat.over for seat in self._seats.values())

    async def take(self, envelope: bytes, chartered: Chartered, *, first: bool = False) -> Seat:
        """Be a member of a job, from now on.

        Args:
            envelope: The charter's.
            chartered: What it says.
            first: To be its first broker: stand at once.

        Raises:
            StoreError: The disk refused: this node is none.
        """
        seat = Seat(envelope, chartered, self._context.peer, self._clock.now_ms())
        if first:
            seat.view = seat.view._replace(quiet_until_ms=0)
        with trio.CancelScope(shield=True):  # or the disk would know of a seat that isn't
            await self._write(seat, seat.view.promise)
        self._seats[chartered.name] = seat
        if self._nursery is not None:
            self._nursery.start_soon(self._attend, seat)
        return seat

    async def end(self, seat: Seat) -> None:
        """The job is over: grant and ask for nothing more.

        Raises:
            StoreError: The disk refused.
        """
        if not seat.over:
            with trio.CancelScope(shield=True):
                async with seat.turn:  # or what is being granted now would be written over
                    await self._write(seat, seat.view.promise, over=True)
                    seat.over, seat.settled, seat.telling = True, True, False
            seat.poke()
            self.ended(seat)

    def _reopen(self, seat: Seat) -> None:
        """Stand again: a member hasn't the end, and who had to tell it may be gone."""
        seat.over, seat.telling = False, True
        seat.poke()
        if self._nursery is not None:
            self._nursery.start_soon(self._attend, seat)

    def resign(self, seat: Seat) -> None:
        """Leave the epoch that was won to others: there is nothing here to go on from."""
        quiet_ms = self._ends_ms(seat)
        seat.view = seat.view._replace(candidacy=None, quiet_until_ms=quiet_ms)
        seat.poke()

    async def leave(self, seat: Seat) -> None:
        """Be no member any more: the job was never begun, or is long over."""
        seat.over = True
        seat.poke()
        self._seats.pop(seat.chartered.name, None)
        await self._context.store.commit(Delete(SEATS, seat.chartered.name.hex()))

    # --- acting ---

    def acts(self, seat: Seat) -> bool:
        """Tell whether this node is the job's broker now, and its lease holds."""
        return not seat.over and seat.rules.may_act(seat.view, now_ms=self._clock.now_ms())

    def is_broker(self, seat: Seat) -> bool:
        """Tell whether this node has won the newest epoch that it knows of."""
        return seat.newest[1] == self._context.peer

    async def show(self, seat: Seat, certificate: bytes, peer: str) -> int:
        """Take in that ``peer`` is the job's broker; return its epoch.

        Raises:
            Malformed: It isn't, or was before another that is known.
        """
        won = read_certificate(
            certificate, network=self._context.network, now_ms=self._clock.now_ms()
        )
        if won.broker != peer or won.chartered.name != seat.chartered.name:
            raise Malformed("a certificate is shown by its broker, and under its charter")
        self.need_newest(seat, won.epoch)
        if won.epoch > seat.newest[0]:
            async with seat.turn:
                self.need_newest(seat, won.epoch)  # another may have been shown meanwhile
                now_ms = self._clock.now_ms()
                turn = seat.rules.shown(seat.view, won.epoch, peer, now_ms=now_ms)
                await self._do(seat, turn)
                is_later = won.epoch > seat.newest[0]
                seat.newest, seat.certificate = (won.epoch, peer), certificate
            seat.poke()
            if is_later:
                await self.lost(seat)
        return won.epoch

    def need_newest(self, seat: Seat, epoch: int) -> None:
        """Refuse what the broker of an epoch ships once another may go on without it.

        Who was granted a later epoch had as much of the journal as this node when it asked:
        what this node took in after that would count as safe, and be lost.

        Raises:
            Malformed: A later epoch was won, as far as is known here, or was granted.
        """
        if epoch < max(seat.newest[0], seat.given, seat.position.segment):
            raise Malformed(f"epoch {epoch} is over: a later one was won, or granted here")

    # --- granting ---

    async def _on_epoch(self, incoming: Incoming) -> bytes:
        ask = read_ask(incoming.body)
        chartered = read_charter(
            ask.charter, network=self._context.network, now_ms=self._clock.now_ms()
        )
        members = chartered.members
        if incoming.peer not in members or self._context.peer not in members:
            raise Malformed("an epoch is asked for by one member of another")
        async with self._admitting:  # two members may ask at once
            seat = self._seats.get(chartered.name)
            if seat is None:
                await self.admit(chartered)
                seat = await self.take(ask.charter, chartered)
        here = Position(ask.segment, ask.count)
        theirs = here.held_by(seat.known(here, ask.held))
        over = seat.over and (here == seat.here or theirs >= seat.position)
        # Whoever asks for a later epoch than the next one may have granted one: what is being
        # shipped as an earlier broker it wouldn't take in.
        if seat.over and not over and ask.epoch > self.tells(seat) + 1:
            self._reopen(seat)
        async with seat.turn:
            asked = Asked(ask.epoch, incoming.peer, ask.asked_ms, theirs)
            turn = seat.rules.asked(seat.view, asked, now_ms=self._clock.now_ms())
            await self._do(seat, turn)
        (_, said) = turn.sends[0]
        if isinstance(said, Refused):
            return encode(Answer(b"", max(0, said.epoch), said.broker, over=over))
        return encode(Answer(self._grant(seat, said.broker, ask), 0, "", over=over))

    def _grant(self, seat: Seat, broker: str, ask: Ask) -> bytes:
        grant = Grant(
            charter=seat.chartered.name,
            epoch=ask.epoch,
            broker=broker,
            asked_ms=ask.asked_ms,
            until_ms=seat.view.promise.until_ms,
        )
        return sign_grant(self._context.signer.identity, seat.chartered, grant)

    # --- asking ---

    async def _attend(self, seat: Seat) -> None:
        """Do what is due, whenever it is, until the job is over or the charter is."""
        while not (seat.over or self.is_past(seat)):
            changed = seat.changed
            wait_ms = seat.rules.due_ms(seat.view) - self._clock.now_ms()
            with trio.move_on_after(max(0.0, wait_ms / 1000)):
                await changed.wait()
                continue
            try:
                asked = await self.stand(seat)
            except (StoreError, ProtocolError) as exc:  # such as no number for another epoch
                self._context.emit("seat.held_up", job=seat.job, why=str(exc))
                asked = False
            if not (asked and self.acts(seat)):
                # It may not stand, or the others were away: not again at once.
                await trio.sleep(_AGAIN_S)

    def is_past(self, seat: Seat) -> bool:
        """Tell whether its charter has expired for everyone."""
        return self._clock.now_ms() >= self._ends_ms(seat)

    def _ends_ms(self, seat: Seat) -> int:
        return seat.chartered.charter.expires_ms + SKEW_MS_MAX

    async def stand(self, seat: Seat) -> bool:
        """Ask for what is due: an epoch, or more time in one; return when all have answered.

        Return whether anybody was asked.

        Raises:
            StoreError: The disk refused: nobody was asked.
        """
        before = seat.view.candidacy
        async with seat.turn:
            turn = seat.rules.wake(seat.view, now_ms=self._clock.now_ms())
            await self._do(seat, turn)
            asks = seat.view.candidacy
            if asks is None or not turn.sends:
                return False
            if before is None or before.epoch != asks.epoch:
                seat.grants.clear()
            held = seat.held if seat.ended else 0
            mine = Ask(seat.envelope, asks.epoch, asks.asked_ms, *seat.here, held)
            seat.grants[self._context.peer] = self._grant(seat, self._context.peer, mine)
        async with trio.open_nursery() as nursery:
            for member, _ in turn.sends:
                nursery.start_soon(self._ask, seat, member, mine, asks)
        return True

    async def _ask(self, seat: Seat, member: str, mine: Ask, asks: Candidacy) -> None:
        lease_s = seat.chartered.charter.lease_ms / 1000
        timeout_s = min(_ANSWER_S_MAX, lease_s * _ANSWER_SHARE)
        try:
            raw = await self._sessions.request(member, EPOCH, encode(mine), timeout_s=timeout_s)
            answer = read_answer(raw)
            # One that hasn't the end waits for it: whoever says that it is over will tell it.
            knows = seat.ended or self._never_began(seat, member)
            if answer.over and knows and not seat.telling:
                await self.end(seat)
                await self.heard(seat)
                return
            if answer.grant:
                await self._granted(seat, member, answer.grant, asks.epoch)
                return
        except (MeshError, RemoteProtocolError) as exc:
            self._context.emit("seat.unanswered", job=seat.job, peer=member, why=str(exc))
            return
        async with seat.turn:
            no = Refused(answer.epoch, answer.broker, member)
            now_ms = self._clock.now_ms()
            if seat.view.candidacy is None or seat.view.candidacy.epoch != asks.epoch:
                return
            await self._do(seat, seat.rules.refused(seat.view, no, now_ms=now_ms))

    def _never_began(self, seat: Seat, member: str) -> bool:
        """Tell whether a job of which nothing is here is over by its owner's word."""
        return member == seat.chartered.charter.owner and seat.position == Position(0, 0)

    async def _granted(self, seat: Seat, member: str, envelope: bytes, epoch: int) -> None:
        """Take a grant in; who has a majority of them is the broker.

        Raises:
            RemoteProtocolError: It is no grant of what was asked for.
        """
        issuer, grant = read_grant(envelope, seat.chartered)
        if (issuer, grant.epoch, grant.broker) != (member, epoch, self._context.peer):
            raise Malformed("another grant than was asked for")
        async with seat.turn:
            said = Granted(epoch, grant.broker, member, grant.asked_ms)
            await self._do(seat, seat.rules.granted(seat.view, said))
            asks = seat.view.candidacy
            if asks is None or asks.epoch != epoch:
                return
            seat.grants[member] = envelope
            fresh = seat.rules.has_won(seat.view) and seat.newest != (epoch, grant.broker)
            if fresh:
                if seat.ended:  # it writes no segment of its own
                    await self._context.store.commit(self.holding(seat, epoch))
                    self.hold(seat, epoch)
                ordered = [
                    seat.grants[one] for one in seat.chartered.members if one in seat.grants
                ]
                seat.certificate = write_certificate(seat.envelope, ordered)
                seat.newest = (epoch, grant.broker)
        seat.poke()
        if fresh:
            self._context.emit("seat.won", job=seat.job, epoch=epoch)
            await self.won(seat)

    # --- keeping ---

    async def _do(self, seat: Seat, turn: Turn) -> None:
        """Write down what ``turn`` promises, and only then be where it leads."""
        with trio.CancelScope(
            shield=True
        ):  # or what was promised would be known to the disk only
            if turn.writes is not None:
                if turn.writes.broker != self._context.peer:
                    seat.given = max(seat.given, turn.writes.epoch)
                await self._write(seat, turn.writes, over=seat.over)
            seat.view = turn.seat._replace(position=seat.position)
            seat.poke()

    async def _write(self, seat: Seat, promise: Promise, *, over: bool = False) -> None:
        await self._context.store.commit(_row(seat, promise, over=over))

    def holding(self, seat: Seat, epoch: int) -> Put:
        """Return what writes down that the broker of ``epoch`` had the end that is here.

        Committed under :attr:`Seat.turn`, and told by :meth:`hold` then.
        """
        return _row(seat, seat.view.promise, over=seat.over, held=epoch)

    def hold(self, seat: Seat, epoch: int) -> None:
        """Count the end that is here by the epoch of that broker: it is written down."""
        seat.held = max(seat.held, epoch)
        seat.moved(seat.here, ended=seat.ended)


def _row(seat: Seat, promise: Promise, *, over: bool, held: int = 0) -> Put:
    row = SeatRow(
        seat.envelope,
        max(0, promise.epoch),
        promise.broker,
        promise.until_ms,
        over,
        seat.given,
        max(seat.held, held),
        seat.settled or over,
    )
    return Put(SEATS, seat.chartered.name.hex(), encode(row))


async def _nobody(_: Seat) -> None:
    await trio.lowlevel.checkpoint()


async def _admit_none(_: Chartered) -> None:
    await trio.lowlevel.checkpoint()
    raise Malformed("this node is nobody's standby")
