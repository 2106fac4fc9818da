"""Vectors of charters, grants and the certificates that they make."""

from collections.abc import Iterator
from typing import Any

from protocol import codec, limits
from protocol.charter import CHARTER, GRANT, Certificate
from protocol.keys import Identity, digest
from protocol.signing import peek, seal
from tests.protocol.samples import (
    BROKER,
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

OWNER = BROKER
FIRST = identity("standby-1")
SECOND = identity("standby-2")
HOUR_MS = 3_600_000
SKEW_MS = limits.SKEW_MS_MAX


def charter(issuer: Identity = OWNER, /, **fields: Any) -> bytes:
    """The owner's charter for two standbys, with fields changed; whether it holds or not."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", CHARTER)
    payload = {
        "job": "job-1",
        "owner": OWNER.peer,
        "standbys": [FIRST.peer, SECOND.peer],
        "budget": {"cost_mc": 9_000, "tokens": 0, "subtasks": 0},
        "first_epoch": 1,
        "lease_ms": 30_000,
        "skew_ms": 5_000,
        "issued_ms": NOW_MS,
        "expires_ms": NOW_MS + HOUR_MS,
        **fields,
    }
    return seal(issuer, kind, network, codec.encode(payload))


CHARTERED = charter()


def grant(issuer: Identity, /, **fields: Any) -> bytes:
    """A member's grant of epoch 2 to the first standby, with fields changed."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", GRANT)
    payload = {
        "charter": digest(CHARTERED),
        "epoch": 2,
        "broker": FIRST.peer,
        "asked_ms": NOW_MS,
        "until_ms": NOW_MS + 30_000,
        **fields,
    }
    return seal(issuer, kind, network, codec.encode(payload))


def certificate(*grants: bytes, under: bytes = CHARTERED) -> bytes:
    """The body that shows them."""
    return codec.encode(Certificate(under, list(grants)))


def charter_cases() -> Iterator[Case]:
    """Certificates of the first standby, who won epoch 2 of a job of three members."""
    read = {"network": NETWORK, "now_ms": NOW_MS}
    two = certificate(grant(FIRST), grant(SECOND))
    told = ok({"job": "job-1", "owner": OWNER.peer, "epoch": 2, "broker": FIRST.peer})

    def at(now_ms: int) -> dict[str, Any]:
        return {**read, "now_ms": now_ms}

    yield "two of three members", read, two, told
    yield "all three", read, certificate(grant(OWNER), grant(FIRST), grant(SECOND)), told
    other_times = grant(SECOND, asked_ms=NOW_MS + 9, until_ms=NOW_MS + 30_011)
    yield "grants of different times", read, certificate(grant(FIRST), other_times), told
    lapsed = grant(SECOND, asked_ms=1, until_ms=2)
    yield "a lapsed lease: the epoch stays won", read, certificate(grant(FIRST), lapsed), told
    later = certificate(grant(FIRST, zz=1), grant(SECOND))
    yield "a field of a later version", read, later, told
    yield "the last millisecond", at(NOW_MS + HOUR_MS + SKEW_MS - 1), two, told
    yield "the charter expired, the skew allowed", at(NOW_MS + HOUR_MS + SKEW_MS), two, EXPIRED
    yield "issued as far ahead as the skew allows", at(NOW_MS - SKEW_MS), two, told
    yield "issued in the future", at(NOW_MS - SKEW_MS - 1), two, EXPIRED
    yield from _grants_that_make_no_majority(read)
    yield from _charters_that_do_not_hold(read)


def _grants_that_make_no_majority(read: dict[str, Any]) -> Iterator[Case]:
    first, second = grant(FIRST), grant(SECOND)
    broken = codec.encode(changed(peek(second), s=bytes(64)))
    for why, data, refusal in (
        ("no grant", certificate(), MALFORMED),
        ("one of three", certificate(first), MALFORMED),
        ("one grant twice", certificate(first, first), MALFORMED),
        ("two grants by one member", certificate(first, grant(FIRST, asked_ms=1)), MALFORMED),
        ("four grants", certificate(grant(OWNER), first, second, second), MALFORMED),
        ("out of the members' order", certificate(second, first), MALFORMED),
        ("of two epochs", certificate(first, grant(SECOND, epoch=3)), MALFORMED),
        ("to two brokers", certificate(first, grant(SECOND, broker=SECOND.peer)), MALFORMED),
        ("by a stranger", certificate(first, grant(STRANGER)), MALFORMED),
        ("to a stranger", certificate(grant(FIRST, broker=STRANGER.peer),
            grant(SECOND, broker=STRANGER.peer)), MALFORMED),
        ("under another charter", certificate(first, grant(SECOND,
            charter=digest(charter(lease_ms=31_000)))), MALFORMED),
        ("below the first epoch", certificate(first, second, under=charter(first_epoch=3)),
            MALFORMED),
        ("epoch zero", certificate(grant(FIRST, epoch=0), grant(SECOND, epoch=0)), MALFORMED),
        ("of another network", certificate(first, grant(SECOND, network="other")),
            WRONG_NETWORK),
        ("signed as something else", certificate(first, grant(SECOND, kind="refuse")),
            UNKNOWN_TYPE),
        ("a broken signature", certificate(first, broken), BAD_SIGNATURE),
        ("an oversized grant", certificate(first, grant(SECOND, zz="a" * 1_024)), TOO_LARGE),
        ("no envelope", certificate(first, b"grant"), MALFORMED),
        ("not a list of grants", codec.encode([CHARTERED, 2]), MALFORMED),
        ("a byte after it", certificate(first, second) + b"\xc0", MALFORMED),
    ):  # fmt: skip
        yield why, read, data, refusal


def _charters_that_do_not_hold(read: dict[str, Any]) -> Iterator[Case]:
    many = [identity(f"standby-{n}").peer for n in range(1, limits.STANDBYS_MAX + 2)]
    for why, under, refusal in (
        ("a charter by somebody else", charter(FIRST), MALFORMED),
        ("another owner in it", charter(owner=FIRST.peer), MALFORMED),
        ("a charter of another network", charter(network="other"), WRONG_NETWORK),
        ("a charter signed as something else", charter(kind="award"), UNKNOWN_TYPE),
        ("a charter's signature broken",
            codec.encode(changed(peek(CHARTERED), s=bytes(64))), BAD_SIGNATURE),
        ("no job", charter(job=""), MALFORMED),
        ("one standby", charter(standbys=[FIRST.peer]), MALFORMED),
        ("seven standbys", charter(standbys=many), MALFORMED),
        ("a standby twice", charter(standbys=[FIRST.peer, FIRST.peer]), MALFORMED),
        ("the owner as a standby", charter(standbys=[FIRST.peer, OWNER.peer]), MALFORMED),
        ("a standby that is no PeerId", charter(standbys=[FIRST.peer, "me"]), MALFORMED),
        ("a first epoch of zero", charter(first_epoch=0), MALFORMED),
        ("a lease under a second", charter(lease_ms=999, skew_ms=0), MALFORMED),
        ("a lease over ten minutes", charter(lease_ms=600_001), MALFORMED),
        ("a skew of over half the lease", charter(skew_ms=15_001), MALFORMED),
        ("a negative skew", charter(skew_ms=-1), MALFORMED),
        ("expires as it is issued", charter(expires_ms=NOW_MS), MALFORMED),
        ("lives longer than eight days",
            charter(expires_ms=NOW_MS + limits.CHARTER_LIFETIME_MS_MAX + 1), MALFORMED),
        ("an oversized charter", charter(zz="a" * 4_096), TOO_LARGE),
    ):  # fmt: skip
        # Grants that fit: it is the charter that fails.
        named = {"charter": digest(under)}
        yield (
            why,
            read,
            certificate(grant(FIRST, **named), grant(SECOND, **named), under=under),
            refusal,
        )


def shipping_cases() -> Iterator[Case]:
    """Bodies of ``ship`` and of its answer."""
    ship: dict[str, Any] = {"type": "ship"}
    told: dict[str, Any] = {"type": "shipped"}
    fields: list[Any] = [b"certificate", b"header", 3, [b"event"] * 2, b"head", [b"{}"], []]
    yield "two events", ship, codec.encode(fields), ok({"first": 3, "events": 2})
    more = [*fields, "more"]
    yield "a field that is unknown", ship, codec.encode(more), ok({"first": 3, "events": 2})
    none = [*fields[:3], [], b"", [], []]
    yield "nothing but a place", ship, codec.encode(none), ok({"first": 3, "events": 0})
    yield (
        "a place before the first",
        ship,
        codec.encode([*fields[:2], -1, *fields[3:]]),
        MALFORMED,
    )
    yield (
        "events that are text",
        ship,
        codec.encode([*fields[:3], ["event"], *fields[4:]]),
        MALFORMED,
    )
    yield "a field missing", ship, codec.encode(fields[:-1]), MALFORMED
    yield "a byte behind it", ship, codec.encode(fields) + b"\x00", MALFORMED
    chain = digest(b"a chain")
    yield "what is there", told, codec.encode([2, 7, chain]), ok({"segment": 2, "count": 7})
    nothing = codec.encode([0, 0, bytes(32)])
    yield "nothing is there", told, nothing, ok({"segment": 0, "count": 0})
    yield "a chain that is no hash", told, codec.encode([2, 7, chain[:31]]), MALFORMED
    yield "events that are one", ship, codec.encode([*fields[:3], b"x", *fields[4:]]), MALFORMED
    yield "a count before nothing", told, codec.encode([2, -7, chain]), MALFORMED
