"""What this broker accepted in a job with standbys, on its way to its contractors.

A charge that only this node knows of can be lost with it, and another broker may make one
of its own.  So what was accepted is sent once a majority of the job's members has the
event, and the job isn't put away before.
"""

from meshnode.domain.facts import Charged, from_event
from meshnode.domain.job import Attempt
from meshnode.services.context import Context
from meshnode.services.journals import JobJournal
from meshnode.services.receipts import Receipts
from meshnode.services.successions import Right
from protocol.keys import digest
from protocol.signing import peek


class Acceptances:
    """Those of one job."""

    def __init__(self, journal: JobJournal, receipts: Receipts, right: Right | None) -> None:
        self._journal = journal
        self._receipts = receipts
        self._right = right
        self._pending = 0

    async def deliver(self, attempt: Attempt, acceptance: bytes) -> None:
        """Send the broker's half of a receipt that was just recorded, when it is safe.

        Raises:
            StoreError: The disk refused.
        """
        if self._right is None:
            self._receipts.deliver(digest(attempt.award), attempt.peer, acceptance)
            return
        self._pending += 1
        await self._right.until_safe(self._journal.state.seq)
        await self._receipts.owe(digest(attempt.award), attempt.peer, acceptance)
        self._pending -= 1
        self._journal.poke()

    async def deliver_again(self, context: Context) -> None:
        """Send what was recorded before a restart, when all of it is safe.

        Raises:
            StoreError: The disk refused.
        """
        if self._right is not None:
            await self._right.until_safe(self._journal.state.seq)
            await owe_again(context, self._journal, self._receipts)

    async def settled(self) -> None:
        """Wait until nothing is on its way to being safe."""
        while self._pending and not self._journal.following:
            await self._journal.changed()


async def owe_again(context: Context, journal: JobJournal, receipts: Receipts) -> None:
    """Send all that this node accepted in a job; what came before is answered the same.

    Raises:
        StoreError: The disk refused.
    """
    for event in journal.events():
        fact = from_event(event)
        if isinstance(fact, Charged) and peek(fact.acceptance).i == context.peer:
            attempt = journal.state.units[fact.unit].attempts[fact.attempt]
            await receipts.owe(digest(attempt.award), attempt.peer, fact.acceptance)
