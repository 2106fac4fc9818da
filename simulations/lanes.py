"""One direction of a connection between simulated peers, and what is at its ends.

Everything that one side does to the other is a call that travels along a lane, late but in
order.  Where something stands in the way, a lane holds its calls back, as TCP goes on
resending; where the other side is no longer there, it swallows them.
"""

from collections import deque
from collections.abc import Callable
from math import ceil
from random import Random
from typing import TYPE_CHECKING

import trio

from simulations.timetable import Timetable
from simulations.trace import Trace
from simulations.weather import Weather

if TYPE_CHECKING:
    from simulations.climate import Pipe
    from simulations.links import Link


class Host:
    """What streams know of the peer they run on.

    Attributes:
        peer: Its PeerId.
        frozen: Stopped as by SIGSTOP: reads nothing and says nothing.
        thawed: Set when it is no longer frozen.
        links: Its connections, by the other side's PeerId.
    """

    __slots__ = ("frozen", "links", "peer", "thawed")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.frozen = False
        self.thawed = trio.Event()
        self.links: dict[str, Link] = {}


class Lane:
    """One direction of a link.

    Attributes:
        up: What all that the speaker sends passes first, on whatever lane, if anything.
        down: What all that the listener gets passes last, on whatever lane, if anything.
        blocked: Something stands in the way: calls wait until it has gone.
        stalls: How often something stood in the way.
        void: The other side is not there, or will not hear of it: calls vanish.
    """

    __slots__ = (
        "_busy_until_s",
        "_landing",
        "_last_due_s",
        "_stopped",
        "_under_way",
        "blocked",
        "down",
        "name",
        "rng",
        "stalls",
        "timetable",
        "trace",
        "up",
        "void",
        "weather",
    )

    def __init__(
        self, name: str, weather: Weather, rng: Random, timetable: Timetable, trace: Trace
    ) -> None:
        self.name = name
        self.weather = weather
        self.up: Pipe | None = None
        self.down: Pipe | None = None
        self.rng = rng
        self.timetable = timetable
        self.trace = trace
        self.blocked = False
        self.stalls = 0
        self.void = False
        self._busy_until_s = 0.0
        self._last_due_s = -1.0
        # What has not arrived, in order.  An entry of the timetable says when something
        # arrives, and what arrives then is the first of these: so nothing overtakes.
        self._under_way: deque[tuple[Callable[..., None], object, int]] = deque()
        self._landing = 0  # how many of them wait for the receiver's access
        self._stopped = 0  # for how many of them nothing is in the timetable

    def ship(self, call: Callable[..., None], arg: object, size_bytes: int) -> None:
        """Let ``call(arg)`` happen at the other side, later, after all before it."""
        if self.void:
            return
        self._under_way.append((call, arg, size_bytes))
        if self.blocked:
            self._stopped += 1
        else:
            self._set_out(size_bytes)

    def _set_out(self, size_bytes: int) -> None:
        """Let something arrive when ``size_bytes`` that leave now do."""
        now_s = trio.current_time()
        due_s = self._leave_s(now_s, size_bytes) + self.weather.delay_s(self.rng)
        if due_s <= now_s and self._last_due_s < now_s:
            self._arrive()
            return
        ticks_per_s = self.weather.ticks_per_s
        due_s = max(ceil(due_s * ticks_per_s) / ticks_per_s, self._last_due_s)
        self._last_due_s = due_s
        self.timetable.at(due_s, self._arrive)

    def _leave_s(self, now_s: float, size_bytes: int) -> float:
        """Return when the last of ``size_bytes`` is on its way."""
        leave_s = now_s if self.up is None else self.up.pass_s(now_s, size_bytes)
        leave_s = max(leave_s, self._busy_until_s)
        self._busy_until_s = leave_s + size_bytes / self.weather.bandwidth_bytes_per_s
        return self._busy_until_s

    def _arrive(self) -> None:
        if self.void:
            return
        if self.blocked:
            self._stopped += 1
            return
        if self.down is not None and self._must_wait(self.down):
            return
        call, arg, size_bytes = self._under_way.popleft()
        self.trace.note(f"{self.name} {size_bytes} B")
        call(arg)

    def _must_wait(self, down: "Pipe") -> bool:
        """Pass ``down``; tell whether that takes until a later tick, as then noted."""
        now_s = trio.current_time()
        due_s = down.pass_s(now_s, self._under_way[self._landing][2])
        if due_s <= now_s + 1 / self.weather.ticks_per_s:
            return False
        self._landing += 1
        self.timetable.at(due_s, self._land)
        return True

    def _land(self) -> None:
        self._landing -= 1
        if self.void:
            return
        if self.blocked:
            self._stopped += 1
            return
        call, arg, size_bytes = self._under_way.popleft()
        self.trace.note(f"{self.name} {size_bytes} B")
        call(arg)

    def block(self) -> None:
        """Hold back all calls from now on."""
        if not self.blocked:
            self.blocked = True
            self.stalls += 1

    def unblock(self) -> None:
        """Let what was held back travel on."""
        self.blocked = False
        stopped, self._stopped = self._stopped, 0
        for _, _, size_bytes in list(self._under_way)[:stopped]:
            self._set_out(size_bytes)

    def swallow(self) -> None:
        """Lose what is on its way, and all that follows."""
        self.void = True
        self._under_way.clear()
