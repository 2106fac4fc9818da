"""Keys of programs, certified by the node that they act for.

A program that uses a node need not hold what makes it the node, nor a token that opens
everything: it has a key of its own, and a certificate in which the node's key says what for
and until when.  To be let in it signs a *pass*, which is good for minutes and for one node,
so what it sends on the way is worth little to who reads it.

Specified in protocol/spec/24-app-keys.md; vectors in protocol/vectors/app_keys.json.
"""

import re
from typing import Final

import msgspec

from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import (
    BadSignature,
    Expired,
    LocalProtocolError,
    Malformed,
    NotCovered,
    TooLarge,
    WrongAudience,
)
from protocol.keys import Identity, public_key
from protocol.signing import seal, unseal

CERTIFICATE: Final = "app.certificate"
PASS: Final = "app.pass"  # noqa: S105 - the type's name

#: What programs do at a node's interface: look, have jobs done, or everything.
READ: Final = "api.read"
JOBS: Final = "api.jobs"
EVERYTHING: Final = "api"

_PURPOSE: Final = re.compile(r"[a-z][a-z0-9_.-]{0,31}")


class AppCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer lets the key of ``app`` act for it.

    Attributes:
        app: PeerId of the program's key; nothing else is ever called by it.
        name: What the owner calls the program.
        purposes: What for, 1 to 8 names such as ``api.read``.
        issued_ms: Unix time by the issuer's clock.
        expires_ms: Unix time from which it is worth nothing.
    """

    app: str
    name: str
    purposes: list[str]
    issued_ms: Count
    expires_ms: Count


class AppPass(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer, a program's key, wants to be let in now.

    Attributes:
        certificate: Envelope of its :class:`AppCertificate`.
        audience: PeerId of the node that it is for.
        issued_ms: Unix time by the program's clock.
        expires_ms: Unix time from which it is worth nothing.
    """

    certificate: bytes
    audience: str
    issued_ms: Count
    expires_ms: Count


_CERTIFICATE: Final = msgspec.msgpack.Decoder(AppCertificate)
_PASS: Final = msgspec.msgpack.Decoder(AppPass)


def sign_certificate(identity: Identity, network: str, certificate: AppCertificate) -> bytes:
    """Return the signed envelope of ``certificate``.

    Raises:
        LocalProtocolError: It breaks a rule; says which.
    """
    try:
        _check(certificate)
    except Malformed as exc:
        raise LocalProtocolError(str(exc)) from exc
    return seal(identity, CERTIFICATE, network, encode(certificate))


def read_certificate(envelope: bytes, *, issuer: str, network: str) -> AppCertificate:
    """Return what ``issuer`` has certified, whether it counts still or not.

    Raises:
        TooLarge: Over the limit.
        RemoteProtocolError: Forged, another's, for another network, or against the rules.
    """
    if len(envelope) > limits.CERTIFICATE_SIZE_MAX:
        raise TooLarge(len(envelope), limits.CERTIFICATE_SIZE_MAX)
    parts = unseal(envelope, kind=CERTIFICATE, network=network)
    if parts.i != issuer:
        raise BadSignature("the certificate is by another node")
    certificate = decode_as(parts.p, _CERTIFICATE)
    _check(certificate)
    return certificate


def sign_pass(
    app: Identity, network: str, certificate: bytes, *, audience: str, now_ms: int
) -> bytes:
    """Return a pass to ``audience``, as good as the certificate, for a few minutes."""
    body = AppPass(
        certificate=certificate,
        audience=audience,
        issued_ms=now_ms,
        expires_ms=now_ms + limits.PASS_LIFETIME_MS_MAX,
    )
    return seal(app, PASS, network, encode(body))


def read_pass(envelope: bytes, *, issuer: str, network: str, now_ms: int) -> AppCertificate:
    """Return what the bearer of a pass to ``issuer``, who certified it, may do now.

    Raises:
        TooLarge: Over the limit.
        Expired: Pass or certificate doesn't count now.
        WrongAudience: The pass is for another node.
        BadSignature: Forged, or by a key that ``issuer`` has not certified.
        RemoteProtocolError: For another network, or against the rules.
    """
    if len(envelope) > limits.PASS_SIZE_MAX:
        raise TooLarge(len(envelope), limits.PASS_SIZE_MAX)
    parts = unseal(envelope, kind=PASS, network=network)
    shown = decode_as(parts.p, _PASS)
    certificate = read_certificate(shown.certificate, issuer=issuer, network=network)
    if parts.i != certificate.app:
        raise BadSignature("the pass is by a key that its certificate doesn't name")
    if shown.audience != issuer:
        raise WrongAudience("the pass is for another node")
    lifetime_ms = shown.expires_ms - shown.issued_ms
    _need(0 < lifetime_ms <= limits.PASS_LIFETIME_MS_MAX, "a pass that lives too long")
    for what, issued_ms, expires_ms in (
        ("pass", shown.issued_ms, shown.expires_ms),
        ("certificate", certificate.issued_ms, certificate.expires_ms),
    ):
        if now_ms >= expires_ms + limits.SKEW_MS_MAX:
            raise Expired(f"the {what} expired at {expires_ms}")
        if issued_ms > now_ms + limits.SKEW_MS_MAX:
            raise Expired(f"the {what} was issued in the future, at {issued_ms}")
    return certificate


def require(certificate: AppCertificate, purpose: str) -> None:
    """Refuse what ``certificate`` isn't for.

    Raises:
        NotCovered: It names neither ``purpose`` nor one above it; ``api`` is above all
            that begin with ``api.``.
    """
    above = [purpose[:end] for end, mark in enumerate(purpose) if mark == "."]
    if not {purpose, *above} & set(certificate.purposes):
        raise NotCovered(f"the key is not certified for {purpose}")


def _check(certificate: AppCertificate) -> None:
    public_key(certificate.app)
    lifetime_ms = certificate.expires_ms - certificate.issued_ms
    _need(0 < lifetime_ms <= limits.CERTIFICATE_LIFETIME_MS_MAX, "its lifetime is out of range")
    _need(1 <= len(certificate.purposes) <= limits.PURPOSES_MAX, "no purpose, or too many")
    for purpose in certificate.purposes:
        _need(_PURPOSE.fullmatch(purpose) is not None, "a purpose that may not exist")
    name = certificate.name
    _need(len(name) <= limits.APP_NAME_SIZE_MAX, "its name is too long")
    _need(not name or name.isprintable(), "its name is no line")


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"app key: {otherwise}")
