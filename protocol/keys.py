"""Who a peer is: an Ed25519 key, and the PeerId that is made from it.

A PeerId is libp2p's: the identity multihash of the protobuf-encoded public key in
base58btc (libp2p peer-ids spec), so it embeds the key, and whoever knows a name
can check a signature.  Only Ed25519 is spoken here.

Specified in protocol/spec/20-envelopes.md; vectors in protocol/vectors/keys.json.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Final

import base58
from nacl.bindings import crypto_scalarmult
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey
from nacl.signing import SigningKey, VerifyKey
from typing_extensions import override

from protocol.errors import BadSignature, LocalProtocolError, Malformed

SEED_SIZE: Final = 32
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

#: identity multihash (0x00), 36 bytes; protobuf: type Ed25519 (1), data of 32 bytes.
_PREFIX: Final = bytes.fromhex("002408011220")
_PEER_ID_LENGTH_MAX: Final = 60

#: X25519 keys of small order (RFC 7748, section 6.1): whatever the secret, they agree to
#: zeros.  Little-endian; the highest bit counts for nothing.
_PRIME: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _PRIME - 1,
        _PRIME,  # 0 and 1 again, not reduced
        _PRIME + 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def peer_id(key: bytes) -> str:
    """Return the PeerId of a 32-byte Ed25519 public key."""
    if len(key) != KEY_SIZE:
        raise LocalProtocolError(f"an Ed25519 public key has {KEY_SIZE} bytes, not {len(key)}")
    return base58.b58encode(_PREFIX + key).decode("ascii")


@lru_cache(maxsize=4096)
def public_key(peer: str) -> bytes:
    """Return the 32-byte public key that ``peer`` embeds.

    Raises:
        Malformed: Not the PeerId of an Ed25519 key in its one spelling.
    """
    try:
        raw = base58.b58decode(peer) if len(peer) <= _PEER_ID_LENGTH_MAX else b""
    except ValueError as exc:
        raise Malformed("a PeerId is base58") from exc
    key = raw[len(_PREFIX) :]
    if not raw.startswith(_PREFIX) or len(key) != KEY_SIZE or peer_id(key) != peer:
        raise Malformed("not the PeerId of an Ed25519 key")
    return key


class Identity:
    """A node's keys: Ed25519 to sign with, X25519 to be sealed to.  Never printed."""

    __slots__ = ("_signing", "_x25519_secret", "peer", "public", "x25519_public")

    def __init__(self, seed: bytes, x25519_secret: bytes) -> None:
        if len(seed) != SEED_SIZE or len(x25519_secret) != SEED_SIZE:
            raise LocalProtocolError(f"both secrets have {SEED_SIZE} bytes")
        self._signing = SigningKey(seed)
        self._x25519_secret = x25519_secret
        self.public: bytes = bytes(self._signing.verify_key)
        self.peer: str = peer_id(self.public)
        self.x25519_public: bytes = bytes(PrivateKey(x25519_secret).public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032) of ``message``."""
        return self._signing.sign(message).signature

    def agree(self, public: bytes) -> bytes:
        """Return the X25519 secret (RFC 7748) that this node shares with ``public``.

        Raises:
            Malformed: No key of 32 bytes, or one of small order: everyone would know it.
        """
        return agree(self._x25519_secret, public)

    @override
    def __repr__(self) -> str:
        return f"Identity({self.peer})"


def agree(secret: bytes, public: bytes) -> bytes:
    """Return what the X25519 key ``secret`` shares with ``public``: 32 bytes.

    Raises:
        Malformed: No key of 32 bytes, or one of small order: everyone would know it.
    """
    if len(public) != KEY_SIZE:
        raise Malformed(f"an X25519 public key has {KEY_SIZE} bytes, not {len(public)}")
    try:
        return crypto_scalarmult(secret, public)
    except CryptoError as exc:
        raise Malformed("an X25519 key of small order") from exc


def is_sealing_key(public: bytes) -> bool:
    """Tell whether ``public`` is an X25519 key that something can be sealed to."""
    number = int.from_bytes(public, "little") & (2**255 - 1)
    return len(public) == KEY_SIZE and number not in _SMALL_ORDER


@lru_cache(maxsize=1024)
def _verify_key(key: bytes) -> VerifyKey:
    return VerifyKey(key)


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature.

    Raises:
        BadSignature: It doesn't hold, or key or signature have the wrong size.
    """
    if len(key) != KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        raise BadSignature("a key has 32 bytes and a signature 64")
    try:
        _verify_key(key).verify(message, signature)
    except (BadSignatureError, ValueError) as exc:
        raise BadSignature("the signature does not hold") from exc


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of ``data``: 32 bytes, the only hash of the protocol."""
    return sha256(data).digest()
