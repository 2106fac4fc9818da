"""Vectors of membership chains and invite tokens."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import base58

from protocol import codec, limits
from protocol.invites import Invite
from protocol.keys import Identity, digest
from protocol.lifecycle import sign_rotation
from protocol.membership import TYPE, Chain
from protocol.signing import peek, seal
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    STRANGER,
    changed,
    identity,
)
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    EXPIRED,
    MALFORMED,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_NETWORK,
    Case,
    ok,
)

FOUNDER = identity("founder")
YEAR_MS = limits.LINK_LIFETIME_MS_MAX
DAY_MS = limits.LINK_SKEW_MS_MAX


def link(issuer: Identity, member: str, depth: int, /, **fields: Any) -> bytes:
    """A link of the founder's mesh, with fields changed; whether it holds or not."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", TYPE)
    payload = {
        "member": member,
        "root": FOUNDER.peer,
        "depth": depth,
        "issued_ms": NOW_MS,
        "expires_ms": NOW_MS + YEAR_MS,
        **fields,
    }
    return seal(issuer, kind, network, codec.encode(payload))


def altered(envelope: bytes, **fields: Any) -> bytes:
    """An envelope with a part exchanged after it was signed."""
    return codec.encode(changed(peek(envelope), **fields))


def membership_cases() -> Iterator[Case]:
    """Chains of the contractor, whom the broker invited, whom the founder did."""
    read = {"network": NETWORK, "member": CONTRACTOR.peer, "now_ms": NOW_MS}
    first = link(FOUNDER, BROKER.peer, 1)
    second = link(BROKER, CONTRACTOR.peer, 2)
    told = ok({"root": FOUNDER.peer, "inviter": BROKER.peer, "depth": 2})

    def at(now_ms: int) -> dict[str, Any]:
        return {**read, "now_ms": now_ms}

    def chain(*links: bytes) -> bytes:
        return codec.encode(Chain(list(links)))

    both = chain(first, second)
    yield (
        "no links: a founder",
        read,
        chain(),
        ok({"root": CONTRACTOR.peer, "inviter": "", "depth": 0}),
    )
    yield "two links", read, both, told
    later = link(BROKER, CONTRACTOR.peer, 2, zz=1)
    yield "a field of a later version", read, chain(first, later), told
    yield "the last millisecond", at(NOW_MS + YEAR_MS + DAY_MS - 1), both, told
    yield "expired, the skew allowed", at(NOW_MS + YEAR_MS + DAY_MS), both, EXPIRED
    yield "issued as far ahead as allowed", at(NOW_MS - DAY_MS), both, told
    yield "issued in the future", at(NOW_MS - DAY_MS - 1), both, EXPIRED
    names = [FOUNDER, *(identity(f"member-{n}") for n in range(7))]
    long = [link(a, b.peer, n) for n, (a, b) in enumerate(pairwise(names), start=1)]
    last = link(names[-1], CONTRACTOR.peer, 8)
    yield (
        "eight links",
        read,
        chain(*long, last),
        ok({"root": FOUNDER.peer, "inviter": names[-1].peer, "depth": 8}),
    )
    nine = [*long, link(names[-1], STRANGER.peer, 8), link(STRANGER, CONTRACTOR.peer, 9)]
    yield "nine links", read, chain(*nine), MALFORMED
    yield from _chains_of_heirs(read, first, second)
    yield from _chains_that_do_not_hold(read, first, second)


def _chains_of_heirs(read: dict[str, Any], first: bytes, second: bytes) -> Iterator[Case]:
    """Chains with a key in them that was rotated."""
    heir = identity("heir")
    depth = {"depth": 2}

    def moved(old: Identity, new: Identity = heir, at_ms: int = NOW_MS) -> bytes:
        return sign_rotation(old, new, NETWORK, from_ms=at_ms)

    def shown(links: list[bytes], *rotations: bytes) -> bytes:
        return codec.encode(Chain(links, list(rotations)))

    both = [first, second]
    theirs = {**read, "member": heir.peer}
    told = ok({"root": FOUNDER.peer, "inviter": BROKER.peer, **depth})
    yield "the member's heir shows its chain", theirs, shown(both, moved(CONTRACTOR)), told
    through = ok({"root": FOUNDER.peer, "inviter": heir.peer, **depth})
    yield "the inviter's heir stands for it", read, shown(both, moved(BROKER)), through
    by_heir = [first, link(heir, CONTRACTOR.peer, 2)]
    yield "a link by the inviter's heir", read, shown(by_heir, moved(BROKER)), through
    founded = ok({"root": heir.peer, "inviter": BROKER.peer, **depth})
    yield "the founder's heir is the root", read, shown(both, moved(FOUNDER)), founded
    yield from (
        ("an heir that shows nothing", theirs, shown(both), MALFORMED),
        ("another's heir", theirs, shown(both, moved(STRANGER)), MALFORMED),
        ("the member, which has an heir", read, shown(both, moved(CONTRACTOR)), MALFORMED),
        ("a link by an heir that shows nothing", read, shown(by_heir), MALFORMED),
        ("a rotation to come", theirs, shown(both, moved(CONTRACTOR, at_ms=NOW_MS + YEAR_MS)),
            EXPIRED),
        ("a rotation that was never signed", theirs,
            shown(both, altered(moved(CONTRACTOR), s=bytes(64))), BAD_SIGNATURE),
        ("its heir is above it", read, shown(both, moved(BROKER, FOUNDER)), MALFORMED),
        ("17 rotations", read, shown(both, *[b""] * 17), MALFORMED),
    )  # fmt: skip


def _chains_that_do_not_hold(
    read: dict[str, Any], first: bytes, second: bytes
) -> Iterator[Case]:
    peer = CONTRACTOR.peer

    def chain(*links: bytes) -> bytes:
        return codec.encode(Chain(list(links)))

    for why, data, refusal in (
        ("an old link above", chain(link(FOUNDER, BROKER.peer, 1, issued_ms=NOW_MS - YEAR_MS,
            expires_ms=NOW_MS - DAY_MS), second), EXPIRED),
        ("the first link left out", chain(second), MALFORMED),
        ("the last link left out", chain(first), MALFORMED),
        ("out of order", chain(second, first), MALFORMED),
        ("by somebody who is no member", chain(first, link(STRANGER, peer, 2)), MALFORMED),
        ("another founder", chain(first, link(BROKER, peer, 2, root=BROKER.peer)), MALFORMED),
        ("first link not by the founder", chain(link(BROKER, peer, 1)), MALFORMED),
        ("of another network", chain(first, link(BROKER, peer, 2, network="other")),
            WRONG_NETWORK),
        ("signed as something else", chain(first, link(BROKER, peer, 2, kind="record")),
            UNKNOWN_TYPE),
        ("a broken signature", chain(first, altered(second, s=bytes(64))), BAD_SIGNATURE),
        ("another's key", chain(first, altered(second, k=STRANGER.public)), BAD_SIGNATURE),
        ("a wrong depth", chain(first, link(BROKER, peer, 3)), MALFORMED),
        ("a depth of zero", chain(link(FOUNDER, peer, 0)), MALFORMED),
        ("in a circle", chain(first, link(BROKER, FOUNDER.peer, 2), link(FOUNDER, peer, 3)),
            MALFORMED),
        ("invited by itself", chain(link(FOUNDER, peer, 1), link(CONTRACTOR, peer, 2)),
            MALFORMED),
        ("somebody else's chain", chain(first, link(BROKER, STRANGER.peer, 2)), MALFORMED),
        ("a member that is no PeerId", chain(link(FOUNDER, "nobody", 1)), MALFORMED),
        ("lives too long", chain(link(FOUNDER, peer, 1, expires_ms=NOW_MS + YEAR_MS + 1)),
            MALFORMED),
        ("expires as it is issued", chain(link(FOUNDER, peer, 1, expires_ms=NOW_MS)),
            MALFORMED),
        ("an oversized link", chain(link(FOUNDER, peer, 1, zz="a" * 2_048)), TOO_LARGE),
        ("not a list of links", codec.encode([1]), MALFORMED),
        ("no envelope", chain(b"link"), MALFORMED),
    ):  # fmt: skip
        yield why, read, data, refusal


def token(payload: bytes, check: bytes | None = None) -> bytes:
    """A token of any payload."""
    whole = payload + (digest(payload)[:4] if check is None else check)
    return b"mesh1:" + base58.b58encode(whole)


def invite(**fields: Any) -> Invite:
    """The broker's invite."""
    told: dict[str, Any] = {
        "network": NETWORK,
        "peer": BROKER.peer,
        "addresses": ["/ip4/192.0.2.7/tcp/4001"],
        "invite": bytes(range(8)),
        "secret": bytes(range(16)),
        "expires_ms": NOW_MS + 86_400_000,
    }
    return Invite(**{**told, **fields})


def invite_cases() -> Iterator[Case]:
    """Tokens; the bytes are their characters."""
    payload = codec.encode(invite())
    told = ok({"peer": BROKER.peer, "addresses": ["/ip4/192.0.2.7/tcp/4001"]})
    fields = codec.decode(payload)
    assert isinstance(fields, dict)
    good = token(payload)
    yield "an invite", {}, good, told
    later = token(codec.encode(fields | {"zz": 1}))
    yield "a field of a later version", {}, later, told
    for why, data in (
        ("cut at the end", good[:-1]),
        (
            "a character mistyped",
            good[:40] + (b"2" if good[40:41] != b"2" else b"3") + good[41:],
        ),
        ("a character that base58 has not", good[:40] + b"0" + good[41:]),
        ("another prefix", b"mesh2:" + good[6:]),
        ("a bare address", b"/ip4/192.0.2.7/tcp/4001"),
        ("nothing behind the prefix", b"mesh1:"),
        ("a wrong checksum", token(payload, bytes(4))),
        ("no payload", token(b"")),
        ("not canonical", token(payload + b"\xc0")),
        ("no such network", token(codec.encode(invite(network="A mesh")))),
        ("no PeerId", token(codec.encode(invite(peer="me")))),
        ("no address", token(codec.encode(invite(addresses=[])))),
        ("five addresses", token(codec.encode(invite(addresses=["/ip4/192.0.2.7"] * 5)))),
        ("no multiaddr", token(codec.encode(invite(addresses=["192.0.2.7:4001"])))),
        ("an address of two", token(codec.encode(invite(addresses=["/ip4/1,/ip4/2"])))),
        ("a short id", token(codec.encode(invite(invite=bytes(7))))),
        ("a short secret", token(codec.encode(invite(secret=bytes(15))))),
        ("an expiry before all time", token(codec.encode(fields | {"expires_ms": -1}))),
        ("over the size", token(codec.encode(fields | {"zz": "a" * 2_048}))),
    ):
        yield why, {}, data, MALFORMED
