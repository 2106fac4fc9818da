"""Failover, decided: who grants whom an epoch, who may act as broker and until when.

One :class:`Seat` is one member's view of one job; :class:`Rules` are pure functions over
it.  They are told the time and what was heard, and answer with a :class:`Turn`: the seat
after it, what must be written down *first*, and what is sent then.  Only the promise
outlives a restart, so nothing but the promise may keep an epoch from having two brokers.

A lease runs by its broker's own clock from the time of asking, and by the granting
member's own clock from the time of granting, which is later.  So no time of one clock is
ever compared with another's; the skew allowance is for clocks that drift or jump while a
lease runs.  Nothing that must never happen depends on it: that is what the majority and
the contractors' :func:`admits` are for.

Seats are tuples, so that a test can walk through all that three of them can come to.

Specified in protocol/spec/85-failover.md.
"""

from typing import NamedTuple

#: A broker asks for its lease again when this part of it has gone: two may be lost.
_RENEWALS = 3
#: Standbys stand one after the other, a lease's part apart, so that they rarely tie.
_TURNS = 4


class Mandate(NamedTuple):
    """What a job's charter fixes.

    Attributes:
        members: The owner, then the standbys in their order.
        first_epoch: Nothing is granted below it.
        lease_ms: How long a grant holds.
        skew_ms: By how much a broker stops before that.
    """

    members: tuple[str, ...]
    first_epoch: int
    lease_ms: int
    skew_ms: int

    @property
    def majority(self) -> int:
        """Members that it takes to win an epoch."""
        return len(self.members) // 2 + 1


class Position(NamedTuple):
    """How much of the job's journal a member has; more compares as greater.

    Attributes:
        segment: Epoch of the newest segment, 0 for none.
        events: In all segments.
    """

    segment: int
    events: int

    def held_by(self, epoch: int) -> "Position":
        """Return it as it counts where the job has ended, as the broker of ``epoch`` knew it.

        Such a broker writes no segment.  What a majority has from it would count for less
        than the segment of an earlier broker that nobody else ever had.
        """
        return self._replace(segment=max(self.segment, epoch))


class Promise(NamedTuple):
    """What a member has granted last; it is written down before anyone hears of it.

    Attributes:
        epoch: The highest that it granted.
        broker: To whom; empty when nothing was granted yet.
        until_ms: By its own clock; until then it grants no later one to another.
    """

    epoch: int
    broker: str
    until_ms: int


class Candidacy(NamedTuple):
    """An epoch that a member asks for, or has won; a restart forgets it.

    Attributes:
        epoch: Which one.
        asked_ms: When it asked last, by its own clock.
        grants: (member, when the grant was asked for), sorted, its own among them.
    """

    epoch: int
    asked_ms: int
    grants: tuple[tuple[str, int], ...]


class Seat(NamedTuple):
    """What one member knows of one job.

    Attributes:
        me: PeerId.
        promise: Durable.
        position: Of its journal.
        candidacy: What it asks for, or None.
        seen_epoch: The highest epoch that it heard another had granted, or won.
        quiet_until_ms: It doesn't stand before then.
    """

    me: str
    promise: Promise
    position: Position
    candidacy: Candidacy | None = None
    seen_epoch: int = 0
    quiet_until_ms: int = 0


class Asked(NamedTuple):
    """``broker`` asks for an epoch, or for more time in it."""

    epoch: int
    broker: str
    asked_ms: int
    position: Position


class Granted(NamedTuple):
    """``member`` grants it; ``asked_ms`` is given back as it came."""

    epoch: int
    broker: str
    member: str
    asked_ms: int


class Refused(NamedTuple):
    """``member`` doesn't, and has granted ``epoch`` to ``broker`` last."""

    epoch: int
    broker: str
    member: str


Message = Asked | Granted | Refused


class Turn(NamedTuple):
    """What comes of a step.

    Attributes:
        seat: The member after it.
        writes: To be durable before anything is sent, or None.
        sends: (to, message).
    """

    seat: Seat
    writes: Promise | None = None
    sends: tuple[tuple[str, Message], ...] = ()


class Rules:
    """The rules of one job's members; see the module."""

    def __init__(self, mandate: Mandate) -> None:
        self.mandate = mandate

    def seat(self, me: str, position: Position, *, now_ms: int) -> Seat:
        """Return the seat of a member that has heard of the job just now."""
        before = Promise(self.mandate.first_epoch - 1, "", 0)
        return Seat(me, before, position, quiet_until_ms=now_ms + self.mandate.lease_ms)

    def restarted(self, seat: Seat, *, now_ms: int) -> Seat:
        """Return what is left of ``seat`` after a restart, told the promise it wrote."""
        quiet_ms = now_ms + self.mandate.lease_ms
        if seat.promise.broker == seat.me:
            quiet_ms = now_ms  # the others may still hold its lease
        return Seat(seat.me, seat.promise, seat.position, quiet_until_ms=quiet_ms)

    # --- acting ---

    def has_won(self, seat: Seat) -> bool:
        """Tell whether a majority has granted what ``seat`` asks for: its certificate."""
        asks = seat.candidacy
        return asks is not None and len(asks.grants) >= self.mandate.majority

    def acts_until_ms(self, seat: Seat) -> int:
        """Return until when ``seat`` may act as the broker, by its own clock; 0 if not at all.

        A majority must hold: what counts is the oldest of the newest so many leases.
        """
        if seat.candidacy is None or not self.has_won(seat):
            return 0
        asked = sorted((at_ms for _, at_ms in seat.candidacy.grants), reverse=True)
        lease_ms = self.mandate.lease_ms - self.mandate.skew_ms
        return asked[self.mandate.majority - 1] + lease_ms

    def may_act(self, seat: Seat, *, now_ms: int) -> bool:
        """Tell whether ``seat`` may award, charge or write to the journal now."""
        return now_ms < self.acts_until_ms(seat)

    # --- granting ---

    def may_grant(self, seat: Seat, asked: Asked, *, now_ms: int) -> bool:
        """Tell whether ``seat`` may grant what is asked for."""
        promise = seat.promise
        if asked.broker not in self.mandate.members:
            return False
        if (asked.epoch, asked.broker) == (promise.epoch, promise.broker):
            return True  # more time for the same
        return (
            asked.epoch > promise.epoch
            and asked.position >= seat.position
            and self._is_free(seat, asked.broker, now_ms)
        )

    def _is_free(self, seat: Seat, broker: str, now_ms: int) -> bool:
        promise = seat.promise
        if promise.broker == seat.me and broker != seat.me:
            # Its own asking binds it only while something is done in its name.
            return not self.may_act(seat, now_ms=now_ms)
        return promise.broker in {"", broker} or now_ms >= promise.until_ms

    def asked(self, seat: Seat, asked: Asked, *, now_ms: int) -> Turn:
        """Answer another member that asks for an epoch."""
        promise = seat.promise
        if not self.may_grant(seat, asked, now_ms=now_ms):
            no = Refused(promise.epoch, promise.broker, seat.me)
            return Turn(seat, sends=((asked.broker, no),))
        until_ms = now_ms + self.mandate.lease_ms
        if asked.epoch == promise.epoch:
            until_ms = max(until_ms, promise.until_ms)
        granted = Promise(asked.epoch, asked.broker, until_ms)
        # It gives up what it asked for itself: a late grant must not make it act beside
        # the one that it has just helped.
        after = seat._replace(promise=granted, candidacy=None)
        yes = Granted(asked.epoch, asked.broker, seat.me, asked.asked_ms)
        return Turn(after, granted, ((asked.broker, yes),))

    # --- asking ---

    def stand(self, seat: Seat, *, now_ms: int) -> Turn:
        """Ask everyone for an epoch, or for more time in the one that is held.

        Whether it may is decided as for any other; nothing happens if not.
        """
        epoch = self._next_epoch(seat, now_ms)
        mine = Asked(epoch, seat.me, now_ms, seat.position)
        if not self.may_grant(seat, mine, now_ms=now_ms):
            return Turn(seat)
        promise = Promise(epoch, seat.me, now_ms + self.mandate.lease_ms)
        grants: tuple[tuple[str, int], ...] = ()
        if seat.candidacy is not None and seat.candidacy.epoch == epoch:
            grants = seat.candidacy.grants
        asks = Candidacy(epoch, now_ms, _with(grants, seat.me, now_ms))
        others = (member for member in self.mandate.members if member != seat.me)
        sends = tuple((member, mine) for member in others)
        return Turn(seat._replace(promise=promise, candidacy=asks), promise, sends)

    def _next_epoch(self, seat: Seat, now_ms: int) -> int:
        """Return the epoch to ask for: its own again, unless others have gone beyond it."""
        promise = seat.promise
        own = promise.broker == seat.me
        if own and (seat.seen_epoch < promise.epoch or self.may_act(seat, now_ms=now_ms)):
            return promise.epoch
        return max(promise.epoch, seat.seen_epoch) + 1

    def granted(self, seat: Seat, granted: Granted) -> Turn:
        """Take a grant in."""
        asks = seat.candidacy
        if (
            asks is None
            or (granted.epoch, granted.broker) != (asks.epoch, seat.me)
            or granted.member not in self.mandate.members
            or granted.asked_ms > asks.asked_ms  # nobody asked then
        ):
            return Turn(seat)
        grants = _with(asks.grants, granted.member, granted.asked_ms)
        return Turn(seat._replace(candidacy=asks._replace(grants=grants)))

    def refused(self, seat: Seat, refused: Refused, *, now_ms: int) -> Turn:
        """Take a refusal in: who holds a lease all the same goes on, others wait."""
        asks = seat.candidacy
        if asks is None or self.may_act(seat, now_ms=now_ms):
            return Turn(seat)
        seen = seat.seen_epoch
        if refused.broker != seat.me and refused.epoch >= asks.epoch:
            seen = max(seen, refused.epoch)
        quiet_ms = now_ms + self._patience_ms(seat)
        return Turn(seat._replace(candidacy=None, seen_epoch=seen, quiet_until_ms=quiet_ms))

    def shown(self, seat: Seat, epoch: int, broker: str, *, now_ms: int) -> Turn:
        """Take in that ``broker`` has proved to have won ``epoch``: lower ones stop."""
        asks = seat.candidacy
        if broker == seat.me or epoch < max(seat.promise.epoch, seat.seen_epoch):
            return Turn(seat)
        if asks is not None and asks.epoch <= epoch:
            asks = None
        quiet_ms = now_ms + self._patience_ms(seat)
        return Turn(seat._replace(candidacy=asks, seen_epoch=epoch, quiet_until_ms=quiet_ms))

    # --- time ---

    def due_ms(self, seat: Seat) -> int:
        """Return when :meth:`wake` has something to do next, by the member's own clock."""
        if seat.candidacy is not None:
            return seat.candidacy.asked_ms + self.mandate.lease_ms // _RENEWALS
        if seat.promise.broker in {"", seat.me}:
            return seat.quiet_until_ms
        turn_ms = self._patience_ms(seat) - self.mandate.lease_ms
        return max(seat.promise.until_ms + turn_ms, seat.quiet_until_ms)

    def wake(self, seat: Seat, *, now_ms: int) -> Turn:
        """Do what is due: ask for more time, or stand where nobody holds a lease."""
        return self.stand(seat, now_ms=now_ms) if now_ms >= self.due_ms(seat) else Turn(seat)

    def _patience_ms(self, seat: Seat) -> int:
        """Return a lease and this member's turn: the owner first, then each standby."""
        lease_ms = self.mandate.lease_ms
        return lease_ms + self.mandate.members.index(seat.me) * lease_ms // _TURNS


def _with(
    grants: tuple[tuple[str, int], ...], member: str, asked_ms: int
) -> tuple[tuple[str, int], ...]:
    """Return ``grants`` with a member's newest."""
    newest = dict(grants)
    newest[member] = max(asked_ms, newest.get(member, asked_ms))
    return tuple(sorted(newest.items()))


# --- contractors ---


class Seen(NamedTuple):
    """The highest epoch of a job that a contractor was shown, and whose it is.

    Attributes:
        epoch: Which one.
        broker: PeerId.
        charter: The charter's name.
    """

    epoch: int
    broker: str
    charter: bytes


def follows(seen: Seen | None, shown: Seen) -> bool:
    """Tell whether a certificate of ``shown`` may be kept where ``seen`` was: never back."""
    return seen is None or shown.epoch > seen.epoch or shown == seen


def admits(seen: Seen | None, award: Seen) -> bool:
    """Tell whether an award of that epoch, broker and charter is taken.

    A higher epoch is not enough: only a certificate raises what was seen.
    """
    return award == seen
