"""Yamux without I/O: bytes in, bytes out, and what each stream may read and send.

One connection carries many streams; each has a window, the bytes that its sender may
send before the reader has taken some.  The machine is fed whatever arrives, in any
cut, and says which streams something happened to; what it has to answer (window
updates, acknowledgements, pongs) waits in :meth:`YamuxMachine.take`.  It knows no
socket, task or clock: :mod:`.libp2p_yamux` drives it.

Bounded whatever a peer sends: bytes that wait are within the windows granted, many
tiny frames are kept as few pieces, windows grow only out of an allowance that the
streams of a connection share, and streams over :data:`STREAMS_MAX` are reset.

Specified by hashicorp/yamux, spec.md, and libp2p/specs, yamux/README.md.
"""

import struct
from collections import deque
from typing import Final

HEADER: Final = struct.Struct("!BBHII")
DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

#: What either side may send on a new stream, bytes; fixed by the specification.
WINDOW_BYTES: Final = 256 * 1024
#: Largest window that a stream grows to, bytes.
WINDOW_BYTES_MAX: Final = 1024 * 1024
#: How much the windows of one connection may grow in all, bytes: what a peer that
#: makes them grow and is then no longer read can have us hold beside the first windows.
GROWTH_BYTES_MAX: Final = 4 * 1024 * 1024
#: Streams that the peer may have open on one connection.
STREAMS_MAX: Final = 256
#: Pieces smaller than this are put together, bytes: a byte object costs some 40.
_SMALL_BYTES: Final = 4096
#: More than any sender uses; it keeps a window that a peer makes up within reason.
_SEND_WINDOW_MAX: Final = 2**32


class PeerBroke(Exception):
    """The peer broke yamux's rules; the connection can't go on."""


class Channel:
    """One stream, as the machine knows it.

    Attributes:
        id: Odd if the dialler of the connection opened it.
        send_window: Bytes that the peer is ready to take.
        window: Bytes that the peer may have on their way to our reader at most.
        credit: Of those, what it has not used.
        buffered: Bytes that wait to be read.
        finished_here: We said that we have nothing more to send.
        finished_by_peer: The peer said so.
        reset: Either side broke it off, or the connection is gone.
    """

    __slots__ = (
        "_at",
        "_pieces",
        "buffered",
        "credit",
        "finished_by_peer",
        "finished_here",
        "id",
        "reset",
        "send_window",
        "window",
    )

    def __init__(self, channel_id: int) -> None:
        self.id = channel_id
        self.send_window = WINDOW_BYTES
        self.buffered = 0
        self.finished_here = self.finished_by_peer = self.reset = False
        self.window = self.credit = WINDOW_BYTES
        self._pieces: deque[bytes] = deque()
        self._at = 0  # how far the first piece was read

    @property
    def sendable(self) -> bool:
        """Whether more may be sent, now or once there is window."""
        return not (self.finished_here or self.reset)

    def arrive(self, piece: bytes) -> None:
        """Keep what came until it is read."""
        if self.finished_by_peer or self.reset:
            return  # nobody will read it
        pieces, size = self._pieces, len(piece)
        if len(pieces) > 1 and size < _SMALL_BYTES and len(pieces[-1]) < _SMALL_BYTES:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        self.buffered += size

    def take(self, size_max: int) -> bytes:
        """Return 1 to ``size_max`` of the bytes that are buffered."""
        pieces = self._pieces
        if self._at == 0 and self.buffered <= size_max:
            taken = pieces.popleft() if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self.buffered = 0
            return taken
        first, start = pieces[0], self._at
        taken = first[start : start + size_max]
        self._at += len(taken)
        self.buffered -= len(taken)
        if self._at == len(first):
            pieces.popleft()
            self._at = 0
        return taken

    def drop(self) -> None:
        """Forget what is buffered: nobody will read it."""
        self._pieces.clear()
        self.buffered = self._at = 0


class YamuxMachine:
    """One side of one connection.

    Attributes:
        channels: The open streams, by id.
        opened: Streams that the peer opened, for the driver to take.
        opened_here: How many of the open ones are ours.
        going_away: The peer wants no new streams.
    """

    def __init__(self, *, dialled: bool) -> None:
        self.channels: dict[int, Channel] = {}
        self.opened: list[Channel] = []
        self.opened_here = 0
        self.going_away = False
        self._next_id = 1 if dialled else 2
        self._out: list[bytes] = []
        self._growth_bytes = GROWTH_BYTES_MAX
        self._head = b""  # of a header that has come in part
        self._body_of: Channel | None = None
        self._body_left = 0
        self._body_flags = 0

    # --- our side ---

    def open(self) -> Channel:
        """Open a stream."""
        channel = self.channels[self._next_id] = Channel(self._next_id)
        self._next_id += 2
        self.opened_here += 1
        self._say(WINDOW_UPDATE, SYN, channel.id, 0)
        return channel

    @staticmethod
    def data_header(channel: Channel, size: int) -> bytes:
        """Return the header for ``size`` bytes of data, at most the window, to be sent now."""
        channel.send_window -= size
        return HEADER.pack(0, DATA, 0, channel.id, size)

    def read(self, channel: Channel, size_max: int) -> bytes:
        """Return 1 to ``size_max`` of the bytes that are buffered, and let more come."""
        taken = channel.take(size_max)
        used = channel.window - channel.credit - channel.buffered
        # Not after every read: an update costs as much as a small frame of data.
        if used >= channel.window // 2 and not channel.finished_by_peer and not channel.reset:
            grant = used + self._growth(channel)
            channel.credit += grant
            self._say(WINDOW_UPDATE, 0, channel.id, grant)
        return taken

    def _growth(self, channel: Channel) -> int:
        """Widen the window of a stream whose reader keeps up: the way is what holds it up."""
        grown = min(channel.window, WINDOW_BYTES_MAX - channel.window, self._growth_bytes)
        if channel.buffered or grown <= 0:
            return 0
        channel.window += grown
        self._growth_bytes -= grown
        return grown

    def finish(self, channel: Channel) -> None:
        """Say that nothing more will be sent."""
        if channel.sendable:
            channel.finished_here = True
            self._say(WINDOW_UPDATE, FIN, channel.id, 0)
            if channel.finished_by_peer:
                self._remove(channel)

    def abort(self, channel: Channel) -> None:
        """Break a stream off, unless both sides have finished; what waits is dropped."""
        if not channel.reset and not (channel.finished_here and channel.finished_by_peer):
            self._say(WINDOW_UPDATE, RST, channel.id, 0)
        self._reset(channel)
        channel.drop()

    def leave(self, code: int = 0) -> None:
        """Tell the peer that the connection ends."""
        self._say(GO_AWAY, 0, 0, code)

    def end(self) -> list[Channel]:
        """The connection is gone: return the streams that broke with it."""
        broken = list(self.channels.values())
        for channel in broken:
            self._reset(channel)
        self._out.clear()
        return broken

    def take(self) -> bytes:
        """Return what has to be said now; often nothing."""
        out = self._out
        if not out:
            return b""
        said = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return said

    def _say(self, kind: int, flags: int, channel_id: int, value: int) -> None:
        self._out.append(HEADER.pack(0, kind, flags, channel_id, value))

    def _reset(self, channel: Channel) -> None:
        channel.reset = True
        self._remove(channel)

    def _remove(self, channel: Channel) -> None:
        if self.channels.pop(channel.id, None) is not None:
            if channel in self.opened:
                # Opened and broken off before anybody took it: a peer that does nothing
                # else must not keep us busy beginning what is over.
                self.opened.remove(channel)
            self._growth_bytes += channel.window - WINDOW_BYTES
            self.opened_here -= channel.id % 2 == self._next_id % 2

    # --- the peer's side ---

    def receive(self, data: bytes) -> list[Channel]:
        """Take in what arrived, and return the streams that something happened to.

        Raises:
            PeerBroke: The peer broke a rule; :meth:`end` the connection.
        """
        changed: list[Channel] = []
        if self._head:
            data = self._head + data
            self._head = b""
        at, end = 0, len(data)
        while at < end:
            if self._body_left:
                at = self._body(data, at, changed)
                continue
            if end - at < HEADER.size:
                self._head = data[at:]
                break
            version, kind, flags, channel_id, value = HEADER.unpack_from(data, at)
            at += HEADER.size
            if version != 0 or kind > GO_AWAY:
                raise PeerBroke(f"frame of version {version}, type {kind}")
            if kind <= WINDOW_UPDATE:
                self._stream_frame(kind, flags, channel_id, value, changed)
            elif kind == PING:
                if not flags & ACK:
                    self._say(PING, ACK, 0, value)
            else:
                self.going_away = True
        return changed

    def _stream_frame(
        self, kind: int, flags: int, channel_id: int, value: int, changed: list[Channel]
    ) -> None:
        channel = self.channels.get(channel_id)
        if flags & SYN:
            channel = self._open(channel_id)
        if kind == DATA:
            if channel is not None:
                channel.credit -= value
                if channel.credit < 0:
                    raise PeerBroke(
                        f"stream {channel_id}: {-channel.credit} bytes beyond the window"
                    )
            if value:
                self._body_of, self._body_left, self._body_flags = channel, value, flags
                return
        elif channel is not None:
            channel.send_window = min(channel.send_window + value, _SEND_WINDOW_MAX)
        if channel is not None:
            self._end_by_flags(channel, flags)
            changed.append(channel)

    def _open(self, channel_id: int) -> Channel | None:
        """Take a stream that the peer opens; None if there are too many."""
        if channel_id == 0 or channel_id % 2 == self._next_id % 2:
            raise PeerBroke(f"opened stream {channel_id}, which isn't its to open")
        if channel_id in self.channels:
            raise PeerBroke(f"opened stream {channel_id} twice")
        if len(self.channels) - self.opened_here >= STREAMS_MAX:
            self._say(WINDOW_UPDATE, RST, channel_id, 0)
            return None
        channel = self.channels[channel_id] = Channel(channel_id)
        self._say(WINDOW_UPDATE, ACK, channel_id, 0)
        self.opened.append(channel)
        return channel

    def _body(self, data: bytes, at: int, changed: list[Channel]) -> int:
        """Pass on data that has come, be it part of a frame; return where it ends."""
        stop = min(at + self._body_left, len(data))
        self._body_left -= stop - at
        channel = self._body_of
        if channel is not None:
            channel.arrive(data[at:stop])
            if not self._body_left:
                self._end_by_flags(channel, self._body_flags)
            changed.append(channel)
        return stop

    def _end_by_flags(self, channel: Channel, flags: int) -> None:
        if flags & RST:
            self._reset(channel)
        elif flags & FIN and not channel.finished_by_peer:
            channel.finished_by_peer = True
            if channel.finished_here:
                self._remove(channel)
