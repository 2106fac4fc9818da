"""Signed envelopes: who says what, in which mesh, under which meaning.

The signature covers ``"meshnode/1/" type 00 network 00 issuer 00 sha256(payload)``.
The type keeps a signed award from ever being read as a receipt, the network keeps
it in its mesh.  The payload travels as the very bytes that were signed: nobody has
to encode it again to check it, and fields that a reader doesn't know are kept.

An envelope is read several times on its way, by the services that it passes and again
from the journal, so which ones hold is remembered by the hash of all their bytes: a
signature is checked once in a process, and one made here not at all.

``issuer`` stands beside ``key`` so that a later version can let a node certify a
second key; in version 1 the key must be the one that the issuer's PeerId embeds.

Specified in protocol/spec/20-envelopes.md; vectors in protocol/vectors/envelopes.json.
"""

import re
from collections import OrderedDict
from typing import Final

import msgspec

from protocol.codec import decode_as, encode
from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    UnknownType,
    WrongNetwork,
)
from protocol.keys import Identity, digest, public_key, verify
from protocol.limits import NETWORK_SIZE_MAX, TYPE_SIZE_MAX

DOMAIN: Final = b"meshnode/1/"

_TYPE: Final = re.compile(rf"[a-z][a-z0-9_.-]{{0,{TYPE_SIZE_MAX - 1}}}")
_NETWORK: Final = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{NETWORK_SIZE_MAX - 1}}}")


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payload and the signature over it.  Fields are short: envelopes nest.

    Other messages name an envelope by its hash, so nobody but the issuer may be able
    to change its bytes: unlike in payloads, an unknown field is refused here, since
    no signature would cover it.

    Attributes:
        i: Issuer, a PeerId.
        k: Ed25519 public key, 32 bytes.
        n: Network id.
        p: Payload, canonical bytes.
        s: Signature, 64 bytes.
        t: Type of the payload.
    """

    i: str
    k: bytes
    n: str
    p: bytes
    s: bytes
    t: str


_DECODER: Final = msgspec.msgpack.Decoder(Envelope)

#: Envelopes whose signature is remembered to hold; each takes a hash, some 150 bytes.
HOLDING_MAX: Final = 8_192


class _Holding:
    """The hashes of envelopes whose signature holds, the least used ones forgotten first."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._names: OrderedDict[bytes, None] = OrderedDict()

    def make_room(self, count_max: int) -> None:
        self._count_max = max(self._count_max, count_max)

    def add(self, name: bytes) -> None:
        self._names[name] = None
        if len(self._names) > self._count_max:
            self._names.popitem(last=False)

    def has(self, name: bytes) -> bool:
        if name not in self._names:
            return False
        self._names.move_to_end(name)
        return True


_HOLDING: Final = _Holding(HOLDING_MAX)


def hold_at_least(count_max: int) -> None:
    """Remember so many envelopes whose signature holds: for a process that is many nodes."""
    _HOLDING.make_room(count_max)


def is_network(network: str) -> bool:
    """Tell whether ``network`` may name a mesh: 1 to 32 of ``a-z 0-9 _ . -``."""
    return _NETWORK.fullmatch(network) is not None


def signed_bytes(kind: str, network: str, issuer: str, payload: bytes) -> bytes:
    """Return what a signature is made over."""
    names = b"\0".join(part.encode() for part in (kind, network, issuer))
    return DOMAIN + names + b"\0" + digest(payload)


def seal(identity: Identity, kind: str, network: str, payload: bytes) -> bytes:
    """Return the signed envelope of ``payload`` as canonical bytes."""
    if not _TYPE.fullmatch(kind) or not is_network(network):
        raise LocalProtocolError(f"no such type or network: {kind!r}, {network!r}")
    signature = identity.sign(signed_bytes(kind, network, identity.peer, payload))
    envelope = encode(
        Envelope(identity.peer, identity.public, network, payload, signature, kind)
    )
    _HOLDING.add(digest(envelope))
    return envelope


def peek(envelope: bytes) -> Envelope:
    """Return the parts of ``envelope`` WITHOUT checking its signature: only to route it.

    Raises:
        Malformed: Not an envelope.
        TooLarge: Over the frame limit.
    """
    return decode_as(envelope, _DECODER)


def unseal(envelope: bytes, *, kind: str, network: str) -> Envelope:
    """Return the parts of ``envelope`` after every check that needs no clock.

    Raises:
        Malformed: Not an envelope, or its names break the rules.
        UnknownType: Signed as another type than ``kind``.
        WrongNetwork: Signed for another mesh than ``network``.
        BadSignature: The key isn't the issuer's, or the signature doesn't hold.
    """
    parts = peek(envelope)
    if parts.t != kind:
        raise UnknownType(f"expected {kind!r}, found {parts.t[:TYPE_SIZE_MAX]!r}")
    if parts.n != network:
        raise WrongNetwork(
            f"expected network {network!r}, found {parts.n[:NETWORK_SIZE_MAX]!r}"
        )
    if not _TYPE.fullmatch(parts.t) or not _NETWORK.fullmatch(parts.n):
        raise Malformed("a type or network that may not exist")
    # All of its bytes, key and signature too: another key or payload is another envelope.
    name = digest(envelope)
    if not _HOLDING.has(name):
        if public_key(parts.i) != parts.k:
            raise BadSignature("the key is not the issuer's")
        verify(parts.k, signed_bytes(parts.t, parts.n, parts.i, parts.p), parts.s)
        _HOLDING.add(name)
    return parts
