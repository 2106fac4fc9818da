"""What this node tells others of contracts that it finished: both halves of their receipts.

Award and result stay here: they hold what the work was about.  A receipt that tells of work
below it isn't told either, since that is other nodes' affair.

Which may be told is noted with each receipt, by capability, the newest first, so an answer
looks at the newest :data:`WINDOW` of one capability and at no others.  Whom the owner doesn't
let call is told nothing.

Specified in protocol/spec/95-reputation.md.
"""

import re
from typing import Final

from meshnode.services.admission import Admission
from meshnode.services.bodies import RECEIPT_ROW, RECEIPTS, ReceiptRow
from meshnode.services.context import Context
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.testimony_rows import TESTIMONY, read_place
from protocol.codec import decode_as, encode
from protocol.limits import TOLD_BYTES_MAX, TOLD_MAX
from protocol.reputation import ASK, Halves, Question, Told, read_body

#: Contracts of one capability that are told of, the newest.
WINDOW: Final = 2_000

_CURSOR: Final = re.compile(r"[0-9]{15}/[0-9a-f]{64}")


class Testimony:
    """See the module."""

    def __init__(self, context: Context, *, sessions: Sessions, door: Admission) -> None:
        self._store = context.store
        self._door = door
        sessions.handle(ASK, door.limited(self._on_ask, ASK))

    async def _on_ask(self, incoming: Incoming) -> bytes:
        asked = read_body(incoming.body, Question)
        if await self._door.stranger(incoming.peer) is not None:
            return encode(Told([], asked.after, more=False))  # it is told why when it calls
        return encode(await self.told(asked))

    async def told(self, asked: Question) -> Told:
        """Return the answer to a question.

        Raises:
            StoreError: It can't be read.
        """
        found = await self._store.scan(TESTIMONY, f"{asked.capability}/", count_max=WINDOW)
        places = sorted(read_place(key) for key, _ in found)
        known = _CURSOR.fullmatch(asked.after) is not None
        contracts: list[Halves] = []
        size, cursor = 0, asked.after if known else ""
        for place in places:
            if place <= cursor:
                continue
            halves = await self._halves(place.partition("/")[2])
            if halves is not None:
                size += len(halves.receipt) + len(halves.acceptance)
                if len(contracts) == TOLD_MAX or size > TOLD_BYTES_MAX:
                    return Told(contracts, cursor, more=True)
                contracts.append(halves)
            cursor = place
        return Told(contracts, cursor, more=False)

    async def _halves(self, award: str) -> Halves | None:
        raw = await self._store.read(RECEIPTS, award)
        if raw is None:
            return None
        row: ReceiptRow = decode_as(raw, RECEIPT_ROW)
        return Halves(row.receipt, row.acceptance)
