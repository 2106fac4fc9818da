"""What is to happen when, carried out by one task.

A task for every chunk of bytes on its way would cost more than everything else a
simulated network does.  So arrivals, late notices and the like are plain calls in
a heap, and one task sleeps until the earliest of them.  Adding an earlier one only
ends that task's sleep earlier: nobody is woken for it.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

import trio

from simulations.alarms import Nap


class Timetable:
    """Calls that are due at a time on Trio's clock, in order of time and then of adding."""

    __slots__ = ("_count", "_heap", "_nap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self._nap = Nap()

    def __len__(self) -> int:
        """Return how many calls are due."""
        return len(self._heap)

    def at(self, due_s: float, call: Callable[..., None], *args: object) -> None:
        """Call ``call(*args)`` when Trio's clock shows ``due_s``."""
        self._count += 1  # breaks ties, so that calls are never compared
        heappush(self._heap, (due_s, self._count, call, args))
        self._nap.end_by(due_s)

    async def run(self) -> None:
        """Carry out what is due, for ever; what a call raises ends the run."""
        heap = self._heap
        while True:
            now = trio.current_time()
            while heap and heap[0][0] <= now:
                _, _, call, args = heappop(heap)
                call(*args)
            await self._nap.until(heap[0][0] if heap else inf)
