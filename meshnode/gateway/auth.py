"""What every request passes before a route sees it, and what it gets if it doesn't.

Any web page that the user has open can send requests to loopback, and a name of an
attacker can point there (DNS rebinding).  So each request must carry this node's
token, name a loopback host, and come from no other origin; there are no CORS headers.
Heads and bodies are bounded before a route reads them.

:class:`Gate` is outermost; :class:`JsonErrors` is inside Starlette, because Starlette
itself answers what escapes a route, as plain text.  Every refusal is JSON:
``{"error": {"code", "message", "hint"}}``, with no traceback.
"""

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar, Final

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from meshnode import errors
from meshnode.errors import MeshError
from meshnode.ports import Emit

PASS: Final = b"app1."  # begins what programs with a key of their own bear
HEADERS_MAX: Final = 64
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
#: A body must arrive at this rate at least, after a moment's grace.
BODY_BYTES_PER_S_MIN: Final = 4096
BODY_GRACE_S: Final = 10.0
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

#: Headers that mean something to this gate: two of one kind would leave open which counts.
_SINGLE: Final = (
    b"host",
    b"origin",
    b"authorization",
    b"content-length",
    b"content-type",
    b"sec-fetch-site",
)


class Refused(MeshError):
    """A request that gets no further."""

    code = "http.refused"
    status: ClassVar[int] = 400


class BadHeaders(Refused):
    """Headers that contradict each other, or one that can't be read."""

    code = "http.bad_headers"


class TooManyHeaders(BadHeaders):
    """More headers than any honest client sends."""

    status = 431


class HostRefused(Refused):
    """The request was meant for another host: a rebound DNS name."""

    code = "http.host_refused"
    status = 421


class OriginRefused(Refused):
    """A page of another origin sent the request."""

    code = "http.origin_refused"
    status = 403


class Unauthorized(Refused):
    """No token, or not this node's."""

    code = "http.unauthorized"
    status = 401


class BodyTooLarge(Refused):
    """More body than allowed; read no further."""

    code = "http.too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body exceeds {limit} bytes", hint="send less, or in parts")


class BodyTooSlow(Refused):
    """The body trickles in."""

    code = "http.too_slow"
    status = 408


class Failed(Refused):
    """A route raised what it should not have; the log has the reason."""

    code = "http.internal"
    status = 500


@dataclass(frozen=True, slots=True)
class GateRules:
    """Who may pass.

    Attributes:
        token: What ``Authorization: Bearer`` must carry.
        hosts: Names that a Host header may have, whatever the port.
        public: Paths that need no token; one that ends in ``/`` stands for all below it.
            Host and origin are checked there too.
        body_bytes_max: Longest body of a request.
        judge_pass: Judges a request that bears a program's pass, without its prefix.
    """

    token: str = field(repr=False)
    hosts: frozenset[str] = LOOPBACK_HOSTS
    public: frozenset[str] = frozenset()
    body_bytes_max: int = BODY_BYTES_MAX
    judge_pass: Callable[[Scope, bytes], None] | None = None

    def is_public(self, path: str) -> bool:
        """Tell whether ``path`` may be had without a token."""
        return path in self.public or any(
            path.startswith(prefix) for prefix in self.public if prefix.endswith("/")
        )


def build_app(
    routes: Sequence[BaseRoute],
    rules: GateRules,
    emit: Emit,
    *,
    lifespan: Lifespan[Starlette] | None = None,
) -> ASGIApp:
    """Return an app with ``routes`` behind the gate, every error of which is JSON."""
    return Gate(bare_app(routes, emit, lifespan=lifespan), rules, emit)


def bare_app(
    routes: Sequence[BaseRoute], emit: Emit, *, lifespan: Lifespan[Starlette] | None = None
) -> ASGIApp:
    """Return the app without a gate, for calls from within this process."""
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(JsonErrors, emit=emit)],
        exception_handlers={HTTPException: _http_error},
    )


# --- the gate ---------------------------------------------------------------------


class Gate:
    """Lets through what :class:`GateRules` allow; everything else gets a refusal."""

    def __init__(self, app: ASGIApp, rules: GateRules, emit: Emit) -> None:
        self._app = app
        self._rules = rules
        self._emit = emit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            check(scope, self._rules)
        except Refused as refusal:
            self._emit("http.refused", path=scope["path"], code=refusal.code)
            await refuse(scope, send, refusal)
            return
        capped = _Body(receive, self._rules.body_bytes_max).receive
        await self._app(scope, receive if scope["type"] == "websocket" else capped, send)


def check(scope: Scope, rules: GateRules) -> None:
    """Judge the head of a request, cheap checks first.

    Raises:
        Refused: With the status and code of the first check that it fails.
    """
    single = _single_headers(scope)
    _check_host(single, rules)
    _check_origin(single)
    if not rules.is_public(scope["path"]):
        _check_token(scope, single, rules)
    _check_length(single, rules)


def _single_headers(scope: Scope) -> Mapping[bytes, bytes]:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > HEADERS_MAX:
        raise TooManyHeaders(
            f"{len(headers)} headers, allowed are {HEADERS_MAX}", hint="send fewer"
        )
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGLE:
            if name in found:
                raise BadHeaders(
                    f"header {name.decode('latin-1')} occurs twice", hint="send it once"
                )
            found[name] = value
    return found


def _check_host(single: Mapping[bytes, bytes], rules: GateRules) -> None:
    host = single.get(b"host", b"").decode("latin-1").lower()
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if name not in rules.hosts or not (port.isascii() and port.isdigit()):
        raise HostRefused(
            "this host name is not served here",
            hint="use the address that the node printed, such as http://127.0.0.1:PORT",
        )


def _check_origin(single: Mapping[bytes, bytes]) -> None:
    origin = single.get(b"origin")
    same = origin is None or origin.lower() == b"http://" + single[b"host"].lower()
    # Browsers send no Origin with a plain cross-site GET, but they say where it is from.
    site = single.get(b"sec-fetch-site", b"none")
    if not same or site not in {b"none", b"same-origin"}:
        raise OriginRefused(
            "requests from other web pages are refused",
            hint="call from a program, or from the node's own pages",
        )


def _check_token(scope: Scope, single: Mapping[bytes, bytes], rules: GateRules) -> None:
    scheme, _, given = single.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and given.startswith(PASS) and rules.judge_pass:
        rules.judge_pass(scope, given[len(PASS) :].strip())
        return
    right = hmac.compare_digest(given.strip(), rules.token.encode())
    if scheme.lower() != b"bearer" or not right:
        raise Unauthorized(
            "the token is missing or wrong",
            hint="send 'Authorization: Bearer TOKEN' with the content of the node's token file",
        )


def _check_length(single: Mapping[bytes, bytes], rules: GateRules) -> None:
    length = single.get(b"content-length", b"0")
    if not length.isdigit():
        raise BadHeaders("content-length is not a number", hint="send its length in bytes")
    # Compared by digits first: Python refuses to read numbers of thousands of them.
    digits_max = len(str(rules.body_bytes_max))
    if len(length.lstrip(b"0")) > digits_max or int(length) > rules.body_bytes_max:
        raise BodyTooLarge(rules.body_bytes_max)


class _Body:
    """A request's body: no longer than allowed, no slower than tolerable."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._read_bytes = 0
        self._start_s: float | None = None
        self._complete = False

    async def receive(self) -> Message:
        """Return the next message of the request, or refuse the rest of it."""
        if self._complete:
            return await self._receive()
        if self._start_s is None:
            self._start_s = trio.current_time()
        allowance_s = BODY_GRACE_S + self._read_bytes / BODY_BYTES_PER_S_MIN
        try:
            with trio.fail_at(self._start_s + allowance_s):
                message = await self._receive()
        except trio.TooSlowError:
            raise BodyTooSlow("the body arrives too slowly", hint="send it at once") from None
        self._read_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._read_bytes > self._bytes_max:
            self._complete = False
            raise BodyTooLarge(self._bytes_max)
        return message


# --- errors as JSON ---------------------------------------------------------------

#: The first class that an error is an instance of decides.
_STATUS: Final[Sequence[tuple[type[MeshError], int]]] = (
    (errors.Busy, 429),
    (errors.NotFound, 404),
    (errors.NoProvider, 404),
    (errors.ArtifactTooLarge, 413),
    (errors.ArtifactError, 404),
    (errors.CannotPlan, 422),
    (errors.InputInvalid, 422),
    (errors.GraphError, 422),
    (errors.ConfigError, 422),
    (errors.KeyReused, 409),
    (errors.NoStandbys, 409),
    (errors.Superseded, 409),
    (errors.NoSettlement, 409),
    (errors.BeyondEnd, 409),
    (errors.JobEnded, 409),
    (errors.Cancelled, 409),
    (errors.JobFailed, 409),
    (errors.BoundReached, 409),
    (errors.CheckpointTooLarge, 413),
    (errors.AgentTimeout, 504),
    (errors.AgentError, 502),
    (errors.Unreachable, 502),
    (errors.StreamLost, 502),
    (errors.StoreError, 503),
)


def status_of(error: MeshError) -> int:
    """Return the HTTP status that tells a client whose fault ``error`` is."""
    if isinstance(error, Refused):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


class JsonErrors:
    """Answers what a route raises; reports what it should not have raised."""

    def __init__(self, app: ASGIApp, emit: Emit) -> None:
        self._app = app
        self._emit = emit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and answer it in any case."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or not message["type"].startswith("websocket.http")
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            self._emit("http.client_left", path=scope["path"])
        except MeshError as error:
            await self._answer(scope, send, error, started=started)
        except Exception as error:  # noqa: BLE001 - reported, and answered with a 500
            self._emit("http.route_failed", path=scope["path"], reason=_where(error))
            failure = Failed("the node failed to answer", hint="its log says why")
            await self._answer(scope, send, failure, started=started)

    async def _answer(
        self, scope: Scope, send: Send, error: MeshError, *, started: bool
    ) -> None:
        if not started:
            await refuse(scope, send, error)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011, "reason": error.code})
        else:
            # Too late for a status: the server breaks the response off, which tells the
            # client that it isn't whole.
            self._emit("http.response_broken", path=scope["path"], code=error.code)


async def refuse(scope: Scope, send: Send, error: MeshError) -> None:
    """Answer a request, or a WebSocket's handshake, with ``error`` as JSON."""
    response = _error_response(status_of(error), error.code, str(error), error.hint)
    if isinstance(error, errors.Busy):
        response.headers["retry-after"] = str(-(-error.retry_after_ms // 1000))
    prefix = "http.response" if scope["type"] == "http" else "websocket.http.response"
    await send(
        {
            "type": f"{prefix}.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": f"{prefix}.body", "body": response.body})


def _error_response(status: int, code: str, message: str, hint: str) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    content = {"error": {"code": code, "message": message, "hint": hint}}
    return Response(json.dumps(content), status, headers, "application/json")


#: What Starlette itself raises: no such path, no such method.
_HTTP_CODES: Final = {404: "http.not_found", 405: "http.method_not_allowed"}


async def _http_error(_request: Request, raised: Exception) -> Response:
    if not isinstance(raised, HTTPException):
        raise raised
    code = _HTTP_CODES.get(raised.status_code, Refused.code)
    hint = "see what the node's API offers"
    response = _error_response(raised.status_code, code, raised.detail, hint)
    response.headers.update(raised.headers or {})
    return response


def _where(error: BaseException) -> str:
    """Return what was raised and where, for the log; the client doesn't see it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {error}{place}"
