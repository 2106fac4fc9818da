"""Letters: what one node's owner writes to another's, who may be away.

A letter is a signed message (:mod:`protocol.messages`) that lives for days.  Its reader
answers with a signed acknowledgement once the letter is written down, so the sender can
ask again until it has one, and nothing follows from asking twice.

Where a third node keeps a letter meanwhile, it keeps it sealed: a fresh X25519 key for
each letter, the reader's key from its signed record, ChaCha20-Poly1305.  The seal proves
nothing about the sender, which the signature inside does; that one names the reader, so
nobody can seal a letter again for somebody else.  The sender's chain of invitations goes
in with it, for a reader that can't ask whoever wrote.

Specified in protocol/spec/90-mail.md; vectors in protocol/vectors/mail.json.
"""

import re
from typing import ClassVar, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.public import PrivateKey

from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Expired, LocalProtocolError, Malformed, TooLarge, WrongAudience
from protocol.keys import KEY_SIZE, Identity, agree, public_key
from protocol.messages import HASH_SIZE, Message, read_message, sign_message

#: What a sealed letter's key is derived for.
_PURPOSE: Final = b"meshnode/1/sealed"
#: Each key seals one letter, so there is no second nonce to differ from.
_NONCE: Final = bytes(12)
_KIND: Final = re.compile(rf"[a-z0-9][a-z0-9.+/_-]{{0,{limits.LETTER_KIND_SIZE_MAX - 1}}}")
_REASON_SIZE_MAX: Final = 64


class Letter(Message, frozen=True, kw_only=True):
    """From the header's issuer to its audience.

    Attributes:
        kind: Media type of the body, such as ``text/plain``.
        subject: One line for people; may be empty.
        body: What is said.
        answers: Hash of the letter's envelope that this one answers, or empty.
    """

    TYPE: ClassVar[str] = "letter"

    kind: str
    subject: str
    body: bytes
    answers: bytes


class LetterAck(Message, frozen=True, kw_only=True):
    """The reader has the letter on its disk, or never will.

    Attributes:
        letter: Hash of the letter's envelope; empty if it couldn't be opened.
        sealed: Hash of the sealed letter that it came in; empty if it came straight.
        state: ``kept`` or ``refused``.
        reason: Stable code of a refusal, or empty.
    """

    TYPE: ClassVar[str] = "letter.ack"

    letter: bytes
    sealed: bytes
    state: Literal["kept", "refused"]
    reason: str


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A letter that only its reader can open.  Named by its hash: no unknown fields.

    Attributes:
        c: Encrypted :class:`Enclosed`, with its tag of 16 bytes.
        e: X25519 public key made for this letter alone, 32 bytes.
    """

    c: bytes
    e: bytes


class Enclosed(msgspec.Struct, frozen=True, array_like=True):
    """What is inside.

    Attributes:
        letter: Envelope.
        links: The sender's chain of invitations (25-membership.md).
    """

    letter: bytes
    links: list[bytes]


_SEALED: Final = msgspec.msgpack.Decoder(Sealed)
_ENCLOSED: Final = msgspec.msgpack.Decoder(Enclosed)


# --- letters ---


def sign_letter(identity: Identity, letter: Letter) -> bytes:
    """Return the signed envelope of ``letter``.

    Raises:
        LocalProtocolError: It breaks a limit, or isn't ``identity``'s own.
    """
    try:
        _check_letter(letter)
    except Malformed as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    envelope = sign_message(identity, letter)
    if len(envelope) > limits.LETTER_SIZE_MAX:
        raise LocalProtocolError(f"a letter of {len(envelope)} bytes")
    return envelope


def read_letter(envelope: bytes, *, network: str) -> Letter:
    """Return the letter in ``envelope`` after every check that needs no clock.

    Raises:
        TooLarge: Over :data:`~protocol.limits.LETTER_SIZE_MAX`.
        RemoteProtocolError: Forged, of another type or network, or against the rules.
    """
    if len(envelope) > limits.LETTER_SIZE_MAX:
        raise TooLarge(len(envelope), limits.LETTER_SIZE_MAX)
    letter = read_message(envelope, Letter, network=network)
    _check_letter(letter)
    return letter


def check_letter_time(letter: Letter, *, audience: str, now_ms: int) -> None:
    """Refuse a letter that is not for ``audience`` or is past its time.

    Args:
        letter: Read before.
        audience: This node's PeerId.
        now_ms: Unix time of the sender's clock, if that is known, or ours.

    Raises:
        WrongAudience: For somebody else.
        Expired: Lapsed, or issued in the far future.
    """
    header = letter.h
    if header.audience != audience:
        raise WrongAudience(f"this letter is for {header.audience[:60]}")
    if now_ms >= header.expires_ms + limits.SKEW_MS_MAX:
        raise Expired(f"this letter expired at {header.expires_ms}")
    if header.issued_ms > now_ms + limits.LETTER_SKEW_MS_MAX:
        raise Expired(f"this letter was issued in the future, at {header.issued_ms}")


def _check_letter(letter: Letter) -> None:
    lifetime_ms = letter.h.expires_ms - letter.h.issued_ms
    _need(lifetime_ms <= limits.LETTER_LIFETIME_MS_MAX, "it lives longer than 30 days")
    public_key(letter.h.audience)
    _need(_KIND.fullmatch(letter.kind) is not None, "its kind is no media type")
    _need(len(letter.subject) <= limits.LETTER_SUBJECT_SIZE_MAX, "its subject is too long")
    _need(letter.subject.isprintable(), "its subject is not one line of text")
    _need(len(letter.body) <= limits.LETTER_BODY_SIZE_MAX, "its body is too large")
    _need(_is_hash_or_empty(letter.answers), "it answers what is no hash")


# --- acknowledgements ---


def sign_ack(identity: Identity, ack: LetterAck) -> bytes:
    """Return the signed envelope of ``ack``.

    Raises:
        LocalProtocolError: It breaks a rule, or isn't ``identity``'s own.
    """
    try:
        _check_ack(ack)
    except Malformed as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    return sign_message(identity, ack)


def read_ack(envelope: bytes, *, network: str) -> LetterAck:
    """Return the acknowledgement in ``envelope``.

    Raises:
        TooLarge: Over :data:`~protocol.limits.LETTER_ACK_SIZE_MAX`.
        RemoteProtocolError: Forged, of another type or network, or against the rules.
    """
    if len(envelope) > limits.LETTER_ACK_SIZE_MAX:
        raise TooLarge(len(envelope), limits.LETTER_ACK_SIZE_MAX)
    ack = read_message(envelope, LetterAck, network=network)
    _check_ack(ack)
    return ack


def _check_ack(ack: LetterAck) -> None:
    _need(_is_hash_or_empty(ack.letter), "it acknowledges what is no hash")
    _need(_is_hash_or_empty(ack.sealed), "it names a sealed letter by no hash")
    _need(bool(ack.letter or ack.sealed), "it acknowledges nothing")
    if ack.state == "kept":
        _need(bool(ack.letter) and not ack.reason, "what was kept has a name, and no reason")
    else:
        _need(0 < len(ack.reason) <= _REASON_SIZE_MAX, "it refuses without a code")


# --- sealing ---


def seal_letter(
    enclosed: Enclosed, *, recipient: str, x25519: bytes, network: str, secret: bytes
) -> bytes:
    """Return ``enclosed`` for nobody but ``recipient``, as canonical bytes.

    Args:
        enclosed: Letter and chain.
        recipient: PeerId.
        x25519: Its key, from its signed record.
        network: Network id.
        secret: 32 random bytes, for this letter alone.

    Raises:
        Malformed: ``x25519`` is no key.
        LocalProtocolError: ``enclosed`` is too large.
    """
    public = bytes(PrivateKey(secret).public_key)
    box = _cipher(agree(secret, x25519), (network, recipient), (public, x25519))
    sealed = encode(Sealed(box.encrypt(_NONCE, encode(enclosed), None), public))
    if len(sealed) > limits.SEALED_SIZE_MAX:
        raise LocalProtocolError(f"a sealed letter of {len(sealed)} bytes")
    return sealed


def open_sealed(identity: Identity, sealed: bytes, *, network: str) -> Enclosed:
    """Return what was sealed to ``identity``; neither letter nor chain is verified yet.

    Raises:
        TooLarge: Over :data:`~protocol.limits.SEALED_SIZE_MAX`.
        Malformed: Not sealed to this node in this mesh, or altered since.
    """
    if len(sealed) > limits.SEALED_SIZE_MAX:
        raise TooLarge(len(sealed), limits.SEALED_SIZE_MAX)
    parts = decode_as(sealed, _SEALED)
    keys = (parts.e, identity.x25519_public)
    box = _cipher(identity.agree(parts.e), (network, identity.peer), keys)
    try:
        plain = box.decrypt(_NONCE, parts.c, None)
    except InvalidTag as exc:
        raise Malformed("mail: not sealed to this node, or altered") from exc
    enclosed = decode_as(plain, _ENCLOSED)
    _need(len(enclosed.links) <= limits.CHAIN_LINKS_MAX, "too many links")
    return enclosed


def _cipher(
    shared: bytes, names: tuple[str, str], keys: tuple[bytes, bytes]
) -> ChaCha20Poly1305:
    """Return the cipher of one letter: its key is bound to mesh, reader and both keys."""
    info = b"\0".join((_PURPOSE, *(name.encode() for name in names))) + b"\0" + b"".join(keys)
    return ChaCha20Poly1305(HKDF(SHA256(), KEY_SIZE, None, info).derive(shared))


def _is_hash_or_empty(name: bytes) -> bool:
    return len(name) in {0, HASH_SIZE}


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"mail: {otherwise}")
