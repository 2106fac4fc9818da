"""Fetching an artifact: straight from its holder, with the broker's ticket.

The reader opens a stream and sends one :class:`Fetch`; the holder answers with one
:class:`Found` or :class:`NotHeld`, then the bytes from ``offset`` on, unframed, and
ends the stream.  The reader hashes what comes and refuses it if the hash differs.

Specified in protocol/spec/70-artifacts.md; vectors in protocol/vectors/artifacts.json.
"""

from typing import Final

import msgspec

from protocol.codec import Count, Hash, encode, scan
from protocol.errors import ErrorCode, Malformed, TooLarge
from protocol.framing import frame
from protocol.limits import ARTIFACT_SIZE_MAX

PROTOCOL: Final = "/meshnode/artifact/1"


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Send me the artifact that ``ticket`` names.

    Attributes:
        ticket: Signed ticket, or empty when the reader is its job's broker.
        artifact: SHA-256, 32 bytes.
        offset: First byte wanted.
    """

    ticket: bytes
    artifact: Hash
    offset: Count


class Found(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The bytes follow; ``size`` is the artifact's whole size."""

    size: Count


class NotHeld(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """No bytes follow; ``code`` is an :class:`~protocol.errors.ErrorCode`."""

    code: Count
    message: str


ArtifactMessage = Fetch | Found | NotHeld
_DECODER: Final["msgspec.msgpack.Decoder[ArtifactMessage]"] = msgspec.msgpack.Decoder(
    ArtifactMessage
)


def encode_message(message: ArtifactMessage) -> bytes:
    """Return ``message`` framed."""
    return frame(encode(message))


def decode_message(body: bytes) -> ArtifactMessage:
    """Return the message in ``body``.

    Raises:
        Malformed: Not one.
        TooLarge: The artifact is over :data:`~protocol.limits.ARTIFACT_SIZE_MAX`.
    """
    scan(body)
    try:
        message = _DECODER.decode(body)
    except msgspec.ValidationError as exc:
        raise Malformed(f"artifact message: {exc}") from exc
    if isinstance(message, Found) and message.size > ARTIFACT_SIZE_MAX:
        raise TooLarge(message.size, ARTIFACT_SIZE_MAX)
    return message


def not_held(code: ErrorCode, message: str) -> bytes:
    """Return a framed refusal."""
    return encode_message(NotHeld(code, message[:500]))
