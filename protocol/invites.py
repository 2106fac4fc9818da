"""Invite tokens: one word that holds all it takes to join a mesh.

``mesh1:`` and base58 of a payload and four bytes of its hash, so that a mistyped or cut
token is told from a wrong one.  Whoever holds it may join: it is passed on as a
password is, and goes out only over an encrypted session with the peer that it names.

Specified in protocol/spec/25-membership.md; vectors in protocol/vectors/invites.json.
"""

from typing import Final

import base58
import msgspec

from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import LocalProtocolError, Malformed
from protocol.keys import digest, public_key
from protocol.signing import is_network

PREFIX: Final = "mesh1:"
_CHECK_SIZE: Final = 4


class Invite(msgspec.Struct, frozen=True, kw_only=True):
    """What a token holds.

    Attributes:
        network: Network id of the mesh.
        peer: PeerId of the inviter.
        addresses: Multiaddrs of the inviter, without ``/p2p``.
        invite: Its id, under which the inviter keeps it.
        secret: Shown to the inviter; bearer.
        expires_ms: Unix time by the inviter's clock.
    """

    network: str
    peer: str
    addresses: list[str]
    invite: bytes
    secret: bytes
    expires_ms: Count

    def dialled(self) -> list[str]:
        """Return the inviter's addresses with its PeerId."""
        return [f"{address}/p2p/{self.peer}" for address in self.addresses]


_DECODER: Final = msgspec.msgpack.Decoder(Invite)


def is_token(text: str) -> bool:
    """Tell whether ``text`` is meant to be a token; it may still be a broken one."""
    return text.startswith(PREFIX)


def write_token(invite: Invite) -> str:
    """Return the token of ``invite``.

    Raises:
        LocalProtocolError: It breaks a limit.
    """
    payload = encode(invite)
    try:
        _check(invite)
    except Malformed as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    token = PREFIX + base58.b58encode(payload + digest(payload)[:_CHECK_SIZE]).decode()
    if len(token) > limits.INVITE_TOKEN_SIZE_MAX:
        raise LocalProtocolError("the token is too long: fewer addresses would do")
    return token


def read_token(text: str) -> Invite:
    """Return what the token ``text`` holds.

    Raises:
        Malformed: No token, or one that was cut or mistyped.
    """
    if not is_token(text) or len(text) > limits.INVITE_TOKEN_SIZE_MAX:
        raise Malformed(f"an invite begins with {PREFIX} and is not that long")
    try:
        raw = base58.b58decode(text.removeprefix(PREFIX).encode("ascii"))
    except ValueError as exc:
        raise Malformed("an invite has letters and digits only, after mesh1:") from exc
    payload, check = raw[:-_CHECK_SIZE], raw[-_CHECK_SIZE:]
    if digest(payload)[:_CHECK_SIZE] != check:
        raise Malformed("this invite was cut or mistyped: its checksum does not hold")
    invite = decode_as(payload, _DECODER)
    _check(invite)
    return invite


def _check(invite: Invite) -> None:
    _need(is_network(invite.network), "no such network")
    public_key(invite.peer)
    _need(0 < len(invite.addresses) <= limits.INVITE_ADDRESSES_MAX, "how many addresses?")
    for address in invite.addresses:
        sized = len(address) <= limits.ADDRESS_SIZE_MAX
        plain = address.isascii() and address.isprintable() and not set(address) & set(" ,")
        _need(sized and plain and address[:1] == "/", "an address is not a multiaddr")
    _need(len(invite.invite) == limits.INVITE_ID_SIZE, "its id has another size")
    _need(len(invite.secret) == limits.INVITE_SECRET_SIZE, "its secret has another size")


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"invite: {otherwise}")
