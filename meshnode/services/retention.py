"""Forgetting what is past its time, so that a node that runs for years doesn't fill its disk.

Receipts, and this node's ended jobs with their journals, are kept for as long as the
owner says, and the ledger's postings with them; its balances stay.  What else is kept has
keepers of its own: artifacts, awards and results, counts, offers.
"""

from typing import Final

import trio

from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.bodies import RECEIPTS
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.ledger import POSTINGS, forget_rows
from meshnode.services.receipts import RECEIPT_TIMES, receipt_time
from meshnode.services.testimony_rows import TESTIMONY

#: The first look is soon after the start: a laptop may never run for an hour.
_FIRST_S: Final = 120.0
_SWEEP_S: Final = 3_600.0
#: Rows that are written or deleted in one commit.
_ROWS_MAX: Final = 500
#: Receipts from before their times were kept have been given one: a mark.
RETENTION: Final = "retention"
DATED: Final = "receipts_dated"
_TIMES_MAX: Final = 10_000_000
#: They are looked through in so many parts, by the beginning of their hashes.
_PARTS: Final = 256
#: A broker's half may come, or be sent, for a week: receipts are kept for longer than that.
RECEIPT_S_MIN: Final = 8 * 86_400.0


class Retention:
    """See the module."""

    def __init__(self, context: Context, *, broker: Broker) -> None:
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._history_s = context.config.host.history_s
        self._broker = broker

    async def run(self) -> None:
        """Forget, now and then, until cancelled."""
        try:  # at once: before receipts of this life are among those of before
            await self._date_receipts(self._clock.now_ms())
        except StoreError as exc:
            self._emit("history.kept", why=str(exc))
        await trio.sleep(_FIRST_S)
        while True:
            try:
                await self.sweep()
            except StoreError as exc:
                self._emit("history.kept", why=str(exc))
            await trio.sleep(_SWEEP_S)

    async def sweep(self) -> None:
        """Forget what is past its time.

        Raises:
            StoreError: The disk refused; the rest goes the next time.
        """
        now_ms = self._clock.now_ms()
        await self._date_receipts(now_ms)
        jobs = await self._broker.forget(now_ms - round(self._history_s * 1000))
        receipt_s = max(self._history_s, RECEIPT_S_MIN)
        receipts = await self._forget_receipts(now_ms - round(receipt_s * 1000))
        if jobs or receipts:
            self._emit("history.forgotten", jobs=jobs, receipts=receipts)

    async def _date_receipts(self, now_ms: int) -> None:
        """Give receipts from before times were kept the time of now, once: or they never go."""
        store = self._store
        if await store.read(RETENTION, DATED) is not None:
            return
        if not await store.scan(RECEIPTS, count_max=1):
            await store.commit(Put(RETENTION, DATED, b""))
            return
        times = await store.scan(RECEIPT_TIMES, count_max=_TIMES_MAX)
        dated = {key.partition("/")[2] for key, _ in times}
        undated: list[str] = []
        for part in range(_PARTS):
            rows = await store.scan(RECEIPTS, f"{part:02x}", count_max=_TIMES_MAX)
            undated += [key for key, _ in rows if key not in dated]
        for first in range(0, len(undated), _ROWS_MAX):
            some = undated[first : first + _ROWS_MAX]
            await store.commit(*(receipt_time(key, now_ms=now_ms) for key in some))
        await store.commit(Put(RETENTION, DATED, b""))
        if undated:
            self._emit("history.dated", receipts=len(undated))

    async def _forget_receipts(self, before_ms: int) -> int:
        gone = 0
        while True:
            rows = await self._store.scan(RECEIPT_TIMES, count_max=_ROWS_MAX)
            old = [row for row in rows if int(row[0].partition("/")[0]) < before_ms]
            writes: list[Write] = [Delete(RECEIPT_TIMES, key) for key, _ in old]
            writes += [Delete(TESTIMONY, told.decode()) for _, told in old if told]
            for award in (key.partition("/")[2] for key, _ in old):
                writes.append(Delete(RECEIPTS, award))
                if (place := await self._store.read(POSTINGS, award)) is not None:
                    writes += forget_rows(award, place)
            if not old:
                return gone
            await self._store.commit(*writes)
            gone += len(old)
