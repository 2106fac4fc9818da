"""The muxer that a host is given: :mod:`.yamux` driven by Trio, over Noise and TCP.

py-libp2p's own polls for window every 10 ms, takes two reads and several locks for
each frame, sends a window update after every read, and may leave half a frame on the
wire when a send is cancelled.  This one stands at the same place (:class:`IMuxedConn`,
:class:`IMuxedStream`):

* Whatever the socket had is opened, cut and handed to its streams in one go.
* A frame is encrypted and handed to the socket in one step without a checkpoint
  (:meth:`MeshYamux.push`), so cancelling a send, an open or a receive never leaves
  half a frame.  Waiting happens before: for window, then for room in the backlog.
* A connection that breaks is never taken for the end of a stream, and what had
  arrived is still delivered.
* A peer that breaks the rules loses the connection, and only that.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID, Yamux
from multiaddr import Multiaddr
from typing_extensions import override

from meshnode.adapters.libp2p_noise import PLAINTEXT_BYTES_MAX, layers
from meshnode.adapters.libp2p_tcp import BACKLOG_BYTES_MAX
from meshnode.adapters.yamux import HEADER, Channel, YamuxMachine
from meshnode.ports import Emit

#: A frame of this much data and its header fill one Noise message exactly.
DATA_BYTES_MAX: Final = PLAINTEXT_BYTES_MAX - HEADER.size
#: Let others run after this many bytes that the socket took at once.
_YIELD_BYTES: Final = 64 * 1024
#: A peer that takes no byte of the backlog for this long is gone, seconds.
STALL_S: Final = 30.0
#: How long a connection that is closed here may take to write out its backlog, seconds.
CLOSE_S: Final = 0.5
#: What a reader that names no size gets at most, bytes.
_READ_BYTES: Final = 1024 * 1024


class MeshYamuxStream(IMuxedStream):
    """One stream of a connection."""

    def __init__(self, conn: "MeshYamux", channel: Channel) -> None:
        self.muxed_conn = conn
        self._conn = conn
        self._channel = channel
        self._aborted = False
        self._take: Callable[[bytes], None] | None = None
        self._waiting = 0  # for window
        # Readers and writers wait in one place: each looks for itself what has changed.
        self._movable = trio.lowlevel.ParkingLot()

    @property
    def stream_id(self) -> int:
        """The stream's number on its connection."""
        return self._channel.id

    @property
    def is_closed(self) -> bool:
        """Both directions are over."""
        channel = self._channel
        return channel.reset or (channel.finished_here and channel.finished_by_peer)

    def deliver_to(self, take: Callable[[bytes], None], /) -> None:
        """Hand what comes to ``take``, and what has come already."""
        self._take = take
        self._deliver(take)

    def _deliver(self, take: Callable[[bytes], None]) -> None:
        while self._channel.buffered:
            data = self._conn.machine.read(self._channel, _READ_BYTES)
            self._conn.say()
            take(data)

    def wake(self) -> None:
        """Let whoever waits on this stream look at it again."""
        channel = self._channel
        if self._take is not None:
            self._deliver(self._take)
            if not (self._waiting or channel.finished_by_peer or channel.reset):
                return  # its reader waits for the end
        if self._movable:
            self._movable.unpark_all()

    # --- writing ---

    @override
    async def write(self, data: bytes) -> None:
        """Send all of ``data``; waits for as long as the peer doesn't read.

        Raises:
            MuxedStreamReset: The stream is over, or the connection is gone.
            ConnectionClosedError: The connection went away meanwhile.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        start, conn, view = 0, self._conn, memoryview(data)
        while start < len(data):
            await self._wait_for_window()
            await conn.room()
            size = min(self._channel.send_window, DATA_BYTES_MAX, len(data) - start)
            if size <= 0 or not self._channel.sendable:  # changed while we waited for room
                continue
            self._send(view[start : start + size])
            start += size
            await conn.take_turns(size)

    def write_nowait(self, data: bytes) -> bool:
        """Send all of ``data`` at once, or nothing and return False.

        Raises:
            MuxedStreamReset: The stream is over, or the connection is gone.
            ConnectionClosedError: The connection went away meanwhile.
        """
        if not self._channel.sendable:
            raise MuxedStreamReset("the stream is closed")
        if (
            len(data) > min(self._channel.send_window, DATA_BYTES_MAX)
            or self._conn.backlog_bytes
        ):
            return False
        if data:
            self._send(data)
        return True

    def _send(self, data: bytes | memoryview) -> None:
        self._conn.push(b"".join((YamuxMachine.data_header(self._channel, len(data)), data)))

    async def _wait_for_window(self) -> None:
        while self._channel.sendable:
            if self._channel.send_window > 0:
                return
            self._waiting += 1
            try:
                await self._movable.park()
            finally:
                self._waiting -= 1
        raise MuxedStreamReset("the stream is closed")

    # --- reading ---

    @override
    async def read(self, n: int | None = -1) -> bytes:
        """Return what has come, at most ``n`` bytes.

        Raises:
            MuxedStreamEOF: The peer has finished.
            MuxedStreamReset: The stream was broken off, or the connection is gone.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if n == 0:
            return b""
        channel, conn = self._channel, self._conn
        while not channel.buffered:
            if channel.finished_by_peer and not self._aborted:
                raise MuxedStreamEOF("the peer has finished")
            if channel.reset:
                raise MuxedStreamReset("the stream was reset, or the connection is gone")
            await self._movable.park()
        data = conn.machine.read(channel, _READ_BYTES if n is None or n < 0 else n)
        conn.say()
        return data

    # --- ending ---

    @override
    async def close(self) -> None:
        """Say that nothing more will be sent; reading goes on."""
        self._conn.machine.finish(self._channel)
        self._settle()
        await trio.lowlevel.checkpoint_if_cancelled()

    @override
    async def reset(self) -> None:
        # py-libp2p resets every stream of a connection that is gone, and would take from
        # its reader what had arrived.
        if not self._conn.is_gone:
            self.abort()
        await trio.lowlevel.checkpoint_if_cancelled()

    def end(self) -> None:
        """End both directions: what was sent still arrives, nothing more is taken."""
        self._conn.machine.finish(self._channel)
        self.abort()

    def abort(self) -> None:
        """Reset the stream, unless both sides have finished."""
        self._aborted = True
        self._conn.machine.abort(self._channel)
        self._settle()

    def _settle(self) -> None:
        self._conn.say()
        if self.is_closed:
            self._conn.forget(self)
        self.wake()

    @override
    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("deadlines are Trio's cancel scopes")

    @override
    def get_remote_address(self) -> tuple[str, int] | None:
        return self._conn.get_remote_address()

    @override
    async def __aenter__(self) -> IMuxedStream:
        return self

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()


class MeshYamux(IMuxedConn):
    """A yamux connection over Noise over :class:`.libp2p_tcp.TcpStream`."""

    def __init__(self, conn: ISecureConn, peer_id: ID, *, emit: Emit) -> None:
        self.peer_id = peer_id
        self.secured_conn = conn
        self.machine = YamuxMachine(dialled=conn.is_initiator)
        self.event_started = trio.Event()
        self._cipher, self._tcp, self._read_ahead = layers(conn)
        self._emit = emit
        self._streams: dict[int, MeshYamuxStream] = {}
        self._acceptable = trio.Event()
        self._ended = False
        self._nursery: trio.Nursery | None = None
        self._flushing = False
        self._unyielded_bytes = 0

    @property
    @override
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    @override
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self._ended

    @property
    @override
    def is_closed(self) -> bool:
        return self._ended or self.machine.going_away

    @property
    def is_gone(self) -> bool:
        """Nothing comes or goes any more."""
        return self._ended

    # --- writing --------------------------------------------------------------------

    @property
    def backlog_bytes(self) -> int:
        """What was pushed and the socket has not taken yet."""
        return self._tcp.backlog_bytes

    def push(self, frame: bytes) -> None:
        """Encrypt a frame and hand it to the socket, at once and whole.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        self._tcp.push(self._cipher.seal(frame))
        if self._tcp.backlog_bytes and not self._flushing and self._nursery is not None:
            self._flushing = True
            self._nursery.start_soon(self._flush)

    def say(self) -> None:
        """Send the control frames that wait, unless the connection is gone: then it is moot."""
        frames = self.machine.take()
        try:
            for start in range(0, len(frames), PLAINTEXT_BYTES_MAX):
                self.push(frames[start : start + PLAINTEXT_BYTES_MAX])
        except ConnectionClosedError:
            # The reader finds the same out and ends every stream; a control frame has
            # no one else to tell.
            self._emit("transport.frame_dropped", peer=str(self.peer_id))

    async def room(self) -> None:
        """Wait until everything that was pushed is with the socket."""
        if self._tcp.backlog_bytes:
            await self._tcp.room()

    async def take_turns(self, size_bytes: int) -> None:
        """Let other tasks run now and then while the socket takes all that comes."""
        self._unyielded_bytes += size_bytes
        if self._unyielded_bytes >= _YIELD_BYTES:
            self._unyielded_bytes = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _flush(self) -> None:
        """Write the backlog out; a peer that takes nothing for long loses the connection."""
        try:
            while before := self._tcp.backlog_bytes:
                with trio.move_on_after(STALL_S) as scope:
                    await self._tcp.flush()
                if scope.cancelled_caught and self._tcp.backlog_bytes >= before:
                    raise ConnectionClosedError(f"took no byte for {STALL_S:.0f} s")
        finally:
            self._flushing = False

    # --- reading --------------------------------------------------------------------

    async def _read(self) -> None:
        self._hear(self._read_ahead)
        self._read_ahead = b""
        while size := await self._tcp.receive_into(self._cipher.room):
            for plaintext in self._cipher.open(size):
                self._hear(plaintext)
            if self._tcp.backlog_bytes > BACKLOG_BYTES_MAX:
                # Not before: while we wait, the peer may be waiting for us to read.  But a
                # peer that asks and never reads must not make the backlog grow without end.
                await self._tcp.room(BACKLOG_BYTES_MAX)

    def _hear(self, plaintext: bytes) -> None:
        changed = self.machine.receive(plaintext)
        if self.machine.opened:
            self._acceptable.set()
        self.say()
        for channel in changed:
            if (stream := self._streams.get(channel.id)) is not None:
                stream.wake()
                if stream.is_closed:
                    self.forget(stream)

    # --- streams --------------------------------------------------------------------

    @override
    async def open_stream(self) -> MeshYamuxStream:
        """Open a stream at once; nobody is asked, the peer may still reset it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended or self.machine.going_away:
            raise MuxedStreamError("the connection is shutting down")
        stream = self._stream(self.machine.open())
        self.say()
        return stream

    @override
    async def accept_stream(self) -> MeshYamuxStream:
        """Return the next stream that the peer opened.

        Raises:
            MuxedConnUnavailable: The connection is gone.
        """
        while not self.machine.opened:
            if self._ended:
                raise MuxedConnUnavailable("the connection is gone")
            self._acceptable = trio.Event()
            await self._acceptable.wait()
        return self._stream(self.machine.opened.pop(0))

    def _stream(self, channel: Channel) -> MeshYamuxStream:
        stream = MeshYamuxStream(self, channel)
        if not stream.is_closed:
            self._streams[channel.id] = stream
        return stream

    def forget(self, stream: MeshYamuxStream) -> None:
        """Drop a stream that is over; whoever holds it may still read what had come."""
        self._streams.pop(stream.stream_id, None)

    # --- life -----------------------------------------------------------------------

    @override
    async def start(self) -> None:
        """Run the connection until it ends; whatever goes wrong ends this one only."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.event_started.set()
                await self._read()
                nursery.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - reported to emit; it must not end the host
            self._emit("transport.connection_lost", peer=str(self.peer_id), error=_said(exc))
        finally:
            self._nursery = None
            self.event_started.set()  # whoever waits for the start must not wait for ever
            with trio.CancelScope(shield=True):
                await self._end()

    @override
    async def close(self) -> None:
        if self._ended:
            return
        self.machine.leave()
        self.say()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_S):
                await self.room()
            await self._end()

    async def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.machine.end()
        self._acceptable.set()
        for stream in list(self._streams.values()):
            stream.wake()
        self._streams.clear()
        await self._tcp.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return host and port of the other end."""
        return self._tcp.get_remote_address()

    @override
    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    @override
    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()


def _said(exc: Exception) -> str:
    """Return what went wrong, out of the groups that nurseries put it into."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return repr(exc)


class MeshMuxer(MuxerMultistream):
    """Negotiates yamux and nothing else, and makes :class:`MeshYamux`.

    py-libp2p's makes its own class, whatever it was configured with.
    """

    def __init__(self, emit: Emit, make: Any = MeshYamux) -> None:  # noqa: ANN401 - a class of either
        super().__init__({TProtocol(PROTOCOL_ID): Yamux})
        self._emit = emit
        self._make = make

    @override
    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(
            conn, conn.is_initiator, self.negotiate_timeout
        )
        muxed: IMuxedConn = self._make(conn, peer_id, emit=self._emit)
        return self._annotate_connection(muxed, conn, protocol)
