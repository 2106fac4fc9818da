"""Vectors of the end of a key: rotations and revocations."""

from collections.abc import Iterator
from typing import Any

from protocol import codec, limits
from protocol.keys import Identity
from protocol.lifecycle import (
    CONSENT,
    REVOCATION,
    ROTATION,
    Rotation,
    sign_revocation,
    sign_rotation,
)
from protocol.signing import seal
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, NOW_MS, STRANGER
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
from tests.protocol.vector_members import altered

OLD, NEW = BROKER, CONTRACTOR


def consent(by: Identity = NEW, /, **fields: Any) -> bytes:
    """The heir's consent, with fields changed; whether it holds or not."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", CONSENT)
    payload = {"peer": OLD.peer, "from_ms": NOW_MS, **fields}
    return seal(by, kind, network, codec.encode(payload))


def rotation(inner: bytes, by: Identity = OLD, network: str = NETWORK) -> bytes:
    """A rotation over any consent."""
    return seal(by, ROTATION, network, codec.encode(Rotation(consent=inner)))


def revocation(**fields: Any) -> bytes:
    """A revocation with fields changed; whether it holds or not."""
    payload = {"from_ms": 0, "reason": "", **fields}
    return seal(OLD, REVOCATION, NETWORK, codec.encode(payload))


def lifecycle_cases() -> Iterator[Case]:
    """Statements about the broker's key, read at ``now_ms``."""
    read = {"network": NETWORK, "now_ms": NOW_MS}
    moved = sign_rotation(OLD, NEW, NETWORK, from_ms=NOW_MS)
    told = ok({"peer": OLD.peer, "heir": NEW.peer, "from_ms": NOW_MS})
    ended = ok({"peer": OLD.peer, "heir": "", "from_ms": 0})
    yield "a rotation", read, moved, told
    yield "a field of a later version", read, rotation(consent(zz=1)), told
    early = {**read, "now_ms": NOW_MS - limits.SKEW_MS_MAX}
    yield "as far ahead as the skew allowed", early, moved, told
    yield (
        "from a time to come",
        {**read, "now_ms": NOW_MS - limits.SKEW_MS_MAX - 1},
        moved,
        EXPIRED,
    )
    yield "a revocation, from when it is read", read, sign_revocation(OLD, NETWORK), ended
    dated = sign_revocation(OLD, NETWORK, from_ms=NOW_MS - 1, reason="the disk was stolen")
    yield (
        "a revocation with a time and a reason",
        read,
        dated,
        ok({"peer": OLD.peer, "heir": "", "from_ms": NOW_MS - 1}),
    )
    for why, data, refusal in (
        ("consent to go on for another", rotation(consent(peer=STRANGER.peer)), MALFORMED),
        ("signed by whom nobody consented to follow", rotation(consent(), STRANGER), MALFORMED),
        ("its own heir", rotation(consent(OLD)), MALFORMED),
        ("a rotation without a time", rotation(consent(from_ms=0)), MALFORMED),
        ("a negative time", rotation(consent(from_ms=-1)), MALFORMED),
        ("no consent", rotation(b""), MALFORMED),
        ("a consent alone", consent(), UNKNOWN_TYPE),
        ("a consent signed as something else", rotation(consent(kind=ROTATION)), UNKNOWN_TYPE),
        ("a consent for another network", rotation(consent(network="other")), WRONG_NETWORK),
        ("of another network", rotation(consent(), network="other"), WRONG_NETWORK),
        ("a consent that the heir never signed", rotation(altered(consent(), s=bytes(64))),
            BAD_SIGNATURE),
        ("a rotation that the old key never signed", altered(moved, s=bytes(64)),
            BAD_SIGNATURE),
        ("another's key", altered(moved, k=STRANGER.public), BAD_SIGNATURE),
        ("a revocation by another", altered(revocation(), i=STRANGER.peer), BAD_SIGNATURE),
        ("a revocation read as a rotation", altered(revocation(), t=ROTATION), BAD_SIGNATURE),
        ("a reason of two lines", revocation(reason="a\nb"), MALFORMED),
        ("a reason of 201 characters", revocation(reason="a" * 201), MALFORMED),
        ("no reason at all", seal(OLD, REVOCATION, NETWORK, codec.encode({"from_ms": 0})),
            MALFORMED),
        ("revoked in the future", revocation(from_ms=NOW_MS + limits.SKEW_MS_MAX + 1), EXPIRED),
        ("a link", seal(OLD, "membership", NETWORK, codec.encode({})), UNKNOWN_TYPE),
        ("an oversized one", revocation(zz="a" * 1_024), TOO_LARGE),
        ("no envelope", b"gone", MALFORMED),
    ):  # fmt: skip
        yield why, read, data, refusal
