"""When a message counts: for its reader, and from its issue to its expiry.

The only check of a message that needs a clock; all others are made on reading
(:func:`protocol.messages.read_message`).

Specified in protocol/spec/60-contracts.md, "Header".
"""

from protocol import limits
from protocol.errors import Expired, WrongAudience
from protocol.messages import Message


def check_timely(message: Message, *, audience: str, now_ms: int) -> None:
    """Refuse a message that is not for ``audience`` or doesn't count at ``now_ms``.

    Args:
        message: Read before.
        audience: This node's PeerId.
        now_ms: Unix time of the *issuer's* clock: ours plus the offset learned at hello.

    Raises:
        WrongAudience: For somebody else.
        Expired: Lapsed, or issued in the future, beyond the skew allowed.
    """
    header = message.h
    if header.audience != audience:
        raise WrongAudience(f"this {message.TYPE} is for {header.audience[:60]}")
    if now_ms >= header.expires_ms + limits.SKEW_MS_MAX:
        raise Expired(f"this {message.TYPE} expired at {header.expires_ms}")
    if header.issued_ms > now_ms + limits.SKEW_MS_MAX:
        raise Expired(f"this {message.TYPE} was issued in the future, at {header.issued_ms}")
