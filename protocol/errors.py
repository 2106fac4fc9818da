"""What can go wrong on the wire, and whose fault it is.

Callers treat the two kinds differently, so there are two base classes.  A
:class:`LocalProtocolError` is our bug: it fails a test here before it reaches a
peer.  A :class:`RemoteProtocolError` is the peer's: refuse the message, tell the
peer the ``code``, and count it.

Specified in protocol/spec/00-errors.md.
"""

from enum import IntEnum
from typing import ClassVar


class ErrorCode(IntEnum):
    """Numbers that travel on the wire.  Never reuse one (protocol/spec/00-errors.md)."""

    MALFORMED = 1
    TOO_LARGE = 2
    BAD_SIGNATURE = 3
    EXPIRED = 4
    OUT_OF_TURN = 5
    UNKNOWN_TYPE = 6
    WRONG_NETWORK = 7
    WRONG_AUDIENCE = 8
    STALE = 9
    REFUSED = 10
    BUSY = 11
    INTERNAL = 12
    CANCELLED = 13
    NOT_FOUND = 14
    DEADLINE = 15
    CREDIT = 16
    REVOKED = 17


class ProtocolError(Exception):
    """A rule of the mesh protocol was broken.  Raise a subclass, not this."""


class LocalProtocolError(ProtocolError):
    """This node was about to break the protocol: a bug here, not there."""


class RemoteProtocolError(ProtocolError):
    """A peer broke the protocol."""

    code: ClassVar[ErrorCode]


class Malformed(RemoteProtocolError):
    """Bytes that are not one canonical message of the expected shape."""

    code = ErrorCode.MALFORMED


class TooLarge(RemoteProtocolError):
    """Something longer than its limit, refused unread."""

    code = ErrorCode.TOO_LARGE

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes exceed the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class BadSignature(RemoteProtocolError):
    """The signature doesn't hold for these bytes, this type, this network and this key."""

    code = ErrorCode.BAD_SIGNATURE


class Expired(RemoteProtocolError):
    """A message outside the time in which it counts."""

    code = ErrorCode.EXPIRED


class OutOfTurn(RemoteProtocolError):
    """A well-formed message in a state that does not allow it."""

    code = ErrorCode.OUT_OF_TURN

    def __init__(self, message: str, state: str) -> None:
        super().__init__(f"{message} is not allowed while {state}")
        self.message = message
        self.state = state


class UnknownType(RemoteProtocolError):
    """A message type that this version doesn't know: refused, not ignored."""

    code = ErrorCode.UNKNOWN_TYPE


class WrongNetwork(RemoteProtocolError):
    """Signed for another mesh."""

    code = ErrorCode.WRONG_NETWORK


class WrongAudience(RemoteProtocolError):
    """Signed for another reader."""

    code = ErrorCode.WRONG_AUDIENCE


class Stale(RemoteProtocolError):
    """An older sequence or epoch than one already seen, or a repeated message id."""

    code = ErrorCode.STALE


class CreditExceeded(RemoteProtocolError):
    """The peer sent more than it was granted."""

    code = ErrorCode.CREDIT


class Revoked(RemoteProtocolError):
    """By a key that has ended: moved to another, or revoked."""

    code = ErrorCode.REVOKED


class NotCovered(RemoteProtocolError):
    """Something that the one who asks has no right to."""

    code = ErrorCode.REFUSED
