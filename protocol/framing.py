"""Frames on a byte stream: four bytes of length, then that many bytes.

The reader is fed whatever arrives and hands out whole frames; a length over the
limit is refused from its header, before its body is awaited.

Specified in protocol/spec/10-codec.md, "Framing"; vectors in
protocol/vectors/framing.json.
"""

from struct import Struct
from typing import Final

from protocol.errors import LocalProtocolError, Malformed, TooLarge
from protocol.limits import FRAME_SIZE_MAX

_LENGTH: Final = Struct(">I")


def frame(body: bytes, *, size_max: int = FRAME_SIZE_MAX) -> bytes:
    """Return ``body`` with its length before it; ``size_max`` as the reader's."""
    if not 0 < len(body) <= size_max:
        raise LocalProtocolError(f"a frame has 1 to {size_max} bytes, not {len(body)}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frames.

    After an error the reader refuses everything: the stream's boundaries are lost.
    """

    def __init__(self, *, size_max: int = FRAME_SIZE_MAX) -> None:
        self._size_max = size_max
        self._buffer = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes, in order.

        Raises:
            TooLarge: A header announces more than ``size_max``; frames completed
                before it in the same call are lost, as is the stream.
            Malformed: An empty frame, or fed after an error.
        """
        if self._broken:
            raise Malformed("the stream is broken already")
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        at = 0
        while len(buffer) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, at)
            if not 0 < size <= self._size_max:
                self._broken = True
                raise TooLarge(size, self._size_max) if size else Malformed("an empty frame")
            end = at + _LENGTH.size + size
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[at + _LENGTH.size : end]))
            at = end
        if at:
            del buffer[:at]
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has begun and isn't whole; 0 between frames."""
        return len(self._buffer)
