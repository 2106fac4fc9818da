"""Telemetry: what happens in a node, as named events with fields, for whoever looks on.

Job facts live in journals; everything else (sessions, awards' progress, mishaps) is
told here.  Onlookers get a bounded queue each: one that doesn't keep up loses the
oldest and is told how many.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from meshnode.ports import WallClock

#: Events kept for whoever comes later.
RECENT_MAX: Final = 500
#: Events that may wait for one onlooker.
_WAITING_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Happening:
    """One event.

    Attributes:
        number: Counts from 1 in this run of the node.
        at_ms: Unix time.
        name: Dotted, such as ``contract.awarded``.
        fields: Facts, named.
    """

    number: int
    at_ms: int
    name: str
    fields: Mapping[str, object]


class Onlooker:
    """Someone's queue of events."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[Happening] = deque()
        self._news = trio.Event()

    def tell(self, happening: Happening) -> None:
        """Add an event; the oldest goes when too many wait."""
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(happening)
        self._news.set()

    async def several(self) -> list[Happening]:
        """Return all events that wait; waits for one."""
        first = await self.next()
        found = [first, *self._waiting]
        self._waiting.clear()
        return found

    async def next(self) -> Happening:
        """Return the next event; waits for one."""
        while not self._waiting:
            self._news = trio.Event()
            await self._news.wait()
        return self._waiting.popleft()


class Events:
    """Where every service of a node reports to; :meth:`emit` is its ``Emit``."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self._number = 0
        self._onlookers: list[Onlooker] = []
        self.recent: deque[Happening] = deque(maxlen=RECENT_MAX)

    def note(self, name: str, /, **fields: object) -> Happening:
        """Return an event that nobody is told of."""
        return Happening(self._number, self._clock.now_ms(), name, fields)

    def emit(self, name: str, /, **fields: object) -> None:
        """Tell everyone who looks on; never blocks, never raises."""
        self._number += 1
        happening = self.note(name, **fields)
        self.recent.append(happening)
        for onlooker in self._onlookers:
            onlooker.tell(happening)

    def add(self, onlooker: Onlooker) -> None:
        """Tell ``onlooker`` of everything from here on, as it happens."""
        self._onlookers.append(onlooker)

    @contextmanager
    def watch(self) -> Iterator[Onlooker]:
        """Give a queue of what happens from here on."""
        onlooker = Onlooker()
        self.add(onlooker)
        try:
            yield onlooker
        finally:
            self._onlookers.remove(onlooker)
