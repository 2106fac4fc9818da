"""How a connection ends: at once for one side, and for the other sooner, later or never.

On a real transport each side finds out by itself.  Who hangs up or finds the connection
broken is done with it; the other side goes on believing in it until a close, a reset or
silence tells.  What is under way meanwhile is lost, or arrives late (the weather's
``late_chance``), even after the two have a new connection: then the old one lingers beside
it until what is under way, and behind that the notice, has arrived.
"""

from collections.abc import Callable
from random import Random

import trio

from simulations.lanes import Host
from simulations.links import Link
from simulations.timetable import Timetable
from simulations.trace import Trace


class Endings:
    """Ends the connections of one network."""

    def __init__(
        self,
        links: dict[Link, None],
        rng: Random,
        timetable: Timetable,
        trace: Trace,
        is_blocked: Callable[[Host, Host], bool],
    ) -> None:
        """Take out of ``links`` what has ended for both sides, or for one for ever."""
        self._links = links
        self._rng = rng
        self._timetable = timetable
        self._trace = trace
        self._is_blocked = is_blocked
        self._parting: dict[Link, Host] = {}  # who has not noticed yet

    def parting(self, link: Link) -> bool:
        """Tell whether one side of ``link`` is gone and what it said still arrives."""
        return link in self._parting

    def lose(self, link: Link, speaker: Host, say: Callable[[], None]) -> None:
        """Break ``link`` because its weather says so; who notices first is chance.

        Unless what is under way arrives late: then ``speaker`` notices, and what it was
        about to ``say`` is under way.
        """
        if link.lanes[speaker.peer].weather.is_late(self._rng):
            say()
            self._part(link, "the connection broke", first=speaker)
            return
        first = link.hosts[self._rng.getrandbits(1)]
        notice_s = link.lanes[first.peer].weather.delay_s(self._rng)
        self.cut_off(link, "the connection broke", first=first, notice_s=notice_s)

    def end(self, link: Link, why: str, *, first: Host, notice_s: float | None) -> None:
        """End ``link``; what ``first`` has said is lost, or arrives late."""
        weather = link.lanes[first.peer].weather
        if notice_s is not None and weather.is_late(self._rng):
            self._part(link, why, first=first)
        else:
            self.cut_off(link, why, first=first, notice_s=notice_s)

    def hang_up(self, link: Link, host: Host) -> None:
        """End ``link`` because ``host`` wants it.

        What says so is sent again until it passes, as TCP does it: where something stands
        in the way, the other side hears of it when that has gone.
        """
        lane = link.lanes[host.peer]
        if lane.blocked:
            self._part(link, "disconnected", first=host)
        else:
            notice_s = lane.weather.delay_s(self._rng)
            self.cut_off(link, "disconnected", first=host, notice_s=notice_s)

    def forget(self, host: Host) -> None:
        """End what still arrives at ``host``, which has crashed."""
        for link in [link for link, other in self._parting.items() if other is host]:
            self.cut_off(link, "the peer crashed", first=host, notice_s=None)

    def cut_off(self, link: Link, why: str, *, first: Host, notice_s: float | None) -> None:
        """End ``link`` for ``first`` now and for the other side after ``notice_s``.

        What is under way is lost.
        """
        for lane in link.lanes.values():
            lane.swallow()
        self._links.pop(link, None)
        self._parting.pop(link, None)
        other = link.other(first)
        self._trace.note(f"{first.peer} lost {other.peer}: {why}")
        link.leave(first, why)
        if notice_s is None:
            link.falls_silent(other.peer)
            return
        if notice_s > 0:
            self._timetable.at(trio.current_time() + notice_s, link.leave, other, why)
        else:
            link.leave(other, why)

    def _part(self, link: Link, why: str, *, first: Host) -> None:
        """End ``link`` for ``first``; the other side gets what is under way, then notices."""
        if link in self._parting:  # the other side is gone already
            self.cut_off(link, why, first=first, notice_s=None)
            return
        other, lane = link.other(first), link.lanes[first.peer]
        self._trace.note(f"{first.peer} left {other.peer}: {why}")
        link.lanes[other.peer].swallow()
        self._parting[link] = other
        stall_s = 0.0 if lane.blocked else lane.weather.stall_s(self._rng)
        if stall_s:
            link.stalled = True
            lane.block()
            self._timetable.at(trio.current_time() + stall_s, self._go_on, link, first)
        lane.ship(lambda _: self._tell(link, other, why), None, 0)
        link.leave(first, why)

    def _tell(self, link: Link, other: Host, why: str) -> None:
        """All has arrived: let ``other`` notice, after time enough to read it."""
        weather = link.lanes[other.peer].weather
        due_s = trio.current_time() + weather.delay_s(self._rng) + 1 / weather.ticks_per_s
        self._timetable.at(due_s, self._finish, link, other, why)

    def _finish(self, link: Link, other: Host, why: str) -> None:
        if link in self._parting:
            self.cut_off(link, why, first=other, notice_s=None)

    def _go_on(self, link: Link, first: Host) -> None:
        link.stalled = False
        if not self._is_blocked(first, link.other(first)):
            link.lanes[first.peer].unblock()
