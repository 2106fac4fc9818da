"""Membership: a mesh's members are the tree of invitations from its founder.

Whoever invites a node signs a link that says so.  A node's chain is the links from
the founder down to it; it proves, to anyone in the mesh and without asking a third
party, that the node was let in.  A node without a chain is a founder: of a mesh of its
own, in which it is the only member until it invites somebody.

Specified in protocol/spec/25-membership.md; vectors in protocol/vectors/membership.json.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import Expired, LocalProtocolError, Malformed, TooLarge
from protocol.keys import Identity, public_key
from protocol.signing import peek, seal, unseal

TYPE: Final = "membership"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """One link: its issuer let ``member`` into the mesh that ``root`` founded.

    Attributes:
        member: PeerId of who was let in.
        root: PeerId of the mesh's founder, who issued the first link.
        depth: Links from the founder to the member, this one included.
        issued_ms: Unix time by the issuer's clock.
        expires_ms: Unix time from which it is worth nothing.
    """

    member: str
    root: str
    depth: Annotated[int, msgspec.Meta(ge=1, le=limits.CHAIN_LINKS_MAX)]
    issued_ms: Count
    expires_ms: Count


class Chain(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``membership`` and of its answer: the links of a node's chain.

    Attributes:
        links: Envelopes, the founder's first; empty for a founder.
        rotations: Envelopes that show who goes on for keys in it that have ended.
    """

    links: list[bytes]
    rotations: list[bytes] = []


class Join(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``join``: let me in, I hold this invite.

    Attributes:
        invite: Its id.
        secret: What shows that the asker holds it.
    """

    invite: bytes
    secret: bytes


class Joined(msgspec.Struct, frozen=True, array_like=True):
    """Answer to ``join`` and ``renew``: a chain, or why not.

    Attributes:
        links: The asker's new chain; empty when it was not let in.
        reason: Stable code when not, such as ``expired``; else empty.
        rotations: As with a :class:`Chain`.
    """

    links: list[bytes]
    reason: str
    rotations: list[bytes] = []


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a chain proves.

    Attributes:
        member: Whose it is.
        root: Who founded the mesh.
        path: PeerIds from the founder to the member, both included; the heir's for a key
            that has one.
        issued_ms: When the youngest link was issued.
        expires_ms: When the first link expires.
        names: PeerIds as the links name them, the founder's first; none for a founder.
    """

    member: str
    root: str
    path: tuple[str, ...]
    issued_ms: int
    expires_ms: int
    names: tuple[str, ...] = ()

    @property
    def inviter(self) -> str:
        """Who let the member in, or empty for a founder."""
        return self.path[-2] if len(self.path) > 1 else ""


_LINK: Final = msgspec.msgpack.Decoder(Membership)
_CHAIN: Final = msgspec.msgpack.Decoder(Chain)
_JOIN: Final = msgspec.msgpack.Decoder(Join)
_JOINED: Final = msgspec.msgpack.Decoder(Joined)


def itself(peer: str) -> str:
    """Return ``peer``: its key has not ended."""
    return peer


def read_chain(
    links: Sequence[bytes],
    *,
    member: str,
    network: str,
    now_ms: int,
    heir: Callable[[str], str] = itself,
) -> Lineage:
    """Return what ``links`` prove about ``member``.

    Args:
        links: Envelopes, the founder's first; none make ``member`` a founder.
        member: Whose chain it should be: proved by the session that it came over.
        network: Network id.
        now_ms: Unix time.
        heir: Tells who goes on for a key.

    Raises:
        TooLarge: A link over the limit.
        Expired: A link has expired, or was issued in the far future.
        RemoteProtocolError: Forged, for another mesh, or links that don't join.
    """
    _need(len(links) <= limits.CHAIN_LINKS_MAX, "too many links")
    path: list[str] = []
    names: list[str] = []
    issued_ms, expires_ms = 0, limits.NUMBER_MAX
    for depth, envelope in enumerate(links, start=1):
        if len(envelope) > limits.LINK_SIZE_MAX:
            raise TooLarge(len(envelope), limits.LINK_SIZE_MAX)
        parts = unseal(envelope, kind=TYPE, network=network)
        link = decode_as(parts.p, _LINK)
        path, names = path or [heir(parts.i)], names or [parts.i]
        _need(heir(link.root) == path[0], "a link names another founder")
        _need(heir(parts.i) == path[-1], "a link is not by the member before it")
        _need(link.depth == depth, "a link has another depth than its place")
        _need(heir(link.member) not in path, "the links go round in a circle")
        public_key(link.member)
        _check_time(link, now_ms)
        path.append(heir(link.member))
        names.append(link.member)
        issued_ms = max(issued_ms, link.issued_ms)
        expires_ms = min(expires_ms, link.expires_ms)
    path = path or [member]
    _need(path[-1] == member, "it is somebody else's chain")
    return Lineage(member, path[0], tuple(path), issued_ms, expires_ms, tuple(names))


def _check_time(link: Membership, now_ms: int) -> None:
    lifetime_ms = link.expires_ms - link.issued_ms
    _need(0 < lifetime_ms <= limits.LINK_LIFETIME_MS_MAX, "its lifetime is out of range")
    if now_ms >= link.expires_ms + limits.LINK_SKEW_MS_MAX:
        raise Expired(f"a membership expired at {link.expires_ms}")
    if link.issued_ms > now_ms + limits.LINK_SKEW_MS_MAX:
        raise Expired(f"a membership was issued in the future, at {link.issued_ms}")


def extend(
    identity: Identity, lineage: Lineage, member: str, *, network: str, now_ms: int
) -> bytes:
    """Return the link by which ``identity``, whose lineage it is, lets ``member`` in.

    Raises:
        LocalProtocolError: It can't: the chain would be too long, go round in a circle,
            or isn't ``identity``'s.
    """
    if lineage.member != identity.peer or member in lineage.path:
        raise LocalProtocolError("a link from another's chain, or to one above")
    if len(lineage.path) > limits.CHAIN_LINKS_MAX:
        raise LocalProtocolError(f"a chain has at most {limits.CHAIN_LINKS_MAX} links")
    link = Membership(
        member=member,
        root=lineage.names[0] if lineage.names else lineage.root,
        depth=len(lineage.path),
        issued_ms=now_ms,
        expires_ms=now_ms + limits.LINK_LIFETIME_MS_MAX,
    )
    return seal(identity, TYPE, network, encode(link))


def names_in(envelope: bytes) -> tuple[str, str]:
    """Return who let whom in by a link that holds.

    Raises:
        Malformed: It is none.
    """
    parts = peek(envelope)
    return parts.i, decode_as(parts.p, _LINK).member


def read_presented(body: bytes) -> Chain:
    """Return the body of ``membership``; what it holds is not verified yet.

    Raises:
        Malformed: Not such a body, too many links, or too many rotations.
    """
    chain = decode_as(body, _CHAIN)
    _need(len(chain.links) <= limits.CHAIN_LINKS_MAX, "too many links")
    _need(len(chain.rotations) <= limits.CHAIN_ROTATIONS_MAX, "too many rotations")
    return chain


def read_join(body: bytes) -> Join:
    """Return the body of ``join``.

    Raises:
        Malformed: Not such a body.
    """
    join = decode_as(body, _JOIN)
    _need(len(join.invite) == limits.INVITE_ID_SIZE, "an invite's id has another size")
    _need(len(join.secret) == limits.INVITE_SECRET_SIZE, "a secret has another size")
    return join


def read_joined(body: bytes) -> Joined:
    """Return an answer to ``join`` or ``renew``; its links are not verified yet.

    Raises:
        Malformed: Not such a body, too many links, or neither links nor a reason.
    """
    joined = decode_as(body, _JOINED)
    _need(len(joined.links) <= limits.CHAIN_LINKS_MAX, "too many links")
    _need(len(joined.rotations) <= limits.CHAIN_ROTATIONS_MAX, "too many rotations")
    _need(bool(joined.links) != bool(joined.reason), "either links or a reason")
    return joined


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"membership: {otherwise}")
