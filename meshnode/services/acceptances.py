"""What this broker accepted in a job with standbys, on its way to its contractors.

A charge that only this node knows of can be lost with it, and another broker may make one
of its own.  So what was accepted is sent once a majority of the job's members has the
event, and the job isn't put away before.
"""

import trio

from meshnode.domain.facts import Charged
from meshnode.domain.units import Attempt
from meshnode.services.charges import Charges
from meshnode.services.journals import JobJournal
from meshnode.services.receipts import Receipts
from meshnode.services.rights import Right
from protocol.keys import digest


class Acceptances:
    """Those of one job."""

    def __init__(
        self,
        journal: JobJournal,
        receipts: Receipts,
        charges: Charges,
        right: Right | None,
    ) -> None:
        self._journal = journal
        self._receipts = receipts
        self._charges = charges
        self._right = right
        self._pending = 0

    async def deliver(self, attempt: Attempt, fact: Charged) -> None:
        """Send the broker's half of a receipt that was just recorded, when it is safe.

        Raises:
            StoreError: The disk refused.
        """
        if self._journal.state.elected is None:
            self._receipts.deliver(digest(attempt.award), attempt.peer, fact.acceptance)
            return
        self._pending += 1
        await self._until_safe()
        await self._charges.keep(self._journal, fact)
        self._pending -= 1
        self._journal.poke()

    async def deliver_again(self) -> None:
        """Send what was recorded before a restart, when all of it is safe.

        Raises:
            StoreError: The disk refused.
        """
        if self._journal.state.elected is not None:
            await self._until_safe()
            await self._charges.keep_all(self._journal)

    async def _until_safe(self) -> None:
        if self._right is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._right.until_safe(self._journal.state.seq)

    async def settled(self) -> None:
        """Wait until nothing is on its way to being safe."""
        while self._pending and not self._journal.following:
            await self._journal.changed()
