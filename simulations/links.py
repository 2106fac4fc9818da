"""Connections between simulated peers, and the streams on them.

Two peers share one :class:`Link`, as on a real transport: when it breaks, every
stream on it breaks.  A link has a :class:`~simulations.lanes.Lane` for each direction,
along which everything travels that one side does to the other: bytes, an end, a reset,
room for more bytes.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

import trio

from meshnode.errors import StreamLost
from simulations.lanes import Host, Lane
from simulations.silence import Ears

#: Most bytes that travel as one piece.
PIECE_BYTES_MAX: Final = 64 * 1024


class Link:
    """The connection between two hosts.

    Attributes:
        hosts: Both ends; the first dialled.
        lanes: By the PeerId of the side that speaks.
        on_loss: Called with the link when its weather breaks it, and with who was about
            to say something, and how.
        cut_since_s: Since when there is no path, or infinity.
        stalled: What is under way stands still although there is a path.
        ears: Who wants to know when the other side is silent; None where nobody is told.
    """

    __slots__ = (
        "_lost",
        "cut_since_s",
        "ears",
        "hosts",
        "lanes",
        "on_loss",
        "stalled",
        "streams",
    )

    def __init__(
        self,
        hosts: tuple[Host, Host],
        lanes: dict[str, Lane],
        on_loss: Callable[["Link", Host, Callable[[], None]], None],
        *,
        ears: Ears | None = None,
    ) -> None:
        self.hosts = hosts
        self.ears = ears
        self.lanes = lanes
        self.on_loss = on_loss
        self.cut_since_s = inf
        self.stalled = False
        self._lost: dict[str, trio.Event] = {}  # for who waits to see it lost
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

    def mind(self, stream: "SimStream", limit_s: float, on_silence: Callable[[], None]) -> bool:
        """See :meth:`meshnode.ports.Stream.mind_silence`."""
        if self.ears is None:
            return False
        self.ears.listen(stream, self.lanes[stream.peer], limit_s, on_silence)
        return True

    def falls_silent(self, peer: str) -> None:
        """Note that ``peer`` hears nothing from now on."""
        if self.ears is not None:
            self.ears.falls_silent(self.lanes[self.other_peer(peer)])

    def other_peer(self, peer: str) -> str:
        """Return who isn't ``peer``."""
        one, two = self.hosts
        return two.peer if peer == one.peer else one.peer

    def leave(self, host: Host, why: str) -> None:
        """Make ``host`` notice that it is no more: its streams raise ``StreamLost`` now."""
        peer = self.other(host).peer
        if host.links.get(peer) is self:
            del host.links[peer]
        for stream in tuple(self.streams[host.peer]):
            stream.lose(why)
        if host.peer in self._lost:
            self._lost[host.peer].set()

    async def lost(self, peer: str, limit_s: float) -> None:
        """Wait until ``peer`` finds it lost, for ``limit_s`` seconds at most."""
        with trio.move_on_after(limit_s):
            await self._lost.setdefault(peer, trio.Event()).wait()


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
            piece = data[start : start + min(self._room_bytes, PIECE_BYTES_MAX)]
            if lane.weather.break_chance and self._breaks(piece):
                continue
            self._say(piece)
            start += len(piece)
        self._check_sending()

    def send_nowait(self, data: bytes) -> bool:
        """See :meth:`meshnode.ports.Stream.send_nowait`."""
        self._check_sending()
        if self._sending or len(data) > min(self._room_bytes, PIECE_BYTES_MAX):
            return False
        if self._lane.weather.break_chance and self._breaks(data):
            self._check_sending()
        if data:
            self._say(data)
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
        return not self._lost and self._link.mind(self, limit_s, on_silence)

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
            if self._link.ears is not None:
                self._link.ears.forget(self)
            self._wake_reader()
            self._wake_writer()

    # --- inside -------------------------------------------------------------------

    def _check_sending(self) -> None:
        why = self._lost or self._refused or ("finished here" if self._finished else "")
        if why:
            raise StreamLost(f"stream with {self.peer}: {why}")

    def _say(self, piece: bytes) -> None:
        self._room_bytes -= len(piece)
        self._lane.ship(self.far.take, bytes(piece), len(piece))

    def _breaks(self, piece: bytes) -> bool:
        """Draw whether sending ``piece`` breaks the link; if so, break it."""
        if self._lane.rng.random() >= self._lane.weather.break_chance:
            return False
        self._link.on_loss(self._link, self._host, lambda: self._say(piece))
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
