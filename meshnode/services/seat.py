"""One job's seat: what this node, one of the job's members, knows of who its broker is.

What is here is changed by :class:`~meshnode.services.seats.Seats` only, one step at a time,
and what must outlive a restart is in its row before anybody hears of it.
"""

import msgspec
import trio

from meshnode.domain.failover import Mandate, Position, Rules
from meshnode.domain.failover import Seat as View
from protocol.charter import Chartered


class SeatRow(msgspec.Struct, frozen=True):
    """A seat as it outlives a restart.

    Attributes:
        charter: The charter's envelope.
        epoch: The highest that was granted.
        broker: To whom.
        until_ms: By this node's clock, nothing later is granted to another before.
        over: The job has ended: nobody stands any more.
        given: The highest epoch that was granted to another; 0 for none.
        held: The newest epoch whose broker is known to have had the end that is here.
        settled: It was over once, whether this node stands again or not.
    """

    charter: bytes
    epoch: int
    broker: str
    until_ms: int
    over: bool = False
    given: int = 0
    held: int = 0
    settled: bool = False


class Seat:
    """One job's members as this node, one of them, sees them.

    Attributes:
        envelope: The charter's.
        chartered: What it says.
        rules: Of its members.
        view: What is known.
        certificate: Of the newest epoch that was won, as far as it is known.
        newest: Which epoch that is, and its broker.
        over: The job has ended: a majority has its last event, or it never began.
        settled: It was over once, and that is written down: its end may be told, and is never
            taken back, though this node stands again to tell it to a member.
        telling: It is over, and a member hasn't the end: this one asks for an epoch to ship it.
        ended: The last event is here, whoever else has it.
        safe: Events of the job that a majority of the members has, as far as one that isn't
            its broker knows.
        given: The highest epoch that was granted to another, whatever was asked for since.
        held: Where the job has ended, the newest epoch whose broker had this very end.
        here: How much of the journal is here, and
        position: how much that counts for.
        changed: Set, and made anew, whenever something here is another.
    """

    def __init__(self, envelope: bytes, chartered: Chartered, me: str, now_ms: int) -> None:
        charter = chartered.charter
        mandate = Mandate(
            chartered.members, charter.first_epoch, charter.lease_ms, charter.skew_ms
        )
        self.envelope = envelope
        self.chartered = chartered
        self.rules = Rules(mandate)
        self.view: View = self.rules.seat(me, Position(0, 0), now_ms=now_ms)
        self.certificate = b""
        self.newest: tuple[int, str] = (0, "")
        self.over = self.settled = self.telling = self.ended = False
        self.safe = self.given = self.held = 0
        self.changed = trio.Event()
        self.grants: dict[str, bytes] = {}  # of the epoch that is asked for, by member
        self.turn = trio.Lock()  # one step at a time: each is written down before the next
        self.here = self.position = Position(0, 0)

    @property
    def job(self) -> str:
        """Its id."""
        return self.chartered.charter.job

    def poke(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = trio.Event()

    def known(self, here: Position, held: int) -> int:
        """Return the newest epoch known to have had the end that another member has.

        Where that is the end that is here, what is known here counts too.  Or one that knows
        of a later broker would refuse it for ever, having nothing that the other hasn't.

        Args:
            here: How much of the journal the other has.
            held: What it says itself; 0 for none.
        """
        return max(held, self.held) if self.ended and here == self.here else held

    def moved(self, position: Position, *, ended: bool) -> None:
        """Have so much of the journal, with the job's last event or without."""
        self.here = position
        self.position = position.held_by(self.held) if ended else position
        self.ended = ended
        self.view = self.view._replace(position=self.position)
