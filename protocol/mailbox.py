"""What is said to a mailbox: a node that keeps sealed letters for others.

Bodies of session requests, whose transport proves who asks: they are not signed.  What
weighs anything is inside: sealed letters, which the mailbox can't read, and the reader's
signed acknowledgements, by which it may forget them.

Specified in protocol/spec/90-mail.md; vectors in protocol/vectors/mail.json.
"""

from typing import Any, Final, TypeVar

import msgspec

from protocol import limits
from protocol.codec import Count, Hash, decode_as
from protocol.errors import Malformed, TooLarge
from protocol.keys import public_key
from protocol.messages import HASH_SIZE


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """On the wire an array of its fields."""


class Deposit(_Body, frozen=True, array_like=True):
    """Body of ``mail.deposit``: keep this for ``recipient``.

    Attributes:
        recipient: PeerId.
        expires_ms: Unix time from which nobody wants it.
        sealed: A sealed letter.
    """

    recipient: str
    expires_ms: Count
    sealed: bytes


class Held(_Body, frozen=True, array_like=True):
    """A deposit, as its recipient gets it.

    Attributes:
        depositor: PeerId of who brought it, as the mailbox says.
        sealed: A sealed letter.
    """

    depositor: str
    sealed: bytes


class Collect(_Body, frozen=True, array_like=True):
    """Body of ``mail.collect``: what is here for me?

    Attributes:
        record: The asker's own signed record, for those who want to seal to it.
        acks: Its acknowledgements of what it got before.
        after: Hash of the sealed letter that the answer goes on after, or empty.
    """

    record: bytes
    acks: list[bytes]
    after: bytes = b""


class Collected(_Body, frozen=True, array_like=True):
    """Answer to ``mail.collect``.

    Attributes:
        letters: The oldest first.
        more: There are others after these.
    """

    letters: list[Held]
    more: bool


class Inquiry(_Body, frozen=True, array_like=True):
    """Body of ``mail.acks``: what became of what I brought?

    Attributes:
        sealed: Hashes of the asker's deposits.
        done: Hashes of those whose letter waits no longer: they may be forgotten.
    """

    sealed: list[Hash]
    done: list[Hash]


class Acks(_Body, frozen=True, array_like=True):
    """Answer to ``mail.acks``.

    Attributes:
        acks: For each hash asked for the recipient's acknowledgement, or empty.
        gone: Those of the hashes of which nothing is kept here any more.
    """

    acks: list[bytes]
    gone: list[Hash] = []


class KeyQuery(_Body, frozen=True, array_like=True):
    """Body of ``mail.key``: to which key do I seal?  Answered with a :class:`KeyRecord`."""

    peer: str


class KeyRecord(_Body, frozen=True, array_like=True):
    """The record that ``peer`` left here, expired or not; empty if it left none."""

    record: bytes


Body = TypeVar("Body", bound=_Body)

_DECODERS: Final[dict[type[_Body], "msgspec.msgpack.Decoder[Any]"]] = {
    kind: msgspec.msgpack.Decoder(kind)
    for kind in (Deposit, Collect, Collected, Inquiry, Acks, KeyQuery, KeyRecord)
}


def read_body(body: bytes, kind: type[Body]) -> Body:
    """Return the body of a request to a mailbox, or of its answer.

    Raises:
        TooLarge: A part is over its limit.
        Malformed: Not such a body, or too many parts.
    """
    read: Body = decode_as(body, _DECODERS[kind])
    match read:
        case Deposit():
            public_key(read.recipient)
            _fits(len(read.sealed), limits.SEALED_SIZE_MAX)
            _need(bool(read.sealed), "a deposit of nothing")
        case Collect():
            _fits(len(read.record), limits.RECORD_SIZE_MAX)
            _check_acks(read.acks)
            _need(len(read.after) in {0, HASH_SIZE}, "to go on after what is no hash")
        case Collected():
            _need(len(read.letters) <= limits.DEPOSITS_MAX, "too many letters at once")
            for held in read.letters:
                public_key(held.depositor)
                _fits(len(held.sealed), limits.SEALED_SIZE_MAX)
            together = sum(len(held.sealed) for held in read.letters)
            _fits(together, limits.COLLECTED_BYTES_MAX)
        case Inquiry():
            _need(len(read.sealed) + len(read.done) <= limits.DEPOSITS_MAX, "too many hashes")
        case Acks():
            _check_acks(read.acks)
            _need(len(read.gone) <= limits.DEPOSITS_MAX, "too many hashes")
        case KeyQuery():
            public_key(read.peer)
        case KeyRecord():
            _fits(len(read.record), limits.RECORD_SIZE_MAX)
        case _:
            pass
    return read


def _check_acks(acks: list[bytes]) -> None:
    _need(len(acks) <= limits.DEPOSITS_MAX, "too many acknowledgements")
    for ack in acks:
        _fits(len(ack), limits.LETTER_ACK_SIZE_MAX)


def _fits(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(size, limit)


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"mailbox: {otherwise}")
