"""Forgetting what is past its time, so that a node that runs for years doesn't fill its disk.

Receipts, and this node's ended jobs with their journals, are kept for as long as the
owner says.  What else is kept has keepers of its own: artifacts, awards and results,
counts, offers.
"""

from typing import Final

import trio

from meshnode.errors import StoreError
from meshnode.ports import Delete, Write
from meshnode.services.bodies import RECEIPTS
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.receipts import RECEIPT_TIMES

#: The first look is soon after the start: a laptop may never run for an hour.
_FIRST_S: Final = 120.0
_SWEEP_S: Final = 3_600.0
#: Rows that are deleted in one commit.
_ROWS_MAX: Final = 500
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
        jobs = await self._broker.forget(now_ms - round(self._history_s * 1000))
        receipt_s = max(self._history_s, RECEIPT_S_MIN)
        receipts = await self._forget_receipts(now_ms - round(receipt_s * 1000))
        if jobs or receipts:
            self._emit("history.forgotten", jobs=jobs, receipts=receipts)

    async def _forget_receipts(self, before_ms: int) -> int:
        gone = 0
        while True:
            rows = await self._store.scan(RECEIPT_TIMES, count_max=_ROWS_MAX)
            old = [key for key, _ in rows if int(key.partition("/")[0]) < before_ms]
            writes: list[Write] = [Delete(RECEIPT_TIMES, key) for key in old]
            writes += [Delete(RECEIPTS, key.partition("/")[2]) for key in old]
            if not old:
                return gone
            await self._store.commit(*writes)
            gone += len(old)
