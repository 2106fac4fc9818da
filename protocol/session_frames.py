"""What is said on a session: eleven frames, each an array that opens with its number.

A later version may append elements, which this one passes over: frames aren't signed
and no hash names them.

Specified in protocol/spec/50-sessions.md; vectors in protocol/vectors/session.json.
"""

from typing import Final

import msgspec

from protocol.codec import decode_as, encode
from protocol.errors import Malformed, UnknownType
from protocol.framing import frame


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """A session frame; on the wire an array that opens with its type number."""


class Hello(_Frame, frozen=True, array_like=True, tag=0):
    """First frame of the dialler."""

    network: str
    versions: list[int]
    features: list[str]
    time_ms: int


class Welcome(_Frame, frozen=True, array_like=True, tag=1):
    """The listener's answer: what was picked, and its clock."""

    version: int
    features: list[str]
    time_ms: int
    echo_ms: int


class Ping(_Frame, frozen=True, array_like=True, tag=2):
    """Are you there, and what time is it?"""

    time_ms: int


class Pong(_Frame, frozen=True, array_like=True, tag=3):
    """Here; ``echo_ms`` is the ping's own time."""

    echo_ms: int
    time_ms: int


class Request(_Frame, frozen=True, array_like=True, tag=4):
    """Do ``method`` with ``body``; give up after ``timeout_ms``."""

    rid: int
    method: str
    timeout_ms: int
    credit: int
    traceparent: str
    body: bytes


class Item(_Frame, frozen=True, array_like=True, tag=5):
    """One piece of a streamed answer; costs one credit."""

    rid: int
    body: bytes


class Reply(_Frame, frozen=True, array_like=True, tag=6):
    """The end of an answer."""

    rid: int
    body: bytes


class Failure(_Frame, frozen=True, array_like=True, tag=7):
    """The end of a request that failed; ``code`` is an :class:`ErrorCode`."""

    rid: int
    code: int
    message: str
    retry_after_ms: int


class CancelRequest(_Frame, frozen=True, array_like=True, tag=8):
    """The asker no longer wants the answer."""

    rid: int


class Credit(_Frame, frozen=True, array_like=True, tag=9):
    """The replier may send ``items`` more."""

    rid: int
    items: int


class Goodbye(_Frame, frozen=True, array_like=True, tag=10):
    """No new requests from here on; open ones finish."""

    code: int
    reason: str


SessionFrame = (
    Hello
    | Welcome
    | Ping
    | Pong
    | Request
    | Item
    | Reply
    | Failure
    | CancelRequest
    | Credit
    | Goodbye
)

_DECODER: Final["msgspec.msgpack.Decoder[SessionFrame]"] = msgspec.msgpack.Decoder(SessionFrame)
_TYPES: Final = 11
#: An array header (0x9n) and then the type number as a small integer.
_TYPE_AT: Final = 1
_ARRAYS_FROM: Final = 0x90
_ARRAYS_TO: Final = 0xA0
_SMALL_INTEGERS_TO: Final = 0x80


def decode_frame(body: bytes) -> SessionFrame:
    """Return the session frame in ``body``.

    Raises:
        Malformed: Not canonical, or fields of the wrong type.
        UnknownType: A type number that version 1 doesn't have.
    """
    try:
        return decode_as(body, _DECODER)
    except Malformed as exc:
        is_array = len(body) > _TYPE_AT and _ARRAYS_FROM < body[0] < _ARRAYS_TO
        is_unknown = is_array and _TYPES <= body[_TYPE_AT] < _SMALL_INTEGERS_TO
        if is_unknown and isinstance(exc.__cause__, msgspec.ValidationError):
            raise UnknownType(f"session frame type {body[_TYPE_AT]}") from exc
        raise Malformed(f"session frame: {exc}") from exc


def encode_frame(message: SessionFrame) -> bytes:
    """Return ``message`` framed, ready to write."""
    return frame(encode(message))
