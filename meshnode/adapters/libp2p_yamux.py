"""Yamux as a node needs it: cancel-safe, bounded, without polling.

py-libp2p's yamux speaks the protocol well, and its reading side is used as it is.
Replaced is what breaks under a node's load, each with a test that fails without it:

* Frames are encrypted and handed to the socket in one step without a checkpoint
  (:meth:`MeshYamux.push`), so cancelling a send, an open or a receive never leaves
  half a frame.  Waiting happens before: for window, then for room in the backlog.
* A writer whose window is used up waits for as long as the peer doesn't read; it is
  woken by the window update (py-libp2p polls every 10 ms and gives up after 5 s).
* A receive that is cancelled loses no data, and a window update is sent when half
  the window is used up, not after every read.
* A connection that breaks within a frame is never taken for the end of a stream,
  and what had arrived whole is still delivered.
* A peer that ignores flow control loses the connection, instead of our memory.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, cast

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.io.utils import read_exactly
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import (
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux
from typing_extensions import override

from meshnode.adapters.libp2p_tcp import BACKLOG_BYTES_MAX, TcpStream
from meshnode.ports import Emit

HEADER: Final = struct.Struct(yamux.YAMUX_HEADER_FORMAT)
#: A frame of this much data and its header fill one Noise message exactly.
DATA_BYTES_MAX: Final = 65_535 - 16 - HEADER.size
_NOISE_BYTES_MAX: Final = 65_535 - 16
#: Let others run after this many bytes that the socket took at once.
_YIELD_BYTES: Final = 64 * 1024
#: A peer that takes no byte of the backlog for this long is gone, seconds.
STALL_S: Final = 30.0
#: How long a connection that is closed here may take to write out its backlog, seconds.
CLOSE_S: Final = 0.5
FRAME_READ_S: Final = 30.0


class PeerBroke(trio.TooSlowError):
    """The connection can't go on; py-libp2p closes it on this exception alone."""


class MeshYamuxStream(yamux.YamuxStream):
    """A stream that wakes its writer, and knows a real end from a broken connection."""

    def __init__(self, stream_id: int, conn: yamux.Yamux, is_initiator: bool) -> None:  # noqa: FBT001 - py-libp2p's signature
        self._sendable = trio.Event()
        self._reset_here = False
        #: The peer said that it has nothing more to send.
        self.finished_by_peer = False
        #: What had arrived when the connection went away.
        self.leftover: bytearray | None = None
        super().__init__(stream_id, conn, is_initiator)

    # py-libp2p's frame reader sets these attributes; being told of it saves polling.

    @property  # type: ignore[explicit-override]  # mypy misses it where there is a setter
    @override
    def send_window(self) -> int:
        """Bytes that the peer is ready to take."""
        return self._send_window

    @send_window.setter
    def send_window(self, value: int) -> None:
        self._send_window = value
        if value > 0:
            self._sendable.set()

    @property  # type: ignore[explicit-override]  # mypy misses it where there is a setter
    @override
    def closed(self) -> bool:
        """Both directions are over."""
        return self._closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self._closed = value
        if value:
            self._sendable.set()

    @property  # type: ignore[explicit-override]  # mypy misses it where there is a setter
    @override
    def recv_closed(self) -> bool:
        """Nothing more will come."""
        return self._recv_closed

    @recv_closed.setter
    def recv_closed(self, value: bool) -> None:
        self._recv_closed = value
        if value and not self._reset_here and not self.conn.event_shutting_down.is_set():
            self.finished_by_peer = True

    @property  # type: ignore[explicit-override]  # mypy misses it where there is a setter
    @override
    def recv_window(self) -> int:
        """Bytes that the peer may still send."""
        return self._recv_window

    @recv_window.setter
    def recv_window(self, value: int) -> None:
        if value < 0:
            raise PeerBroke(f"stream {self.stream_id}: {-value} bytes beyond the window")
        self._recv_window = value

    @property
    def _mesh(self) -> "MeshYamux":
        return cast("MeshYamux", self.conn)

    @override
    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        start = 0
        while start < len(data):
            await self._wait_for_window()
            await self._mesh.room()
            size = min(self.send_window, DATA_BYTES_MAX, len(data) - start)
            if size <= 0 or self.closed:  # changed while we waited for room
                continue
            self.send_window -= size
            header = HEADER.pack(0, yamux.TYPE_DATA, 0, self.stream_id, size)
            self._mesh.push(header + data[start : start + size])
            start += size
            await self._mesh.take_turns(size)

    async def _wait_for_window(self) -> None:
        while True:
            if self.send_closed or self.closed:
                raise MuxedStreamReset("the stream is closed")
            if self.send_window > 0:
                return
            self._sendable = trio.Event()
            await self._sendable.wait()

    @override
    async def read(self, n: int | None = -1) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        conn = self._mesh
        while True:
            if self._reset_here:
                raise MuxedStreamReset("closed here")
            buffer = conn.stream_buffers.get(self.stream_id) or self.leftover
            if buffer:
                size = len(buffer) if n is None or n < 0 else min(n, len(buffer))
                data = bytes(buffer[:size])
                del buffer[:size]
                self._give_credit(len(buffer))
                if self.closed and not buffer:
                    with trio.CancelScope(shield=True):
                        await conn._finalize_stream(self, fully_closed=True)
                return data
            if self.finished_by_peer:
                raise MuxedStreamEOF("the peer has finished")
            event = conn.stream_events.get(self.stream_id)
            if self.reset_received or self.closed or event is None:
                raise MuxedStreamReset("the stream was reset, or the connection is gone")
            await event.wait()
            if self.stream_id in conn.stream_events:
                conn.stream_events[self.stream_id] = trio.Event()

    def _give_credit(self, buffered: int) -> None:
        """Let the peer send more, once it has used up half of what it was given."""
        used = self.target_recv_window - (self.recv_window + buffered)
        if used < self.target_recv_window // 2 or self.recv_closed or self.closed:
            return
        credit = self._grow_to_delta(buffered) + self._apply_autotune_epoch(buffered)
        self._mesh.try_push(HEADER.pack(0, yamux.TYPE_WINDOW_UPDATE, 0, self.stream_id, credit))

    @override
    async def close(self) -> None:
        """Say that nothing more will be sent; reading goes on."""
        if not self.send_closed:
            self._send_flags(yamux.FLAG_FIN)
            self.send_closed = True
            self._sendable.set()
        if self.recv_closed:
            self.closed = True
        await self._finalize(fully_closed=self.closed)

    @override
    async def reset(self) -> None:
        # py-libp2p resets every stream of a lost connection, and would take from the
        # reader what had arrived.
        if not self.conn.event_shutting_down.is_set():
            self.abort()
        await self._finalize(fully_closed=True)

    def end(self) -> None:
        """End both directions: what was sent still arrives, nothing more is taken."""
        if not self.send_closed:
            self._send_flags(yamux.FLAG_FIN)
            self.send_closed = True
        self.abort()

    def abort(self) -> None:
        """Reset the stream, unless both sides have finished."""
        self._reset_here = True
        if not self.closed and not (self.send_closed and self.finished_by_peer):
            self._send_flags(yamux.FLAG_RST)
        self.send_closed = self.recv_closed = self.reset_received = True
        self.closed = True
        if buffer := self.conn.stream_buffers.get(self.stream_id):
            buffer.clear()  # nobody will read it
        event = self.conn.stream_events.get(self.stream_id)
        if event is not None:
            event.set()

    def _send_flags(self, flags: int) -> None:
        self._mesh.try_push(HEADER.pack(0, yamux.TYPE_WINDOW_UPDATE, flags, self.stream_id, 0))

    async def _finalize(self, *, fully_closed: bool) -> None:
        # Shielded: it waits for a lock that is held for moments, and must happen.
        with trio.CancelScope(shield=True):
            await self.conn._finalize_stream(self, fully_closed=fully_closed)


class MeshYamux(yamux.Yamux):
    """A yamux connection over Noise over :class:`TcpStream`."""

    stream_class = MeshYamuxStream

    def __init__(
        self,
        secured_conn: ISecureConn,
        peer_id: ID,
        *,
        is_initiator: bool,
        emit: Emit,
    ) -> None:
        super().__init__(secured_conn, peer_id, is_initiator=is_initiator)
        self._noise, self._tcp = _layers(secured_conn)
        self._emit = emit
        self._unyielded_bytes = 0

    # --- writing --------------------------------------------------------------------

    def push(self, frame: bytes) -> None:
        """Encrypt a frame and hand it to the socket, at once and whole.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        for start in range(0, len(frame), _NOISE_BYTES_MAX):
            sealed = self._noise.encrypt(frame[start : start + _NOISE_BYTES_MAX])
            self._tcp.push(self._noise.read_writer.encode_msg(sealed))

    def try_push(self, frame: bytes) -> None:
        """Send a control frame, unless the connection is gone: then it is moot."""
        try:
            self.push(frame)
        except ConnectionClosedError:
            # The frame reader finds the same out and ends every stream; a control
            # frame has no one else to tell.
            self._emit("transport.frame_dropped", peer=str(self.peer_id))

    async def room(self) -> None:
        """Wait until everything that was pushed is with the socket."""
        await self._tcp.room()

    async def take_turns(self, size_bytes: int) -> None:
        """Let other tasks run now and then while the socket takes all that comes."""
        self._unyielded_bytes += size_bytes
        if self._unyielded_bytes >= _YIELD_BYTES:
            self._unyielded_bytes = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    @override
    async def _write_frame(self, data: bytes) -> None:
        """Send a control frame for py-libp2p's frame reader: ACK, RST or PING.

        It doesn't wait for an empty backlog, since while the reader waits, the peer
        may be waiting for us to read; but it does wait before the backlog grows
        without end because the peer asks and never reads.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._tcp.room(BACKLOG_BYTES_MAX)
        self.push(data)

    async def _flush_for_ever(self) -> None:
        while True:
            await self._tcp.pending()
            before = self._tcp.backlog_bytes
            with trio.move_on_after(STALL_S) as scope:
                await self._tcp.flush()
            if scope.cancelled_caught and self._tcp.backlog_bytes >= before:
                raise ConnectionClosedError(f"took no byte for {STALL_S:.0f} s")

    # --- reading --------------------------------------------------------------------

    @override
    async def _read_data_body(self, length: int) -> bytes:
        try:
            with trio.fail_after(FRAME_READ_S):
                return await read_exactly(self.secured_conn, length)
        except (IOException, OSError, trio.TooSlowError) as exc:
            # py-libp2p would mark the stream as finished: half a frame as the end.
            self.event_shutting_down.set()
            raise PeerBroke("the connection broke within a frame") from exc

    # --- life -----------------------------------------------------------------------

    @override
    async def start(self) -> None:
        """Run the connection until it ends; whatever goes wrong ends this one only."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flush_for_ever)
                await super().start()
                nursery.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - reported to emit; it must not end the host
            self._emit("transport.connection_lost", peer=str(self.peer_id), error=repr(exc))
        finally:
            self.event_started.set()  # whoever waits for the start must not wait for ever
            with trio.CancelScope(shield=True):
                await self._cleanup_on_error()

    @override
    async def open_stream(self) -> yamux.YamuxStream:
        """Open a stream at once, or fail: a 257th would wait here without an end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.event_shutting_down.is_set():
            raise MuxedStreamError("the connection is shutting down")
        try:
            self.stream_backlog_semaphore.acquire_nowait()
        except trio.WouldBlock as exc:
            raise MuxedStreamError("too many streams are open on this connection") from exc
        stream = MeshYamuxStream(self.next_stream_id, self, True)  # noqa: FBT003 - py-libp2p's signature
        stream._owns_backlog_slot = True
        self.next_stream_id += 2
        self.streams[stream.stream_id] = stream
        self.stream_buffers[stream.stream_id] = bytearray()
        self.stream_events[stream.stream_id] = trio.Event()
        self.try_push(
            HEADER.pack(0, yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, stream.stream_id, 0)
        )
        return stream

    @override
    async def close(self, error_code: int = yamux.GO_AWAY_NORMAL) -> None:
        if self.event_shutting_down.is_set():
            return
        self.try_push(HEADER.pack(0, yamux.TYPE_GO_AWAY, 0, 0, error_code))
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_S):
                await self._tcp.room()
            await self._cleanup_on_error()

    @override
    async def _cleanup_on_error(self) -> None:
        if self.event_closed.is_set():
            return
        self.event_shutting_down.set()
        for stream_id, stream in self.streams.items():
            cast("MeshYamuxStream", stream).leftover = self.stream_buffers.get(stream_id)
        await super()._cleanup_on_error()


def _layers(secured_conn: ISecureConn) -> tuple[NoiseTransportReadWriter, TcpStream]:
    """Return the cipher and the socket below a secured connection."""
    assert isinstance(secured_conn, SecureSession)
    noise = secured_conn.conn
    assert isinstance(noise, NoiseTransportReadWriter), "Noise is the only security offered"
    raw = cast("Any", noise.read_writer.read_write_closer)
    assert isinstance(raw, RawConnection)
    assert isinstance(raw.stream, TcpStream), "TcpTransport is the only transport"
    return noise, raw.stream


class MeshMuxer(MuxerMultistream):
    """Negotiates yamux and nothing else, and makes :class:`MeshYamux`.

    py-libp2p's makes its own class, whatever it was configured with.
    """

    def __init__(self, emit: Emit, make: Callable[..., IMuxedConn] = MeshYamux) -> None:
        super().__init__({yamux.PROTOCOL_ID: yamux.Yamux})  # type: ignore[dict-item]  # TProtocol is a NewType of str
        self._emit = emit
        self._make = make

    @override
    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(
            conn, conn.is_initiator, self.negotiate_timeout
        )
        muxed = self._make(conn, peer_id, is_initiator=conn.is_initiator, emit=self._emit)
        return self._annotate_connection(muxed, conn, protocol)
