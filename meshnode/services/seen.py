"""Up to which change of its journal the runner of a job has looked, and till when that holds.

Turns are made by whichever task has something to add, and each looks at all there is.  So
the task that waits for news must not take for news what another's turn has seen.
"""

from typing import Final

import trio

from meshnode.services.context import Context
from meshnode.services.journals import JobJournal

#: It is looked again after this, even if nothing happened, seconds.
_POLL_S: Final = 1.0


class Seen:
    """What was looked at last."""

    def __init__(self, journal: JobJournal, context: Context) -> None:
        """Nothing of ``journal`` was looked at yet."""
        self._journal = journal
        self._clock = context.clock
        self._changes = -1
        self._wake_ms = 0

    def look(self) -> None:
        """Note that all there is now is looked at."""
        self._changes = self._journal.changes
        self._wake_ms = self._clock.now_ms() + int(_POLL_S * 1000)

    def committed(self, facts: int) -> None:
        """Note how many facts who looked has added; in one commit, which told everybody."""
        self._changes += bool(facts)

    def wake(self, at_ms: int) -> None:
        """Look again at that Unix time at the latest."""
        self._wake_ms = min(self._wake_ms, at_ms)

    async def until_news(self) -> None:
        """Wait until there may be what nobody has looked at, or the job is done."""
        while self._journal.done is None and self._journal.changes == self._changes:
            pause_s = max(0.0, (self._wake_ms - self._clock.now_ms()) / 1000)
            # By Trio's clock once a second anyway: the other one may be set back.
            with trio.move_on_after(min(pause_s, _POLL_S)) as waiting:
                await self._journal.changed()
            if waiting.cancelled_caught:
                return
