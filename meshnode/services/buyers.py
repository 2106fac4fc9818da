"""What this node has delivered and not been paid for, and how buyers stood by it.

It delivers first.  So each result that costs something is out at its buyer from the commit of
the result to that of the acceptance, and what comes of it is learned in the same commit: it
was accepted, rejected, or nobody signed anything in time
(:mod:`meshnode.domain.trust.buyers`).  The store adds the sums up, as it does balances, so
they are the same after a restart however many results there were: five rows for each buyer.

What is out counts twice, on purpose.  The ledger holds it against what a peer may *owe*
(``ledger.owed_max_mc``), which an honest peer reaches too; here it is held against what may be
*lost* to one that signs nothing.  Once it is lost for good it is owed by nobody, but stays
lost.

Work that costs nothing, and a node's business with itself, teach nothing: who gets a good
name for a thousand free calls would have it for nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import trio

from meshnode.domain.admission import No
from meshnode.domain.trust.buyers import (
    UNSETTLED,
    Buyer,
    BuyerEvidence,
    BuyerKind,
    effects,
)
from meshnode.errors import StoreError
from meshnode.ports import Add, Delete, Put, Write, read_sum
from meshnode.services.context import Context
from protocol.messages import Award
from protocol.receipts import Acceptance

#: Hash of an award that was done and isn't accepted yet -> ``mc/PeerId/Unix time in ms`` by
#: when it should be, or ``refused`` instead of that once it is over.
UNACCEPTED: Final = "unaccepted"
#: ``PeerId/sum`` -> that sum of a :class:`~meshnode.domain.trust.buyers.Buyer`.
BUYERS: Final = "buyer"

#: So long after the award's deadline a receipt is late: acceptances are sent at once, and
#: again until they are acknowledged, so an hour covers a broker that was restarted.
GRACE_MS: Final = 3_600_000
#: The same for what was ordered by letter, whose broker is often away.
LETTER_GRACE_MS: Final = 24 * 3_600_000
#: No job lasts longer, whatever deadline a broker names.
_JOB_MS_MAX: Final = 7 * 24 * 3_600_000
#: Sums that are kept apart; what is out is told by the rows of :data:`UNACCEPTED`.
_KEPT: Final = frozenset({"settled_mc", "lost_mc", "accepted", "supported", "unsupported"})
_REFUSED: Final = "refused"
#: An award waits so long for receipts that would make room for it, seconds.
_SETTLING_S: Final = 2.0
_ROWS_MAX: Final = 10_000_000
#: Notes from which older tables buyers were taken over.
_TAKEN_OVER: Final = "buyer_taken_over"
_LEDGER: Final = "ledger"
#: Buyers of an older version that are written down in one commit.
_TAKEN_OVER_MAX: Final = 1_000


class _Out(NamedTuple):
    """A result that is out.

    Attributes:
        broker: PeerId.
        price_mc: Its price.
        due_ms: By when it should be accepted, Unix time; 0 where that was never written.
        refused: It wasn't.
    """

    broker: str
    price_mc: int
    due_ms: int = 0
    refused: bool = False

    @property
    def row(self) -> bytes:
        due = _REFUSED if self.refused else self.due_ms
        return f"{self.price_mc}/{self.broker}/{due}".encode()


class Purchaser(NamedTuple):
    """Who asks for work, as one that has to pay for it afterwards.

    Attributes:
        keys: PeerIds under which it was met.
        first_mc: What it may have out if nothing is known of it; 0 for no cap.
    """

    keys: Sequence[str]
    first_mc: int


def due_ms(award: Award) -> int:
    """Return by when the result of ``award`` should be accepted, Unix time."""
    deadline_ms = min(award.h.deadline_ms, award.h.issued_ms + _JOB_MS_MAX)
    return deadline_ms + (GRACE_MS if award.lease_ms else LETTER_GRACE_MS)


def lesson_of(acceptance: Acceptance) -> BuyerKind:
    """Return what a broker's half of a receipt teaches of it.

    It has no room for what would prove a rejection, so none is supported.  Nor does looking
    again help: this node held its output against the agent's schema before it sent it, and
    would recompute what it computed.
    """
    return "unsupported" if acceptance.verdict == "rejected" else "accepted"


class Buyers:
    """See the module.  :meth:`load` first."""

    def __init__(self, context: Context) -> None:
        self._own = context.peer
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._out: dict[str, _Out] = {}  # by the award's hash, in hex
        self._waiting: Counter[str] = Counter()  # PeerId -> mc of those
        self._buyers: dict[str, Buyer] = {}
        self._news = trio.Event()

    async def load(self, earned_mc: Mapping[str, int]) -> None:
        """Take up what the rows say.

        Versions before these rows kept the ledger alone.  Whoever paid or owed for work then is
        no stranger now: its receipts are what it settled, written down so that they count once.

        Args:
            earned_mc: By peer, what this node earned from it, by the ledger.

        Raises:
            StoreError: They can't be read, or what older versions left can't be written.
        """
        self._out, self._waiting, self._buyers = {}, Counter(), {}
        for key, raw in await self._store.scan(BUYERS, count_max=_ROWS_MAX):
            peer, _, name = key.partition("/")
            if name not in _KEPT:
                raise StoreError(f"{BUYERS}/{key!r:.200} is no sum of a buyer")
            self._of(peer).add({name: read_sum(raw)})
        await self._take_over(earned_mc)
        for buyer in self._buyers.values():
            buyer.open_mc = buyer.lost_mc
        for award, raw in await self._store.scan(UNACCEPTED, count_max=_ROWS_MAX):
            self._keep(award, _read(award, raw))

    async def _take_over(self, earned_mc: Mapping[str, int]) -> None:
        """Begin with what the ledger says of whom nothing is kept here, once for a store.

        Later it would be wrong: what an heir paid for a job's owner is earned from that one,
        too, and the owner has signed nothing for it.
        """
        if await self._store.read(_TAKEN_OVER, _LEDGER) is not None:
            return
        sums = {
            peer: mc for peer, mc in earned_mc.items() if mc > 0 and peer not in self._buyers
        }
        adds = [Add(BUYERS, f"{peer}/settled_mc", mc) for peer, mc in sorted(sums.items())]
        for begin in range(0, len(adds), _TAKEN_OVER_MAX):  # who has a row is passed over
            await self._store.commit(*adds[begin : begin + _TAKEN_OVER_MAX])
        await self._store.commit(Put(_TAKEN_OVER, _LEDGER, b""))
        for peer, mc in sums.items():
            self._of(peer).settled_mc = mc

    # --- learning ---

    def delivery(self, award: bytes, broker: str, price_mc: int, due: int) -> list[Write]:
        """Return what notes that an award was done, to be committed with its result.

        Args:
            award: Its hash.
            broker: Whose it is.
            price_mc: Of the result.
            due: See :func:`due_ms`.
        """
        if not price_mc or broker == self._own:
            return []
        return [Put(UNACCEPTED, award.hex(), _Out(broker, price_mc, due).row)]

    def delivered(self, award: bytes, broker: str, price_mc: int, due: int) -> None:
        """Take in a :meth:`delivery` that was committed."""
        if price_mc and broker != self._own:
            self._keep(award.hex(), _Out(broker, price_mc, due))

    def ending(self, award: str, kind: BuyerKind) -> list[Write]:
        """Return what notes how the delivery of an award, in hex, ended.

        To be committed with what ended it; nothing if it was none, or ended before.
        """
        out = self._out.get(award)
        if out is None:
            return []
        return [Delete(UNACCEPTED, award), *_adds(out.broker, _lessons(out, kind))]

    def ended(self, award: str, kind: BuyerKind) -> None:
        """Take in an :meth:`ending` that was committed."""
        out = self._out.pop(award, None)
        if out is None:
            return
        self._waiting[out.broker] -= out.price_mc
        if not self._waiting[out.broker]:
            del self._waiting[out.broker]
        self._learn(out.broker, _lessons(out, kind))

    def overdue(self) -> list[str]:
        """Return the awards, in hex, for which a receipt should have come by now."""
        now_ms = self._clock.now_ms()
        return [
            award
            for award, out in self._out.items()
            if not out.refused and 0 < out.due_ms <= now_ms
        ]

    async def refuse(self, award: str) -> None:
        """Note that nothing was signed in time for an award; it may still be, and late.

        Nothing else may end it meanwhile.

        Raises:
            StoreError: It can't be written down: nothing changed.
        """
        out = self._out.get(award)
        if out is None or out.refused:
            return
        refused, lessons = out._replace(refused=True), _lessons(out, "refused")
        with trio.CancelScope(shield=True):
            await self._store.commit(
                Put(UNACCEPTED, award, refused.row), *_adds(out.broker, lessons)
            )
        self._out[award] = refused
        self._learn(out.broker, lessons)
        self._emit("contract.unpaid", peer=out.broker, award=award, price_mc=out.price_mc)

    # --- telling ---

    def waiting_mc(self, peer: str) -> int:
        """Return what ``peer`` would owe if it accepted all that it was delivered."""
        return self._waiting[peer]

    def known(self) -> Sequence[str]:
        """Return everyone that anything was ever learned of."""
        return sorted(self._buyers)

    def buyer(self, peers: Iterable[str]) -> Buyer:
        """Return what is known of a buyer, under all of its keys."""
        return Buyer.together(self._buyers[peer] for peer in peers if peer in self._buyers)

    async def news(self) -> None:
        """Wait until something more is learned of somebody."""
        await self._news.wait()

    # --- pieces ---

    def _of(self, peer: str) -> Buyer:
        return self._buyers.setdefault(peer, Buyer())

    def _keep(self, award: str, out: _Out) -> None:
        self._out[award] = out
        self._waiting[out.broker] += out.price_mc
        if not out.refused:  # else it is among what is lost
            self._learn(out.broker, [BuyerEvidence("delivered", out.price_mc)])

    def _learn(self, peer: str, events: Iterable[BuyerEvidence]) -> None:
        for event in events:
            self._of(peer).learn(event)
        self._news.set()
        self._news = trio.Event()


class Patience:
    """Awards that wait a moment at the door, for receipts that are on their way.

    A broker sends the next award when it has a result, and the receipt beside it: of the two
    the award may come first, and it would be refused for what the receipt changes.
    """

    def __init__(self, buyers: Buyers, *, peer_max: int) -> None:
        """Wait for ``buyers`` with so many awards of one peer at most."""
        self._buyers = buyers
        self._peer_max = peer_max
        self._held: Counter[str] = Counter()

    async def until_settled(self, peer: str, look: Callable[[], No | None]) -> No | None:
        """Return what ``look`` says once it is no longer that a receipt is awaited.

        After a moment it is returned whatever it says, and at once if too many wait.
        """
        no = look()
        if not _passes(no) or self._held[peer] >= self._peer_max:
            return no
        self._held[peer] += 1
        try:
            with trio.move_on_after(_SETTLING_S):
                while _passes(no):
                    await self._buyers.news()
                    no = look()
        finally:
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]
        return no


def _passes(no: No | None) -> bool:
    return no is not None and no.reason == UNSETTLED and no.retry_ms > 0


def _lessons(out: _Out, kind: BuyerKind) -> list[BuyerEvidence]:
    """Return what is learned of a buyer when that comes of what is out."""
    if not out.refused:
        return [BuyerEvidence(kind, out.price_mc)]
    if kind == "refused":  # it was learned in its time
        return []
    return [BuyerEvidence("late", out.price_mc), BuyerEvidence(kind, out.price_mc)]


def _adds(peer: str, events: Iterable[BuyerEvidence]) -> list[Add]:
    sums: Counter[str] = Counter()
    for event in events:
        sums.update(effects(event))
    return [
        Add(BUYERS, f"{peer}/{name}", amount)
        for name, amount in sums.items()
        if amount and name in _KEPT
    ]


def _read(award: str, raw: bytes) -> _Out:
    """Return the result in a row; those of older versions have no time."""
    try:
        price_mc, broker, *when = raw.decode().split("/")
        due = when[0] if when else "0"
        if due == _REFUSED:
            return _Out(broker, int(price_mc), refused=True)
        return _Out(broker, int(price_mc), int(due))
    except ValueError as exc:
        raise StoreError(f"{UNACCEPTED}/{award!r:.200} is no delivery: {raw!r:.80}") from exc
