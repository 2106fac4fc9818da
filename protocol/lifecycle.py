"""The end of a key: where its node went on, or that nothing it says is to be believed.

A *rotation* is signed twice: the new key consents to go on for the old one, and the old
key signs that consent.  So nobody can be made the heir of a key that he doesn't want,
and whatever a rotation says stands in it once.  A *revocation* is the old key's word
alone; it can be made in advance and kept offline, since it need not name a time.

Both verify themselves: whoever brings one is believed as much as anybody else.

Specified in protocol/spec/22-lifecycle.md; vectors in protocol/vectors/lifecycle.json.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import Expired, LocalProtocolError, Malformed, TooLarge, UnknownType
from protocol.keys import Identity, digest
from protocol.signing import peek, seal, unseal

CONSENT: Final = "key.consent"
ROTATION: Final = "key.rotation"
REVOCATION: Final = "key.revocation"

#: Session requests: news of ended keys, and a comparison of what both know.
TELL: Final = "keys.tell"
COMPARE: Final = "keys.compare"


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer goes on for ``peer``.

    Attributes:
        peer: PeerId of the key that ends.
        from_ms: Unix time from which the issuer is that node.
    """

    peer: str
    from_ms: Count


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's key ends, and who consents goes on for it.

    Attributes:
        consent: Envelope of the heir's :class:`Consent`.
    """

    consent: bytes


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's key ends, and nobody goes on for it.

    Attributes:
        from_ms: Unix time from which nothing by it is believed; 0 for from when a reader
            has this.
        reason: For people, one line; may be empty.
    """

    from_ms: Count
    reason: str


class EndsKnown(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``keys.compare``: what the asker knows of ended keys.

    Attributes:
        names: The first :data:`~protocol.limits.STATEMENT_NAME_SIZE` bytes of the hash of
            each statement.
    """

    names: list[bytes]


class EndsTold(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``keys.tell``, and the answer to ``keys.compare``.

    Attributes:
        statements: Envelopes, at most :data:`~protocol.limits.STATEMENTS_TOLD_MAX`.
    """

    statements: list[bytes]


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said of the end of a key, verified.

    Attributes:
        peer: PeerId of the key that ends.
        heir: PeerId of who goes on for it; empty for nobody.
        from_ms: Unix time; 0 for from when a reader has it.
        reason: For people.
        envelope: What was signed.
    """

    peer: str
    heir: str
    from_ms: int
    reason: str
    envelope: bytes

    @property
    def name(self) -> bytes:
        """By what it is named in a comparison."""
        return digest(self.envelope)[: limits.STATEMENT_NAME_SIZE]


_CONSENT: Final = msgspec.msgpack.Decoder(Consent)
_ROTATION: Final = msgspec.msgpack.Decoder(Rotation)
_REVOCATION: Final = msgspec.msgpack.Decoder(Revocation)
_KNOWN: Final = msgspec.msgpack.Decoder(EndsKnown)
_TOLD: Final = msgspec.msgpack.Decoder(EndsTold)


def sign_rotation(old: Identity, new: Identity, network: str, *, from_ms: int) -> bytes:
    """Return the statement that ``new`` goes on for ``old`` from ``from_ms`` on.

    Raises:
        LocalProtocolError: Both are one key, or there is no time.
    """
    if old.peer == new.peer or from_ms <= 0:
        raise LocalProtocolError("a key is followed by another, from some time on")
    consent = seal(new, CONSENT, network, encode(Consent(peer=old.peer, from_ms=from_ms)))
    return seal(old, ROTATION, network, encode(Rotation(consent=consent)))


def sign_revocation(
    identity: Identity, network: str, *, from_ms: int = 0, reason: str = ""
) -> bytes:
    """Return the statement that nothing by ``identity`` is to be believed.

    Raises:
        LocalProtocolError: The reason is no line, or too long a one.
    """
    if not _is_reason(reason):
        raise LocalProtocolError(f"a reason is one line of {limits.REASON_SIZE_MAX} characters")
    payload = encode(Revocation(from_ms=from_ms, reason=reason))
    return seal(identity, REVOCATION, network, payload)


def read_statement(envelope: bytes, *, network: str, now_ms: int) -> Statement:
    """Return what ``envelope`` says of the end of a key.

    Raises:
        TooLarge: Over :data:`~protocol.limits.STATEMENT_SIZE_MAX`.
        Expired: It counts from a time still to come, beyond the skew allowed.
        RemoteProtocolError: Forged, for another network, or against the rules.
    """
    if len(envelope) > limits.STATEMENT_SIZE_MAX:
        raise TooLarge(len(envelope), limits.STATEMENT_SIZE_MAX)
    match kind := peek(envelope).t:
        case "key.rotation":
            read = _read_rotation(envelope, network)
        case "key.revocation":
            read = _read_revocation(envelope, network)
        case _:
            raise UnknownType(f"{kind[: limits.TYPE_SIZE_MAX]!r} ends no key")
    if read.from_ms > now_ms + limits.SKEW_MS_MAX:
        raise Expired(f"the key ends in the future, at {read.from_ms}")
    return read


def _read_rotation(envelope: bytes, network: str) -> Statement:
    parts = unseal(envelope, kind=ROTATION, network=network)
    inner = decode_as(parts.p, _ROTATION).consent
    agreed = unseal(inner, kind=CONSENT, network=network)
    consent = decode_as(agreed.p, _CONSENT)
    _need(consent.peer == parts.i, "its heir consented to go on for another")
    _need(agreed.i != parts.i, "a key is its own heir")
    _need(consent.from_ms > 0, "a rotation without a time")
    return Statement(parts.i, agreed.i, consent.from_ms, "", envelope)


def _read_revocation(envelope: bytes, network: str) -> Statement:
    parts = unseal(envelope, kind=REVOCATION, network=network)
    said = decode_as(parts.p, _REVOCATION)
    _need(_is_reason(said.reason), "a reason is one short line")
    return Statement(parts.i, "", said.from_ms, said.reason, envelope)


def _is_reason(text: str) -> bool:
    return len(text) <= limits.REASON_SIZE_MAX and (text.isprintable() or not text)


def read_known(body: bytes) -> frozenset[bytes]:
    """Return the names in the body of ``keys.compare``.

    Raises:
        Malformed: Not such a body, or over its limits.
    """
    names = decode_as(body, _KNOWN).names
    _need(len(names) <= limits.STATEMENTS_MAX, "too many names")
    _need(all(len(name) == limits.STATEMENT_NAME_SIZE for name in names), "a name's size")
    return frozenset(names)


def read_told(body: bytes) -> list[bytes]:
    """Return the statements in a body, not verified yet.

    Raises:
        Malformed: Not such a body, or too many.
    """
    told = decode_as(body, _TOLD).statements
    _need(len(told) <= limits.STATEMENTS_TOLD_MAX, "too many statements")
    return told


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"end of a key: {otherwise}")
