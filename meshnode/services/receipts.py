"""Receipts at the broker: kept with the charge, and delivered until the contractor has them.

Each is sent as soon as its charge is on the disk, from memory.  The disk's list of what
is due is for afterwards: a restart, a peer that was away.  What was acknowledged is
taken off it now and then; sent once more, an acceptance is answered the same.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from meshnode.errors import Busy, StoreError, StreamLost, Unreachable
from meshnode.ports import Delete, Put, Write
from meshnode.services.bodies import ACCEPTANCE, RECEIPT_ROW, RECEIPTS, SUCCEED, ReceiptRow
from meshnode.services.context import Context
from meshnode.services.sessions import RequestFailed, RequestTimeout, Sessions
from meshnode.services.testimony_rows import TESTIMONY, testimony_key
from protocol.codec import decode_as, encode
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Header, read_message
from protocol.receipts import Acceptance

#: Acceptances that the contractor hasn't acknowledged: award hash -> PeerId.
DUE: Final = "acceptance_due"
#: Which receipts are how old: ``Unix time in ms/award hash`` -> by which row it is told others.
RECEIPT_TIMES: Final = "receipt_time"

#: Rows that are looked at in one round, requests that are open at once, and acknowledged
#: ones that may wait to be noted.
_DUE_MAX: Final = 64
_SENDING_MAX: Final = 256
_SETTLED_MAX: Final = 256
_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 5.0


def receipt_writes(award: bytes, row: ReceiptRow, *, now_ms: int) -> list[Write]:
    """Return what keeps the receipt of the award of that hash, until it is past its time."""
    key = award.hex()
    told = testimony_key(key, row, now_ms=now_ms)
    writes: list[Write] = [
        Put(RECEIPTS, key, encode(row)),
        receipt_time(key, now_ms=now_ms, told=told),
    ]
    return [*writes, Put(TESTIMONY, told, b"")] if told else writes


def receipt_time(key: str, *, now_ms: int, told: str = "") -> Put:
    """Return what keeps that the receipt of that award, in hex, is of now.

    Args:
        key: Hash of the award, in hex.
        now_ms: Unix time.
        told: Key of its row in :data:`~meshnode.services.testimony_rows.TESTIMONY`, or empty.
    """
    return Put(RECEIPT_TIMES, f"{now_ms:015}/{key}", told.encode())


#: Takes an award's hash, in hex, its contractor and the acceptance; tells whether the
#: acceptance is on its way, and no longer due.
ByLetter = Callable[[str, str, bytes], Awaitable[bool]]


async def _never(_: str, __: str, ___: bytes) -> bool:
    await trio.lowlevel.checkpoint()
    return False


class Receipts:
    """Delivers the broker's halves of receipts.

    Attributes:
        proof: Returns the certificate by which this node was the broker that signed a
            header, or nothing.
        acknowledged: Told of each contractor that has taken one in.
    """

    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions
        self._sending: set[str] = set()
        self._settled: dict[str, None] = {}  # acknowledged, and due on the disk still
        self._more = False  # the disk had more that was due than one round looks at
        self._look = trio.Event()
        self._stir = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.proof: Callable[[Header], Awaitable[bytes]] = _no_proof
        self.acknowledged: Callable[[str], None] = _unheard
        self._by_letter: ByLetter = _never

    def send_by(self, letter: ByLetter) -> None:
        """Have ``letter`` take what can't be delivered now, if it may go so."""
        self._by_letter = letter

    def deliver(self, award: bytes, peer: str, acceptance: bytes) -> None:
        """Deliver an acceptance that was just written down; later, if it can't be now."""
        self._stir.set()
        if self._nursery is not None and len(self._sending) < _SENDING_MAX:
            self._start(award.hex(), peer, acceptance)
        else:
            self._look.set()

    async def run(self) -> None:
        """Deliver acceptances until each is acknowledged, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                self._look, self._stir = trio.Event(), trio.Event()
                due = True
                try:
                    await self._forget_settled()
                    due = await self._deliver_due()
                except StoreError as exc:
                    # What is due stays due.
                    self._context.emit("acceptance.held_up", why=str(exc))
                if not (due or self._sending or self._settled):
                    await self._stir.wait()
                with trio.move_on_after(_PAUSE_S):
                    await self._look.wait()

    async def _forget_settled(self) -> None:
        """Note on the disk what was acknowledged: many at once, since nothing waits for it."""
        settled = list(self._settled)
        if settled:
            await self._context.store.commit(*(Delete(DUE, key) for key in settled))
        for key in settled:
            del self._settled[key]

    async def _deliver_due(self) -> bool:
        """Deliver what the disk says is due: after a restart, or once a peer is back.

        Return whether anything was.
        """
        rows = await self._context.store.scan(DUE, count_max=_DUE_MAX)
        self._more = len(rows) == _DUE_MAX
        for key, peer in rows:
            if key in self._sending or key in self._settled:
                continue
            raw = await self._context.store.read(RECEIPTS, key)
            if raw is None:
                continue
            if acceptance := self._readable(key, peer.decode(), raw):
                self._start(key, peer.decode(), acceptance)
            else:
                await self._context.store.commit(Delete(DUE, key))
        return bool(rows)

    def _readable(self, key: str, peer: str, raw: bytes) -> bytes:
        """Return the acceptance in a row, or nothing if nobody would take it any more."""
        try:
            row = decode_as(raw, RECEIPT_ROW)
            acceptance = read_message(row.acceptance, Acceptance, network=self._context.network)
        except RemoteProtocolError as exc:  # such as of another mesh: nobody here would take it
            self._context.emit("acceptance.unreadable", peer=peer, award=key, why=str(exc))
            return b""
        if self._context.clock.now_ms() >= acceptance.h.expires_ms:
            # Kept for ever, it would stand in others' way.
            self._context.emit("acceptance.expired", peer=peer, award=key)
            return b""
        return row.acceptance

    def _start(self, key: str, peer: str, acceptance: bytes) -> None:
        if self._nursery is not None:
            self._sending.add(key)
            self._nursery.start_soon(self._send, key, peer, acceptance)

    async def _send(self, key: str, peer: str, acceptance: bytes) -> None:
        try:
            await self._tell(peer, acceptance)
        except (Unreachable, StreamLost, RequestTimeout, Busy) as exc:
            self._context.emit("acceptance.undelivered", peer=peer, why=str(exc))
            await self._by_letter(key, peer, acceptance)
            return
        except RequestFailed as exc:
            self._context.emit("acceptance.refused", peer=peer, why=str(exc))
            if exc.failure == ErrorCode.EXPIRED:
                # Signed in the future or past by the clock there, and not by the one here:
                # one of them was set, and either it is set again or it expires here too.
                return
        else:
            self._context.emit("acceptance.acknowledged", peer=peer, award=key)
            self.acknowledged(peer)
        finally:
            self._sending.discard(key)
        self._settled[key] = None
        if len(self._settled) >= _SETTLED_MAX or (self._more and not self._sending):
            self._look.set()

    async def _tell(self, peer: str, acceptance: bytes) -> None:
        """Send an acceptance; to one that never heard of its broker with what proves it."""
        try:
            await self._sessions.request(peer, ACCEPTANCE, acceptance, timeout_s=_TIMEOUT_S)
        except RequestFailed as exc:
            if exc.failure != ErrorCode.STALE:
                raise
            said = read_message(acceptance, Acceptance, network=self._context.network)
            proof = await self.proof(said.h)
            if not proof:
                raise
            try:
                await self._sessions.request(peer, SUCCEED, proof, timeout_s=_TIMEOUT_S)
            except RequestFailed as late:  # it knows a later one, and counts this one, too
                self._context.emit("succeed.unheard", peer=peer, job=said.h.job, why=str(late))
            await self._sessions.request(peer, ACCEPTANCE, acceptance, timeout_s=_TIMEOUT_S)

    async def row(self, award: bytes) -> ReceiptRow | None:
        """Return the finished contract of the award of that hash, if this node keeps it."""
        raw = await self._context.store.read(RECEIPTS, award.hex())
        return None if raw is None else decode_as(raw, RECEIPT_ROW)

    async def rows(self) -> list[ReceiptRow]:
        """Return every finished contract that this node keeps, as broker or contractor."""
        found = await self._context.store.scan(RECEIPTS)
        return [decode_as(raw, RECEIPT_ROW) for _, raw in found]


def _unheard(_: str) -> None:
    pass


async def _no_proof(_: Header) -> bytes:
    await trio.lowlevel.checkpoint()
    return b""
