"""Receipts at the broker: kept with the charge, and delivered until the contractor has them."""

from typing import Final

import trio

from meshnode.errors import Busy, StoreError, StreamLost, Unreachable
from meshnode.ports import Delete
from meshnode.services.bodies import ACCEPTANCE, RECEIPT_ROW, RECEIPTS, ReceiptRow
from meshnode.services.context import Context
from meshnode.services.sessions import RequestFailed, RequestTimeout, Sessions
from protocol.codec import decode_as
from protocol.errors import RemoteProtocolError
from protocol.messages import read_message
from protocol.receipts import Acceptance

#: Acceptances that the contractor hasn't acknowledged: award hash -> PeerId.
DUE: Final = "acceptance_due"

_DUE_MAX: Final = 64
_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 5.0


class Receipts:
    """Delivers the broker's halves of receipts."""

    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions
        self._due = trio.Event()

    def due(self) -> None:
        """Deliver what is due now rather than at the next round."""
        self._due.set()

    async def run(self) -> None:
        """Deliver acceptances until each is acknowledged, until cancelled."""
        while True:
            self._due = trio.Event()
            try:
                await self._deliver_all()
            except* StoreError as group:
                # What is due stays due.
                self._context.emit("acceptance.held_up", why=str(group.exceptions[0]))
            with trio.move_on_after(_PAUSE_S):
                await self._due.wait()

    async def _deliver_all(self) -> None:
        rows = await self._context.store.scan(DUE, count_max=_DUE_MAX)
        async with trio.open_nursery() as nursery:
            for key, peer in rows:
                nursery.start_soon(self._deliver, key, peer.decode())

    async def _deliver(self, key: str, peer: str) -> None:
        raw = await self._context.store.read(RECEIPTS, key)
        if raw is None:
            return
        try:
            row = decode_as(raw, RECEIPT_ROW)
            acceptance = read_message(row.acceptance, Acceptance, network=self._context.network)
        except RemoteProtocolError as exc:  # such as of another mesh: nobody here would take it
            self._context.emit("acceptance.unreadable", peer=peer, award=key, why=str(exc))
            await self._context.store.commit(Delete(DUE, key))
            return
        if self._context.clock.now_ms() >= acceptance.h.expires_ms:
            # Nobody would take it any more; kept for ever, it would stand in others' way.
            self._context.emit("acceptance.expired", peer=peer, award=key)
            await self._context.store.commit(Delete(DUE, key))
            return
        try:
            await self._sessions.request(peer, ACCEPTANCE, row.acceptance, timeout_s=_TIMEOUT_S)
        except (Unreachable, StreamLost, RequestTimeout, Busy) as exc:
            self._context.emit("acceptance.undelivered", peer=peer, why=str(exc))
            return
        except RequestFailed as exc:
            self._context.emit("acceptance.refused", peer=peer, why=str(exc))
        await self._context.store.commit(Delete(DUE, key))

    async def rows(self) -> list[ReceiptRow]:
        """Return every finished contract that this node keeps, as broker or contractor."""
        found = await self._context.store.scan(RECEIPTS)
        return [decode_as(raw, RECEIPT_ROW) for _, raw in found]
