"""Jobs with standbys: how they begin, how they pass on, and who writes their journals.

The owner's node signs a charter and is the first broker, once a majority has granted it
the first epoch.  While it is the broker it ships the journal to the other members.  A
member that wins a later epoch goes on from what was shipped to it; a broker that lost
follows what the new one ships, and so does whoever waits for the job there.

Specified in protocol/spec/85-failover.md.
"""

import sys
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from meshnode.domain.facts import Elected, from_event
from meshnode.errors import Busy, MeshError, NoStandbys, NotFound, StoreError, Superseded
from meshnode.services.admission import Admission
from meshnode.services.artifacts import Artifacts
from meshnode.services.bodies import SUCCEED
from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.job_rows import JOBS
from meshnode.services.journals import JobJournal
from meshnode.services.ledger import Ledger
from meshnode.services.rights import Right
from meshnode.services.seat import Seat
from meshnode.services.seats import Seats
from meshnode.services.sessions import Sessions
from meshnode.services.shipping import Shipping, elected_of, epoch_of, ships_as
from meshnode.services.standby_choice import StandbyChoice
from meshnode.services.standbys import Standbys, is_over, position_of
from protocol.charter import Charter, read_charter, sign_charter
from protocol.errors import ProtocolError
from protocol.journal import SegmentExport
from protocol.limits import (
    EPOCH_LEASE_MS_MAX,
    EPOCH_LEASE_MS_MIN,
)
from protocol.messages import Budget, Header

#: A job's lease is this part of a contractor's: who has an award waits for two changes.
_LEASE_SHARE: Final = 0.25
#: Of the lease, so much is for clocks that drift apart or jump.
_SKEW_SHARE: Final = 0.2
#: A charter outlives its job's deadline by this, seconds: for those who come back.
_AFTER_S: Final = 3_600.0
#: The first epoch must be granted within this, seconds.
_BEGIN_S: Final = 15.0
#: Contractors that can't be shown who the new broker is are tried again after this, seconds.
_SHOW_S: Final = (0.0, 1.0, 5.0)
_SHOW_TIMEOUT_S: Final = 5.0
#: How often what nobody needs any more is looked for, seconds.
_FORGET_S: Final = 3_600.0
#: A job that can't be gone on with now is tried again after this, doubled each time, seconds.
_HOLD_S: Final = 1.0
_HOLD_S_MAX: Final = 30.0


class Jobs(Protocol):
    """What the broker does when a job changes hands."""

    async def take_over(
        self, job: str, segments: Sequence[SegmentExport], elected: Elected
    ) -> JobJournal:
        """Go on with a job where ``segments`` end; its journal is this node's from then."""

    async def hand_over(
        self, job: str, segments: Sequence[SegmentExport], *, own: bool
    ) -> None:
        """Follow what another broker wrote; ``own`` jobs are followed in any case."""

    async def hear_end(self, journal: JobJournal) -> None:
        """Take in that the end that is there is the job's."""

    async def known(self, job: str) -> JobJournal | None:
        """Return the journal of a job that is listed here, or None."""


class Successions:
    """See the module.

    Attributes:
        choose: Returns who is to stand by; see :class:`StandbyChoice`.
    """

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        seats: Seats,
        standbys: Standbys,
        artifacts: Artifacts,
        choice: StandbyChoice,
    ) -> None:
        self.choose = choice.choose
        self._context = context
        self._sessions = sessions
        self._seats = seats
        self._standbys = standbys
        self._artifacts = artifacts
        self._jobs: Jobs | None = None
        self._shipping: dict[bytes, tuple[Shipping, trio.CancelScope]] = {}
        self._beginning: dict[bytes, None] = {}  # charters of jobs that aren't there yet
        self._nursery: trio.Nursery | None = None
        seats.won = self._won
        seats.lost = self._lost
        seats.heard = self._heard
        seats.tells = self._tells
        standbys.grown = self._grown

    def work_for(self, jobs: Jobs) -> None:
        """Have ``jobs`` done."""
        self._jobs = jobs

    async def load(self) -> None:
        """Take up what was there before a restart; before anybody asks.

        Raises:
            StoreError: The disk refused.
        """
        await self._seats.load()
        await self._standbys.load()
        for seat in self._seats.all():
            await self._count_own(seat)

    async def _count_own(self, seat: Seat) -> None:
        """Say how much of a job this node wrote itself: it grants nothing to who has less."""
        try:
            known = await self._listed(seat)
        except StoreError as exc:  # one journal that doesn't hold together stops no node
            self._context.emit("job.unreadable", job=seat.job, why=str(exc))
            return
        if known is not None and (here := position_of(known.segments)) >= seat.position:
            seat.moved(here, ended=is_over(known.segments))

    async def run(self) -> None:
        """Elect, ship and take over, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._seats.run)
            for seat in self._seats.all():
                if not seat.over:
                    nursery.start_soon(self._tell_the_end, seat)
            while True:
                await trio.sleep(_FORGET_S)
                try:
                    await self._standbys.forget_old()
                except StoreError as exc:
                    self._context.emit("standby.kept", why=str(exc))

    async def _tell_the_end(self, seat: Seat) -> None:
        """Ship the end of a job that a restart came between; one that goes on is resumed."""
        try:
            known = await self._listed(seat)
        except StoreError as exc:
            self._context.emit("job.held_up", job=seat.job, why=str(exc))
            return
        if known is not None and not known.following and known.state.done is not None:
            self.guard(known)
            self._ship(seat, known)

    # --- beginning ---

    async def begin(
        self, job: str, standbys: Sequence[str], *, budget_mc: int, deadline_s: float
    ) -> Elected:
        """Have a majority of ``job``'s members make this node its first broker.

        Raises:
            NoStandbys: It doesn't; nothing was begun.
            StoreError: The disk refused.
        """
        now_ms = self._context.clock.now_ms()
        lease_ms = round(self._context.config.host.lease_s * 1000 * _LEASE_SHARE)
        lease_ms = min(max(lease_ms, EPOCH_LEASE_MS_MIN), EPOCH_LEASE_MS_MAX)
        charter = Charter(
            job=job,
            owner=self._context.peer,
            standbys=list(standbys),
            budget=Budget(cost_mc=budget_mc),
            first_epoch=1,
            lease_ms=lease_ms,
            skew_ms=round(lease_ms * _SKEW_SHARE),
            issued_ms=now_ms,
            expires_ms=now_ms + round((deadline_s + _AFTER_S) * 1000),
        )
        try:
            envelope = sign_charter(
                self._context.signer.identity, self._context.network, charter
            )
        except ProtocolError as exc:
            raise NoStandbys(f"these standbys can't be: {exc}") from exc
        chartered = read_charter(envelope, network=self._context.network, now_ms=now_ms)
        seat = await self._seats.take(envelope, chartered, first=True)
        self._beginning[seat.chartered.name] = None
        try:
            await self._until_elected(seat)
        except BaseException:
            await self.abandon(job)
            raise
        return elected_of(seat)

    async def _until_elected(self, seat: Seat) -> None:
        with trio.move_on_after(_BEGIN_S):
            while not self._seats.acts(seat):
                await seat.changed.wait()
        if not self._seats.acts(seat):
            granted, chartered = len(seat.grants), seat.chartered
            raise NoStandbys(
                f"{granted} of the job's {len(chartered.members)} members agreed to stand by,"
                f" {chartered.majority} are needed",
                hint="see that the standbys run, can be reached, and stand by for this node",
            )

    async def abandon(self, job: str) -> None:
        """Let go of a job that isn't begun after all; even if cancelled."""
        seat = self._seats.of_job(job)
        if seat is not None and self._beginning.pop(seat.chartered.name, 0) is None:
            with trio.CancelScope(shield=True):
                await self._end(seat)

    # --- acting ---

    def guard(self, journal: JobJournal) -> None:
        """Have the end of a job told once a majority of its members has it.

        And once that is written down: what was told must be so after a restart too, when
        the members can't be asked yet.  What another shipped was written down when it came.
        """
        elected = journal.state.elected
        seat = None if elected is None else self._seats.seat(elected.charter)
        if seat is None:
            return
        self._beginning.pop(seat.chartered.name, None)

        def safe() -> int:
            if seat.settled or self._seats.is_past(seat):
                return sys.maxsize
            return seat.safe if journal.following else 0

        journal.guard = safe

    async def right(self, journal: JobJournal) -> Right | None:
        """Return by what right this node goes on with a job; None if it needs none.

        Raises:
            Superseded: Another broker goes on with it.
        """
        if journal.following:
            raise Superseded(f"another broker goes on with job {journal.job}")
        elected = journal.state.elected
        seat = None if elected is None else self._seats.seat(elected.charter)
        if seat is None:
            return None
        shipping = self._ship(seat, journal)
        return Right(self._seats, seat, shipping)

    def _ship(self, seat: Seat, journal: JobJournal) -> Shipping:
        """Ship a job's journal from now on."""
        name = seat.chartered.name
        if name in self._shipping:
            known, scope = self._shipping[name]
            epoch, _ = ships_as(seat, journal, self._context.peer)
            if known.journal is journal and known.epoch == epoch:
                return known
            scope.cancel()
        shipping = Shipping(
            self._context,
            journal,
            seat,
            seats=self._seats,
            sessions=self._sessions,
            artifacts=self._artifacts,
        )
        scope = trio.CancelScope()
        self._shipping[name] = shipping, scope
        if self._nursery is not None:
            self._nursery.start_soon(self._carry, shipping, scope)
        return shipping

    async def _carry(self, shipping: Shipping, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_safe, shipping)
            with scope:
                await shipping.run()
            nursery.cancel_scope.cancel()
        seat = shipping.seat
        if not scope.cancelled_caught:
            if shipping.journal.done is not None:
                await self._end(seat)
            if (there := self._shipping.get(seat.chartered.name)) and there[1] is scope:
                del self._shipping[seat.chartered.name]

    async def _end_when_safe(self, shipping: Shipping) -> None:
        """Stand no more once a majority has the end; the others are told all the same."""
        while not shipping.is_safe_end():
            await shipping.journal.changed()
        while not await self._end(shipping.seat):  # noqa: ASYNC110 - a disk has no event
            await trio.sleep(_HOLD_S)
        shipping.journal.poke()

    async def _end(self, seat: Seat) -> bool:
        """Stand no more; tell whether the disk had it."""
        try:
            await self._seats.end(seat)
            await self._heard(seat)
        except StoreError as exc:
            self._context.emit("seat.held_up", job=seat.job, why=str(exc))
        return seat.settled

    def _tells(self, seat: Seat) -> int:
        """Return as the broker of which epoch this node ships; 0 if it doesn't."""
        shipping = self._shipping.get(seat.chartered.name)
        return 0 if shipping is None else shipping[0].epoch

    def _stop_shipping(self, seat: Seat) -> None:
        if (shipping := self._shipping.pop(seat.chartered.name, None)) is not None:
            shipping[1].cancel()

    # --- changing hands ---

    async def _won(self, seat: Seat) -> None:
        """Go on with a job."""
        await trio.lowlevel.checkpoint()
        if self._jobs is not None and self._nursery is not None:
            self._nursery.start_soon(self._go_on, seat, seat.newest)

    async def _go_on(self, seat: Seat, newest: tuple[int, str]) -> None:
        """Go on with a job while this node is its broker, again after a mishap of its disk."""
        hold_s = _HOLD_S
        while seat.newest == newest and not (seat.over or self._seats.is_past(seat)):
            try:
                await self._take_over(seat)
            except StoreError as exc:
                self._context.emit("job.held_up", job=seat.job, why=str(exc))
                await trio.sleep(hold_s)
                hold_s = min(2 * hold_s, _HOLD_S_MAX)
            except (MeshError, ProtocolError) as exc:  # another may have what can be read
                self._context.emit("job.not_taken_over", job=seat.job, why=str(exc))
                self._seats.resign(seat)
                return
            else:
                return

    async def _take_over(self, seat: Seat) -> None:
        """Go on with a job, unless that is being done already."""
        assert self._jobs is not None
        known = await self._listed(seat)
        if known is None and await self._is_unborn(seat):
            return
        if known is not None and not known.following:
            if epoch_of(known) == seat.newest[0]:
                return  # after a restart, or a time without a majority
            if known.state.done is None:
                self._stop_shipping(seat)  # what goes on is another journal
                known.retire()
                await self._standbys.keep_own(seat, known.segments)
        segments = await self._standbys.segments(seat.chartered.name)
        if known is not None and known.state.done is not None:
            self._ship(seat, known)
        elif is_over(segments):
            # Its broker has gone, or some of the members: they are told the end.
            await self._grown(seat, segments)  # whoever waits here may have missed it
            journal = JobJournal.of_others(self._context, seat.job, segments)
            self.guard(journal)
            self._ship(seat, journal)
        elif segments:
            journal = await self._jobs.take_over(seat.job, segments, elected_of(seat))
            self._context.emit("job.taken_over", job=seat.job, epoch=seat.newest[0])
            await self._show_all(seat, journal)
        else:
            # The owner went before it shipped anything: it alone can go on.
            self._context.emit("job.never_begun", job=seat.job)
            self._seats.resign(seat)

    async def _listed(self, seat: Seat) -> JobJournal | None:
        """Return the journal of a job that is listed here, if it can be read.

        Raises:
            StoreError: The disk refused.
        """
        try:
            return None if self._jobs is None else await self._jobs.known(seat.job)
        except NotFound:
            return None  # it was about to go on with it when it died
        except ProtocolError as exc:
            self._context.emit("job.unreadable", job=seat.job, why=str(exc))
            return None

    async def _is_unborn(self, seat: Seat) -> bool:
        """Tell whether a job of this node's own isn't there yet; give up one that died so."""
        if seat.chartered.charter.owner != self._context.peer:
            return False
        if await self._context.store.read(JOBS, seat.job) is not None:
            return False
        if seat.chartered.name not in self._beginning:
            await self._seats.end(seat)
        return True

    async def _show_all(self, seat: Seat, journal: JobJournal) -> None:
        """Show all who were awarded anything who their job's broker is now."""
        peers = {
            attempt.peer
            for unit in journal.state.units.values()
            for attempt in unit.attempts
            if attempt.award and attempt.peer != self._context.peer
        }
        async with trio.open_nursery() as nursery:
            for peer in sorted(peers):
                nursery.start_soon(self._show, seat, peer)

    async def _show(self, seat: Seat, peer: str) -> None:
        """Show a contractor who its job's broker is now."""
        for pause_s in _SHOW_S:
            await trio.sleep(pause_s)
            try:
                await self._sessions.request(
                    peer, SUCCEED, seat.certificate, timeout_s=_SHOW_TIMEOUT_S
                )
            except (MeshError, Busy) as exc:
                self._context.emit("succeed.unheard", peer=peer, job=seat.job, why=str(exc))
            else:
                return

    async def proof(self, of: Header) -> bytes:
        """Return the certificate by which ``of`` was signed as a job's broker, or nothing."""
        seat = self._seats.seat(of.charter)
        if seat is not None and seat.newest == (of.epoch, of.issuer):
            return seat.certificate
        known = None if seat is None else await self._listed(seat)
        if known is None:
            return b""
        return next(
            (
                fact.certificate
                for fact in map(from_event, known.events())
                if isinstance(fact, Elected)
                and (fact.epoch, fact.broker) == (of.epoch, of.issuer)
            ),
            b"",
        )

    async def _lost(self, seat: Seat) -> None:
        """Another is the broker: write nothing more."""
        self._stop_shipping(seat)
        known = await self._listed(seat)
        if known is not None and not known.following:
            known.retire()
            self._context.emit("job.passed_on", job=seat.job, broker=seat.newest[1])
            # What it wrote counts until another story takes its place.
            await self._standbys.keep_own(seat, known.segments)

    async def _grown(self, seat: Seat, segments: Sequence[SegmentExport]) -> None:
        """Follow what the job's broker ships."""
        if self._jobs is None:
            return
        own = seat.chartered.charter.owner == self._context.peer
        await self._jobs.hand_over(seat.job, segments, own=own)
        if seat.ended and seat.safe >= seat.position.events:
            await self._seats.end(seat)

    async def _heard(self, seat: Seat) -> None:
        """Tell whoever waits here for a job that its end is what it was said to be."""
        known = await self._listed(seat)
        if self._jobs is not None and known is not None and known.following:
            await self._jobs.hear_end(known)
        elif known is not None:
            known.poke()


def open_successions(
    context: Context,
    *,
    sessions: Sessions,
    door: Admission,
    directory: DirectoryService,
    artifacts: Artifacts,
    ledger: Ledger,
) -> Successions:
    """Return it with what it works with, listening."""
    seats = Seats(context, sessions=sessions)
    standbys = Standbys(
        context,
        sessions=sessions,
        seats=seats,
        door=door,
        artifacts=artifacts,
        ledger=ledger,
    )
    return Successions(
        context,
        sessions=sessions,
        seats=seats,
        standbys=standbys,
        artifacts=artifacts,
        choice=StandbyChoice(context, sessions=sessions, directory=directory),
    )
