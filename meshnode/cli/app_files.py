"""An app key and its certificate in one file, and the passes that are made from it.

``app1:`` and base64url of the key's 32-byte seed and the certificate's envelope.  It stands
wherever a token file does: each command makes a pass of its own.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from typing import Final

from meshnode.adapters.system import SystemClock
from meshnode.errors import ConfigError
from protocol.app_keys import sign_pass
from protocol.errors import RemoteProtocolError
from protocol.keys import SEED_SIZE, Identity
from protocol.signing import peek

_PREFIX: Final = "app1:"
_BEARER: Final = "app1."


@dataclass(frozen=True, slots=True)
class AppFile:
    """What is in one; never printed."""

    app: Identity
    certificate: bytes


def is_app_file(text: str) -> bool:
    """Tell whether ``text`` is the content of such a file, and no token."""
    return text.startswith(_PREFIX)


def write_app(seed: bytes, certificate: bytes) -> str:
    """Return the content of the file."""
    return _PREFIX + urlsafe_b64encode(seed + certificate).decode()


def read_app(text: str, *, where: str) -> AppFile:
    """Return what is in ``text``.

    Raises:
        ConfigError: It is damaged; names the file.
    """
    try:
        raw = urlsafe_b64decode(text.removeprefix(_PREFIX))
        seed, certificate = raw[:SEED_SIZE], raw[SEED_SIZE:]
        peek(certificate)
    except (NotBase64, ValueError, RemoteProtocolError) as exc:
        raise ConfigError(
            f"app key file {where} is damaged", hint="make another: meshnode keys certify"
        ) from exc
    return AppFile(Identity(seed, seed), certificate)  # nothing is ever sealed to it


def pass_of(text: str, *, where: str) -> str:
    """Return a bearer token, good for minutes, from the content of an app key's file.

    Raises:
        ConfigError: It is damaged; names the file.
    """
    held = read_app(text, where=where)
    issuer = peek(held.certificate)
    envelope = sign_pass(
        held.app,
        issuer.n,
        held.certificate,
        audience=issuer.i,
        now_ms=SystemClock().now_ms(),
    )
    return _BEARER + urlsafe_b64encode(envelope).rstrip(b"=").decode()
