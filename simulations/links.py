"""Connections between simulated peers, and the streams on them.

Two peers share one :class:`Link`, as on a real transport: when it breaks, every
stream on it breaks.  A link has a :class:`Lane` for each direction, and everything
that one side does to the other (bytes, an end, a reset, room for more bytes) is a
call that travels along the lane, late but in order.  Where something stands in the
way, a lane holds its calls back, as TCP goes on resending; where the other side is
no longer there, it swallows them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from random import Random
from typing import Final

import trio

from meshnode.errors import StreamLost
from protocol import limits
from simulations.timetable import Timetable
from simulations.trace import Trace
from simulations.weather import Weather

#: Most bytes that travel as one piece.
PIECE_BYTES_MAX: Final = 64 * 1024

#: A live peer says something at least this often, seconds.
BEAT_S: Final = limits.HEARTBEAT_MS / 1000

#: Arrivals are late by up to a tick, so that many of them share one waking of the
#: timetable's task, and that arrivals at one moment (in any order) are common.
TICKS_PER_S: Final = 1000


class Host:
    """What streams know of the peer they run on.

    Attributes:
        peer: Its PeerId.
        frozen: Stopped as by SIGSTOP: reads nothing and says nothing.
        thawed: Set when it is no longer frozen.
    """

    __slots__ = ("frozen", "peer", "thawed")

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.frozen = False
        self.thawed = trio.Event()


class Lane:
    """One direction of a link.

    Attributes:
        blocked: Something stands in the way: calls wait until it has gone.
        stalls: How often something stood in the way.
        void: The other side is not there, or will not hear of it: calls vanish.
    """

    __slots__ = (
        "_busy_until_s",
        "_held",
        "_last_due_s",
        "blocked",
        "name",
        "rng",
        "stalls",
        "timetable",
        "trace",
        "void",
        "weather",
    )

    def __init__(
        self, name: str, weather: Weather, rng: Random, timetable: Timetable, trace: Trace
    ) -> None:
        self.name = name
        self.weather = weather
        self.rng = rng
        self.timetable = timetable
        self.trace = trace
        self.blocked = False
        self.stalls = 0
        self.void = False
        self._busy_until_s = 0.0
        self._last_due_s = -1.0
        self._held: list[tuple[Callable[..., None], object, int]] = []

    def ship(self, call: Callable[..., None], arg: object, size_bytes: int) -> None:
        """Let ``call(arg)`` happen at the other side, later, after all before it."""
        if self.void:
            return
        if self.blocked:
            self._held.append((call, arg, size_bytes))
            return
        now_s = trio.current_time()
        due_s = self._leave_s(now_s, size_bytes) + self.weather.delay_s(self.rng)
        if due_s <= now_s and self._last_due_s < now_s:
            self._arrive(call, arg, size_bytes)
            return
        due_s = max(ceil(due_s * TICKS_PER_S) / TICKS_PER_S, self._last_due_s)
        self._last_due_s = due_s
        self.timetable.at(due_s, self._arrive, call, arg, size_bytes)

    def _leave_s(self, now_s: float, size_bytes: int) -> float:
        """Return when the last of ``size_bytes`` is on its way."""
        leave_s = max(now_s, self._busy_until_s)
        self._busy_until_s = leave_s + size_bytes / self.weather.bandwidth_bytes_per_s
        return self._busy_until_s

    def _arrive(self, call: Callable[..., None], arg: object, size_bytes: int) -> None:
        if self.void:
            return
        if self.blocked:
            self._held.append((call, arg, size_bytes))
            return
        self.trace.note(f"{self.name} {size_bytes} B")
        call(arg)

    def block(self) -> None:
        """Hold back all calls from now on."""
        if not self.blocked:
            self.blocked = True
            self.stalls += 1

    def unblock(self) -> None:
        """Let what was held back travel on, in its order."""
        self.blocked = False
        held, self._held = self._held, []
        for call, arg, size_bytes in held:
            self.ship(call, arg, size_bytes)

    def swallow(self) -> None:
        """Lose what is on its way, and all that follows."""
        self.void = True
        self._held.clear()


@dataclass(frozen=True, slots=True)
class Ear:
    """Somebody who wants to know when the other side has been silent for so long."""

    limit_s: float
    on_silence: Callable[[], None]


class Link:
    """The connection between two hosts.

    A link tells whoever minds that the other side is silent, as heartbeats would: within the
    limit, and earlier by up to one beat, since the last one came some time before.  No beat
    is sent for that: while nothing stands in the way, there is nothing to tell.

    Attributes:
        hosts: Both ends; the first dialled.
        lanes: By the PeerId of the side that speaks.
        on_loss: Called with the link when its weather breaks it.
        cut_since_s: Since when there is no path, or infinity.
        minds: Whether it tells of silence; else its users have to beat themselves.
    """

    __slots__ = ("cut_since_s", "ears", "hosts", "lanes", "minds", "on_loss", "streams")

    def __init__(
        self,
        hosts: tuple[Host, Host],
        lanes: dict[str, Lane],
        on_loss: Callable[["Link"], None],
        *,
        minds: bool = False,
    ) -> None:
        self.hosts = hosts
        self.minds = minds
        self.ears: dict[SimStream, Ear] = {}
        self.lanes = lanes
        self.on_loss = on_loss
        self.cut_since_s = inf
        self.streams: dict[str, dict[SimStream, None]] = {host.peer: {} for host in hosts}

    def pair(self, opener: Host) -> tuple["SimStream", "SimStream"]:
        """Return the two ends of a new stream, the opener's first."""
        acceptor = self.other(opener)
        near = SimStream(self, opener, acceptor.peer)
        far = SimStream(self, acceptor, opener.peer)
        near.far, far.far = far, near
        return near, far

    def other(self, host: Host) -> Host:
        """Return the side that isn't ``host``."""
        one, two = self.hosts
        return two if host is one else one

    def mind(self, stream: "SimStream", ear: Ear) -> bool:
        """Have ``ear`` told when nothing comes any more; return False if nobody tells."""
        if self.minds:
            self.ears[stream] = ear
            lane = self.lanes[stream.peer]
            if lane.blocked or lane.void:
                self._arm(stream, ear, lane)
        return self.minds

    def falls_silent(self, peer: str) -> None:
        """Note that ``peer`` hears nothing from now on."""
        for stream, ear in self.ears.items():
            if stream.peer != peer:
                self._arm(stream, ear, self.lanes[stream.peer])

    def _arm(self, stream: "SimStream", ear: Ear, lane: Lane) -> None:
        wait_s = ear.limit_s - lane.rng.random() * BEAT_S
        due_s = trio.current_time() + wait_s
        lane.timetable.at(due_s, self._tell_silence, stream, lane, lane.stalls)

    def _tell_silence(self, stream: "SimStream", lane: Lane, stalls: int) -> None:
        if (lane.void or (lane.blocked and lane.stalls == stalls)) and stream in self.ears:
            lane.trace.note(f"{lane.name} is silent")
            self.ears.pop(stream).on_silence()

    def lose(self, peer: str, why: str) -> None:
        """Make every stream at ``peer``'s end raise ``StreamLost``, now."""
        for stream in tuple(self.streams[peer]):
            stream.lose(why)


class SimStream:
    """One end of a stream.

    Attributes:
        peer: The other side's PeerId.
        far: The other end.
    """

    __slots__ = (
        "_ended",
        "_finished",
        "_host",
        "_lane",
        "_link",
        "_lost",
        "_reader",
        "_refused",
        "_room_bytes",
        "_sending",
        "_take",
        "_unread",
        "_writer",
        "far",
        "peer",
    )

    def __init__(self, link: Link, host: Host, peer: str) -> None:
        self.peer = peer
        self.far: SimStream = self
        self._link = link
        self._host = host
        self._lane = link.lanes[host.peer]
        self._unread: deque[bytes] = deque()
        self._room_bytes = self._lane.weather.window_bytes
        self._finished = False  # this side has said its last byte
        self._ended = False  # the other side has
        self._refused = ""  # why the other side takes no more
        self._lost = ""  # why neither direction works any more
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self._sending = False
        self._take: Callable[[bytes], None] | None = None
        link.streams[host.peer][self] = None

    # --- the port -----------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """See :meth:`meshnode.ports.Stream.send`."""
        if self._sending:
            raise trio.BusyResourceError(f"two tasks send to {self.peer} on one stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._send(data)
        finally:
            self._sending = False

    async def _send(self, data: bytes) -> None:
        lane, start = self._lane, 0
        while start < len(data):
            self._check_sending()
            if self._room_bytes == 0:
                await self._wait_for_room()
                continue
            if lane.weather.break_chance and self._breaks():
                continue
            piece = data[start : start + min(self._room_bytes, PIECE_BYTES_MAX)]
            self._room_bytes -= len(piece)
            lane.ship(self.far.take, bytes(piece), len(piece))
            start += len(piece)
        self._check_sending()

    def send_nowait(self, data: bytes) -> bool:
        """See :meth:`meshnode.ports.Stream.send_nowait`."""
        self._check_sending()
        if self._sending or len(data) > min(self._room_bytes, PIECE_BYTES_MAX):
            return False
        if self._lane.weather.break_chance and self._breaks():
            self._check_sending()
        if data:
            self._room_bytes -= len(data)
            self._lane.ship(self.far.take, bytes(data), len(data))
        return True

    async def receive(self, size_max: int = 65_536) -> bytes:
        """See :meth:`meshnode.ports.Stream.receive`."""
        if self._reader is not None:
            raise trio.BusyResourceError(f"two tasks receive from {self.peer} on one stream")
        if size_max < 1:
            raise ValueError("size_max must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._host.frozen:
                await self._host.thawed.wait()
                continue
            if self._lost:
                raise StreamLost(f"stream with {self.peer}: {self._lost}")
            if self._take is not None:
                self._deliver()
            elif self._unread:
                return self._read(size_max)
            if self._ended:
                return b""
            await self._wait_for_bytes()

    def deliver_to(self, take: Callable[[bytes], None], /) -> bool:
        """See :meth:`meshnode.ports.Stream.deliver_to`."""
        self._take = take
        self._deliver()
        return True

    def _deliver(self) -> None:
        """Hand over what has come; nothing comes to a frozen host."""
        while self._take is not None and self._unread:
            self._take(self._read(PIECE_BYTES_MAX))

    def mind_silence(self, limit_s: float, on_silence: Callable[[], None], /) -> bool:
        """See :meth:`meshnode.ports.Stream.mind_silence`."""
        return not self._lost and self._link.mind(self, Ear(limit_s, on_silence))

    async def finish(self) -> None:
        """See :meth:`meshnode.ports.Stream.finish`."""
        await trio.lowlevel.checkpoint()
        if not (self._finished or self._lost):
            self._finished = True
            self._lane.ship(self.far.end, None, 0)
            self._forget_when_over()

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Stream.aclose`."""
        self.close()

    # --- what this side does without waiting --------------------------------------

    def close(self) -> None:
        """End both directions; what was sent still arrives."""
        if not self._lost:
            self._lane.ship(self.far.hang_up, None, 0)
            self.lose("closed here")

    def reset(self, why: str) -> None:
        """Break the stream at both ends; what the other side has not read is lost."""
        if not self._lost:
            self._lane.ship(self.far.lose, why, 0)
            self.lose(why)

    # --- what the other side does to this one, and the link to both ----------------

    def take(self, piece: bytes) -> None:
        """Bytes have arrived."""
        if not self._lost:
            self._unread.append(piece)
            if self._take is None:
                self._wake_reader()
            else:
                self._deliver()

    def end(self, _: object = None) -> None:
        """The other side has finished."""
        self._ended = True
        self._wake_reader()
        self._forget_when_over()

    def hang_up(self, _: object = None) -> None:
        """The other side has closed: it says nothing more and takes nothing more."""
        self._refused = "the peer closed it"
        self._finished = True
        self._wake_writer()
        self.end()

    def make_room(self, size_bytes: int) -> None:
        """The other side has read ``size_bytes``."""
        self._room_bytes += size_bytes
        self._wake_writer()

    def lose(self, why: str) -> None:
        """Nothing works any more, because of ``why``."""
        if not self._lost:
            self._lost = why
            self._unread.clear()
            self._link.streams[self._host.peer].pop(self, None)
            self._link.ears.pop(self, None)
            self._wake_reader()
            self._wake_writer()

    # --- inside -------------------------------------------------------------------

    def _check_sending(self) -> None:
        why = self._lost or self._refused or ("finished here" if self._finished else "")
        if why:
            raise StreamLost(f"stream with {self.peer}: {why}")

    def _breaks(self) -> bool:
        """Draw whether this send breaks the link; if so, break it."""
        if self._lane.rng.random() >= self._lane.weather.break_chance:
            return False
        self._link.on_loss(self._link)
        return True

    def _read(self, size_max: int) -> bytes:
        """Take what is there, or some of it, and make room at the other side."""
        lane = self._lane
        if len(self._unread) == 1:
            data = self._unread.pop()
        else:
            data = b"".join(self._unread)
            self._unread.clear()
        size = min(size_max, len(data))
        split_chance = lane.weather.split_chance
        if split_chance and size > 1 and lane.rng.random() < split_chance:
            size = lane.rng.randint(1, size)
        if size < len(data):
            self._unread.append(data[size:])
            data = data[:size]
        if lane.blocked or lane.void:
            lane.ship(self.far.make_room, size, 0)
        else:  # at once: a delay here would cost an event for every read
            self.far.make_room(size)
        return data

    def _wake_reader(self) -> None:
        if self._reader is not None:
            task, self._reader = self._reader, None
            trio.lowlevel.reschedule(task)

    def _wake_writer(self) -> None:
        if self._writer is not None:
            task, self._writer = self._writer, None
            trio.lowlevel.reschedule(task)

    async def _wait_for_bytes(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _wait_for_room(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _forget_when_over(self) -> None:
        """Leave the link's books once both directions have ended."""
        if self._ended and self._finished:
            self._link.streams[self._host.peer].pop(self, None)
