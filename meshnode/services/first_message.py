"""The first message of a stream, which says what the rest of it is about."""

from typing import Final

from meshnode.errors import StreamLost
from meshnode.ports import Stream
from protocol.framing import FrameReader

_LENGTH_BYTES: Final = 4


async def first_message(stream: Stream) -> tuple[bytes, bytearray]:
    """Return the first framed message of ``stream`` and what came behind it.

    Raises:
        StreamLost: It ended before.
        RemoteProtocolError: Too large, or empty.
    """
    header = bytearray()
    while len(header) < _LENGTH_BYTES:
        header += await _some(stream)
    size = int.from_bytes(header[:_LENGTH_BYTES], "big")
    reader = FrameReader()
    reader.feed(bytes(header[:_LENGTH_BYTES]))
    while len(header) < _LENGTH_BYTES + size:
        header += await _some(stream)
    (body,) = reader.feed(bytes(header[_LENGTH_BYTES : _LENGTH_BYTES + size]))
    return body, header[_LENGTH_BYTES + size :]


async def _some(stream: Stream) -> bytes:
    data = await stream.receive()
    if not data:
        raise StreamLost("the stream ended before its first message")
    return data
