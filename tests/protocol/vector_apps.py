"""Vectors of app keys: passes to the broker's node."""

from collections.abc import Iterator
from typing import Any

from protocol import codec, limits
from protocol.app_keys import CERTIFICATE, PASS
from protocol.keys import Identity
from protocol.signing import seal
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, NOW_MS, STRANGER, identity
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    EXPIRED,
    MALFORMED,
    REFUSED,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_AUDIENCE,
    WRONG_NETWORK,
    Case,
    ok,
)
from tests.protocol.vector_members import altered

APP = identity("app")
DAY_MS = 86_400_000


def certificate(by: Identity = BROKER, /, **fields: Any) -> bytes:
    """A certificate with fields changed; whether it holds or not."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", CERTIFICATE)
    payload = {
        "app": APP.peer,
        "name": "dashboard",
        "purposes": ["api.read"],
        "issued_ms": NOW_MS,
        "expires_ms": NOW_MS + DAY_MS,
        **fields,
    }
    return seal(by, kind, network, codec.encode(payload))


def shown(inner: bytes, by: Identity = APP, /, **fields: Any) -> bytes:
    """A pass with fields changed; whether it holds or not."""
    network, kind = fields.pop("network", NETWORK), fields.pop("kind", PASS)
    payload = {
        "certificate": inner,
        "audience": BROKER.peer,
        "issued_ms": NOW_MS,
        "expires_ms": NOW_MS + 600_000,
        **fields,
    }
    return seal(by, kind, network, codec.encode(payload))


def app_cases() -> Iterator[Case]:
    """Passes, read by the broker at ``now_ms`` for a purpose."""
    read = {
        "issuer": BROKER.peer,
        "network": NETWORK,
        "now_ms": NOW_MS,
        "purpose": "api.read",
    }
    told = ok({"app": APP.peer, "name": "dashboard"})
    good, over = shown(certificate()), limits.SKEW_MS_MAX

    def at(now_ms: int) -> dict[str, Any]:
        return {**read, "now_ms": now_ms}

    yield "a pass", read, good, told
    yield "a purpose above covers", read, shown(certificate(purposes=["api"])), told
    yield "a field of a later version", read, shown(certificate(zz=1), zz=1), told
    yield "the last millisecond", at(NOW_MS + 600_000 + over - 1), good, told
    yield "expired, the skew allowed", at(NOW_MS + 600_000 + over), good, EXPIRED
    yield "issued in the future", at(NOW_MS - over - 1), good, EXPIRED
    jobs = {**read, "purpose": "api.jobs"}
    yield "for another purpose", jobs, good, REFUSED
    alike = shown(certificate(purposes=["api.re", "ap", "api.read.more"]))
    yield "purposes that only look alike", read, alike, REFUSED
    old = certificate(issued_ms=NOW_MS - 2 * DAY_MS, expires_ms=NOW_MS - DAY_MS)
    for why, data, refusal in (
        ("an expired certificate", shown(old), EXPIRED),
        ("by a key that isn't certified", shown(certificate(), STRANGER), BAD_SIGNATURE),
        ("by the node itself", shown(certificate(), BROKER), BAD_SIGNATURE),
        ("certified by another node", shown(certificate(CONTRACTOR)), BAD_SIGNATURE),
        ("certified by the app itself", shown(certificate(APP)), BAD_SIGNATURE),
        ("for another node", shown(certificate(), audience=CONTRACTOR.peer), WRONG_AUDIENCE),
        ("a forged certificate", shown(altered(certificate(), s=bytes(64))), BAD_SIGNATURE),
        ("a forged pass", altered(good, s=bytes(64)), BAD_SIGNATURE),
        ("of another network", shown(certificate(), network="other"), WRONG_NETWORK),
        ("a certificate of another network", shown(certificate(network="other")),
            WRONG_NETWORK),
        ("a certificate alone", certificate(), UNKNOWN_TYPE),
        ("a link as certificate", shown(certificate(kind="membership")), UNKNOWN_TYPE),
        ("a pass of eleven minutes", shown(certificate(), expires_ms=NOW_MS + 660_000),
            MALFORMED),
        ("a pass that ends as it begins", shown(certificate(), expires_ms=NOW_MS), MALFORMED),
        ("a certificate of 367 days", shown(certificate(expires_ms=NOW_MS + 367 * DAY_MS)),
            MALFORMED),
        ("no purpose", shown(certificate(purposes=[])), MALFORMED),
        ("nine purposes", shown(certificate(purposes=["a"] * 9)), MALFORMED),
        ("a purpose in capitals", shown(certificate(purposes=["API"])), MALFORMED),
        ("an app that is no PeerId", shown(certificate(app="me")), MALFORMED),
        ("a name of two lines", shown(certificate(name="a\nb")), MALFORMED),
        ("a name of 101 characters", shown(certificate(name="a" * 101)), MALFORMED),
        ("an oversized certificate", shown(certificate(zz="a" * 1_024)), TOO_LARGE),
        ("an oversized pass", shown(certificate(), zz="a" * 2_048), TOO_LARGE),
        ("no certificate", shown(b""), MALFORMED),
        ("no envelope", b"pass", MALFORMED),
    ):  # fmt: skip
        yield why, read, data, refusal
