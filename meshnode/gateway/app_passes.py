"""Programs at the gate: a pass instead of the token, good for what its certificate says.

Specified in protocol/spec/24-app-keys.md.
"""

from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import ClassVar, Final

from starlette.types import Scope

from meshnode.gateway.auth import Refused, Unauthorized
from meshnode.node import Node
from protocol.app_keys import EVERYTHING, JOBS, READ
from protocol.errors import NotCovered, RemoteProtocolError
from protocol.limits import PASS_SIZE_MAX

#: Where jobs are had done: these paths, and all below them.
_JOBS: Final = ("/api/jobs", "/api/plan", "/v1", "/mcp")
_PASS_TEXT_MAX: Final = 2 * PASS_SIZE_MAX


class NotCertified(Refused):
    """The program is known, and may not do this."""

    code = "http.not_certified"
    status: ClassVar[int] = 403


def purpose_of(method: str, path: str) -> str:
    """Return what a program must be certified for to make such a request."""
    if method in {"GET", "HEAD"}:
        return READ
    inside = any(path == place or path.startswith(f"{place}/") for place in _JOBS)
    return JOBS if method in {"POST", "DELETE"} and inside else EVERYTHING


def passes(node: Node) -> Callable[[Scope, bytes], None]:
    """Return what judges a request to ``node`` that bears a pass."""

    def judge(scope: Scope, text: bytes) -> None:
        """Let it through, or refuse it.

        Raises:
            NotCertified: Its certificate is for something else.
            Unauthorized: It is no pass to this node, or none that counts now.
        """
        method = scope.get("method", "") if scope["type"] == "http" else ""
        try:
            envelope = _envelope(text)
            bearer = node.identities.apps.admit(envelope, purpose_of(method, scope["path"]))
        except NotCovered as exc:
            raise NotCertified(
                str(exc), hint="have the owner certify it: meshnode keys certify"
            ) from exc
        except (RemoteProtocolError, NotBase64) as exc:
            raise Unauthorized(
                f"the pass doesn't hold: {exc}", hint="make another: meshnode keys pass FILE"
            ) from exc
        if method not in {"GET", "HEAD"}:  # what changes something has a name to it
            node.events.emit("app.acts", app=bearer.app, called=bearer.name, path=scope["path"])

    return judge


def _envelope(text: bytes) -> bytes:
    if len(text) > _PASS_TEXT_MAX:
        raise NotBase64("too long")
    if not text.isascii():
        raise NotBase64("not base64url")
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
