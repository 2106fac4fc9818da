"""Memory that many share: so many bytes, for whoever waits for some of them.

Who needs bytes waits until there are enough, so nothing is refused that only comes at a
bad time.  Those who wait take turns by whose they are, each in the order they came: one
who asks for much, often, is not before everyone else.  Whose turn it is waits for as
much as it needs, and nobody overtakes it: what is large comes to its turn too.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio


@dataclass(eq=False, slots=True)
class _Waiting:
    size: int
    given: trio.Event = field(default_factory=trio.Event)


class Room:
    """So many bytes.

    Attributes:
        bytes_max: All of them.
        left: Those that nobody has.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.left = bytes_max
        self._waiting: dict[str, deque[_Waiting]] = {}  # the first is next; none is empty

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    @asynccontextmanager
    async def taken(self, size: int, *, whose: str) -> AsyncIterator[None]:
        """Have ``size`` bytes inside; waits for them, unless there are none to wait for.

        Args:
            size: At most ``bytes_max``, or it would wait for ever.
            whose: Who takes turns with others.
        """
        if size:
            await self._take(size, whose)
        try:
            yield
        finally:
            self.left += size
            self._give()

    async def _take(self, size: int, whose: str) -> None:
        if not self._waiting and size <= self.left:
            self.left -= size
            return
        waiting = _Waiting(size)
        self._waiting.setdefault(whose, deque()).append(waiting)
        try:
            await waiting.given.wait()
        except BaseException:
            self._leave(whose, waiting)
            raise

    def _leave(self, whose: str, waiting: _Waiting) -> None:
        """Give up waiting; others may have waited for this one only."""
        if waiting.given.is_set():
            self.left += waiting.size
        else:
            queue = self._waiting[whose]
            queue.remove(waiting)
            if not queue:
                del self._waiting[whose]
        self._give()

    def _give(self) -> None:
        """Give those who are next what they wait for, as far as it goes."""
        while self._waiting:
            whose, queue = next(iter(self._waiting.items()))
            if queue[0].size > self.left:
                return
            del self._waiting[whose]
            first = queue.popleft()
            if queue:
                self._waiting[whose] = queue  # after all others
            self.left -= first.size
            first.given.set()
