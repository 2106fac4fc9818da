"""Who does work that is ordered by letter, and what for: known while it is away, too.

A node that has left, or whose record has expired, is no longer in the catalogue; what it
said of itself last is kept here, and on the disk, so that a broker that was down as well
still knows whom it may write to.  Nobody is bound by it: who takes an order looks at what
its work costs by then.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from meshnode.domain.catalogue import has_left
from meshnode.domain.matching import matches
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context
from meshnode.services.mail import ORDERS_FEATURE, ROWS_MAX
from protocol.codec import decode_as, encode
from protocol.errors import RemoteProtocolError
from protocol.limits import LETTER_LIFETIME_MS_MAX
from protocol.records import Capability, Measured, NodeRecord

#: PeerId -> the record that it was heard of by last.
BOOK: Final = "order_book"
#: Nodes in it; who was heard of longest ago is forgotten first.
_PEERS_MAX: Final = 1_000
#: A record that says the same again is written down this often, milliseconds.
_AGAIN_MS: Final = 6 * 3_600_000
#: A disk that refused is tried again after this, seconds.
_RETRY_S: Final = 10.0

_RECORD: Final = msgspec.msgpack.Decoder(NodeRecord)

OnNews = Callable[[Callable[[NodeRecord], None]], None]


class OrderBook:
    """See the module.  :meth:`load` first, and run :meth:`run`."""

    def __init__(self, context: Context, on_news: OnNews) -> None:
        self._context = context
        self._records: dict[str, NodeRecord] = {}  # who was heard of last comes last
        self._due: dict[str, None] = {}
        self._stir = trio.Event()
        on_news(self._heard)

    async def load(self) -> None:
        """Take up what was known before.

        Raises:
            StoreError: It can't be read.
        """
        oldest_ms = self._context.clock.now_ms() - LETTER_LIFETIME_MS_MAX
        known: list[NodeRecord] = []
        for peer, raw in await self._context.store.scan(BOOK, count_max=ROWS_MAX):
            try:
                record = decode_as(raw, _RECORD)
            except RemoteProtocolError as exc:  # of another version
                self._context.emit("order_book.unreadable", peer=peer, why=str(exc))
                continue
            if record.issued_ms >= oldest_ms:
                known.append(record)
        for record in sorted(known, key=lambda record: record.issued_ms):
            self._records.setdefault(record.peer, record)

    async def run(self) -> None:
        """Write down what is heard, until cancelled."""
        while True:
            self._stir = trio.Event()
            due, self._due = self._due, {}
            try:
                if due:
                    await self._context.store.commit(*map(self._row, due))
            except StoreError as exc:
                self._context.emit("order_book.unsaved", why=str(exc))
                self._due = due | self._due
                await trio.sleep(_RETRY_S)
                continue
            await self._stir.wait()

    def _row(self, peer: str) -> Write:
        record = self._records.get(peer)
        return Delete(BOOK, peer) if record is None else Put(BOOK, peer, encode(record))

    def _heard(self, record: NodeRecord) -> None:
        """Note what a node says of itself, unless it is that it goes."""
        if record.peer == self._context.peer or has_left(record):
            return
        before = self._records.pop(record.peer, None)
        if ORDERS_FEATURE in record.features:
            self._records[record.peer] = record
        elif before is None:
            return
        if before is None or _says_more(before, record):
            self._note(record.peer)
        if len(self._records) > _PEERS_MAX:
            oldest = next(iter(self._records))
            del self._records[oldest]
            self._note(oldest)

    def _note(self, peer: str) -> None:
        self._due[peer] = None
        self._stir.set()

    def providers(self, query: str) -> Sequence[tuple[NodeRecord, Capability]]:
        """Return who does ``query`` if it is ordered, and as what, in order of PeerId."""
        return [
            (record, capability)
            for _, record in sorted(self._records.items())
            for capability in record.capabilities
            if matches(query, capability.name)
        ]


def _says_more(before: NodeRecord, record: NodeRecord) -> bool:
    """Tell whether a record is worth a commit: its measures change all the time."""
    return (
        _terms(before) != _terms(record)
        or before.features != record.features
        or record.issued_ms >= before.issued_ms + _AGAIN_MS
    )


def _terms(record: NodeRecord) -> list[Capability]:
    return [msgspec.structs.replace(c, measured=Measured()) for c in record.capabilities]
