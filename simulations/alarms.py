"""Sleep that costs little: the clock wakes whoever it jumps to.

Trio's sleep is a cancel scope with a deadline, and ends with an exception: some twenty
microseconds.  In an hour of a thousand nodes somebody sleeps a million times, for bytes on
their way and commits on theirs.  Here a sleeper is an entry of a heap, and the clock of a
world (:mod:`simulations.world`) makes it ready as it jumps.  Where the clock is another, as
in a test of one part, sleep is Trio's.

While :func:`replacing_sleep` holds, ``trio.sleep`` and ``trio.sleep_until`` are these, for the
nodes of the world, which know no other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

import trio
from trio import _timeouts as trio_timeouts
from trio.lowlevel import Abort, RaiseCancelT, RunVar, Task, wait_task_rescheduled


class Alarms:
    """Who sleeps until when; the clock that rings them is the only one that jumps."""

    __slots__ = ("_counts", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, list[Task]]] = []
        self._counts = count()  # breaks ties, so that tasks are never compared

    def use(self) -> None:
        """Serve all who sleep in this run of Trio."""
        _ALARMS.set(self)

    def next_s(self) -> float:
        """Return when the first sleeper is due on Trio's clock; infinite if nobody sleeps."""
        heap = self._heap
        while heap and not heap[0][2]:
            heappop(heap)
        return heap[0][0] if heap else inf

    def ring(self, now_s: float) -> None:
        """Make all ready whose time has come."""
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            self.ring_now(heappop(heap)[2])

    def ring_now(self, sleeper: list[Task]) -> None:
        """Make ``sleeper`` ready, if that is still somebody."""
        if sleeper:
            trio.lowlevel.reschedule(sleeper.pop())

    def wake(self, sleeper: list[Task], due_s: float) -> None:
        """Ring ``sleeper``, one task or nobody, at ``due_s``; the first time counts."""
        if due_s < inf:
            heappush(self._heap, (due_s, next(self._counts), sleeper))

    async def sleep(self, sleeper: list[Task], due_s: float) -> None:
        """Let this task sleep as ``sleeper``, a list of it alone, until ``due_s``."""

        def leave(_: RaiseCancelT) -> Abort:
            sleeper.clear()
            return Abort.SUCCEEDED

        self.wake(sleeper, due_s)
        await wait_task_rescheduled(leave)


_ALARMS: Final[RunVar[Alarms | None]] = RunVar("alarms", None)
_TRIOS: Final = trio.sleep_until


async def sleep_until(due_s: float) -> None:
    """Sleep until Trio's clock shows ``due_s``; a checkpoint, as ``trio.sleep_until`` is."""
    alarms = _ALARMS.get()
    if alarms is None:
        await _TRIOS(due_s)
    elif due_s <= trio.current_time():
        await trio.lowlevel.checkpoint()
    else:
        await alarms.sleep([trio.lowlevel.current_task()], due_s)


async def sleep(seconds: float) -> None:
    """Sleep for ``seconds``, at least 0."""
    await sleep_until(trio.current_time() + seconds)


@contextmanager
def replacing_sleep() -> Iterator[None]:
    """Let ``trio.sleep`` be this one; who runs without alarms sleeps as ever."""
    inside = vars(trio_timeouts)
    assert inside.get("sleep_until") is _TRIOS, "Trio changed: it sleeps in another way"
    # What trio.sleep calls, and what others call by name.
    inside["sleep_until"] = vars(trio)["sleep_until"] = sleep_until
    try:
        yield
    finally:
        inside["sleep_until"] = vars(trio)["sleep_until"] = _TRIOS


class Nap:
    """Sleep of one task, which others may end earlier."""

    __slots__ = ("_alarms", "_due_s", "_scope", "_sleeper")

    def __init__(self) -> None:
        self._due_s = -inf  # while nobody sleeps, nobody can be woken
        self._alarms: Alarms | None = None
        self._scope = trio.CancelScope()
        self._sleeper: list[Task] = []

    async def until(self, due_s: float) -> None:
        """Sleep until ``due_s``, or what :meth:`end_by` says meanwhile."""
        self._due_s = due_s
        self._alarms = _ALARMS.get()
        try:
            if self._alarms is None:
                self._scope = trio.CancelScope(deadline=due_s)
                with self._scope:
                    await trio.sleep_forever()
            else:
                self._sleeper = [trio.lowlevel.current_task()]
                await self._alarms.sleep(self._sleeper, due_s)
        finally:
            self._due_s = -inf

    def end_by(self, due_s: float) -> None:
        """End the sleep at ``due_s``, if there is one that isn't to end earlier."""
        if due_s >= self._due_s:
            return
        self._due_s = due_s
        if self._alarms is None:
            self._scope.deadline = due_s
        elif due_s <= trio.current_time():
            self._alarms.ring_now(self._sleeper)
        else:
            self._alarms.wake(self._sleeper, due_s)
