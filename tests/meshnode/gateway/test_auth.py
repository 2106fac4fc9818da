"""Who passes the gate, and what the others are told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from trio.testing import MockClock

from meshnode import errors
from meshnode.errors import MeshError
from meshnode.gateway.auth import (
    BODY_GRACE_S,
    HEADERS_MAX,
    BodyTooSlow,
    GateRules,
    _Body,
    build_app,
    status_of,
)
from meshnode.gateway.http import Started, serve_http

TOKEN = "secret-" + "t" * 36
HOST = "127.0.0.1:8080"
GOOD = {"host": HOST, "authorization": f"Bearer {TOKEN}"}


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def emit(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def bug(_request: Request) -> PlainTextResponse:
    raise LookupError("internal detail")


async def busy(_request: Request) -> PlainTextResponse:
    raise errors.Busy("the model", retry_after_ms=1500)


async def broken_stream(_request: Request) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise LookupError("internal detail")

    return StreamingResponse(chunks())


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


ROUTES = [
    Route("/echo", echo, methods=["GET", "POST"]),
    Route("/bug", bug),
    Route("/busy", busy),
    Route("/stream", broken_stream),
    Route("/static/page", echo),
    WebSocketRoute("/ws", talk),
]
RULES = GateRules(TOKEN, public=frozenset({"/echo-public", "/static/"}), body_bytes_max=1000)


async def ask(
    method: str = "GET",
    path: str = "/echo",
    *,
    headers: Any = None,
    content: bytes = b"",
    log: Log | None = None,
) -> httpx.Response:
    app = build_app(ROUTES, RULES, (log or Log()).emit)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
        headers = GOOD if headers is None else headers
        return await client.request(method, path, headers=headers, content=content)


def refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (
        status,
        "application/json",
    )
    error = response.json()["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["code"] == code
    assert error["message"]
    assert "access-control-allow-origin" not in response.headers
    assert TOKEN not in response.text


async def test_the_token_opens() -> None:
    response = await ask("POST", content=b"abc")
    assert (response.status_code, response.text) == (200, "3")


@pytest.mark.parametrize(
    "given",
    [
        *(None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}"),
        *(f"Bearer {TOKEN}x", f"Bearer {TOKEN.upper()}", "Bearer \u00e9"),
    ],
)
async def test_without_the_token_nothing_opens(given: str | None) -> None:
    headers = [(b"host", HOST.encode())]
    if given is not None:
        headers.append((b"authorization", given.encode("latin-1")))
    response = await ask(headers=headers)
    refused(response, 401, "http.unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "127.0.0.2", ""),
        *("localhost.", "127.0.0.1:", "127.0.0.1:80x", "127.0.0.1@evil", "[::1", "::1"),
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/static/page"])
async def test_a_rebound_name_is_refused_even_with_the_token(host: str, path: str) -> None:
    refused(await ask(path=path, headers=GOOD | {"host": host}), 421, "http.host_refused")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "LOCALHOST:80", "[::1]", "[::1]:9"]
)
async def test_loopback_names_are_served_at_any_port(host: str) -> None:
    assert (await ask(headers=GOOD | {"host": host})).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://127.0.0.1:9", f"https://{HOST}"]
)
@pytest.mark.parametrize("path", ["/echo", "/static/page"])
async def test_another_origin_is_refused_even_with_the_token(origin: str, path: str) -> None:
    refused(await ask(path=path, headers=GOOD | {"origin": origin}), 403, "http.origin_refused")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
async def test_a_cross_site_request_without_origin_is_refused(site: str) -> None:
    response = await ask(headers=GOOD | {"sec-fetch-site": site})
    refused(response, 403, "http.origin_refused")


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_the_nodes_own_pages_pass(site: str) -> None:
    own = GOOD | {"origin": f"http://{HOST}", "sec-fetch-site": site}
    assert (await ask(headers=own)).status_code == 200


async def test_a_preflight_gets_no_permission() -> None:
    asked = {
        "host": HOST,
        "origin": "http://evil.example",
        "access-control-request-method": "PUT",
    }
    refused(await ask("OPTIONS", headers=asked), 403, "http.origin_refused")


async def test_public_paths_need_no_token_and_others_do() -> None:
    no_token = {"host": HOST}
    assert (await ask(path="/static/page", headers=no_token)).status_code == 200
    for path in ("/static", "/echo", "/echo-public/x", "/other"):
        refused(await ask(path=path, headers=no_token), 401, "http.unauthorized")


@pytest.mark.parametrize("name", ["Host", "Authorization", "Origin", "Content-Type"])
async def test_a_header_that_counts_may_come_once(name: str) -> None:
    headers = [*GOOD.items(), ("origin", f"http://{HOST}"), ("content-type", "a/b")]
    value = dict(headers)[name.lower()]
    refused(await ask(headers=[*headers, (name, value)]), 400, "http.bad_headers")


async def test_too_many_headers_are_refused() -> None:
    assert (await ask(headers=GOOD | _extra(20))).status_code == 200
    refused(await ask(headers=GOOD | _extra(HEADERS_MAX)), 431, "http.bad_headers")


def _extra(count: int) -> dict[str, str]:
    return {f"x-{number}": "" for number in range(count)}


@pytest.mark.parametrize("length", ["-1", "1e3", "", "0x10", "+5", "٣"])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    headers = [*((k.encode(), v.encode()) for k, v in GOOD.items())]
    response = await ask(headers=[*headers, (b"content-length", length.encode())])
    refused(response, 400, "http.bad_headers")


@pytest.mark.parametrize("length", ["1001", "9" * 5000])
async def test_a_declared_length_over_the_limit_is_refused_unread(length: str) -> None:
    refused(await ask(headers=GOOD | {"content-length": length}), 413, "http.too_large")


async def test_a_body_over_the_limit_is_refused_whatever_it_declared() -> None:
    assert (await ask("POST", content=bytes(1000))).text == "1000"
    parts = [bytes(600), bytes(400), bytes(1), bytes(600)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in GOOD.items()]
    scope = {"type": "http", "method": "POST", "path": "/echo", "query_string": b""}
    app = build_app(ROUTES, RULES, Log().emit)
    await app({**scope, "headers": [*headers, (b"content-length", b"5")]}, receive, send)
    assert sent[0]["status"] == 413
    assert b"http.too_large" in sent[1]["body"]
    assert len(parts) == 1, "it read on after the limit"


async def test_a_body_that_trickles_is_refused_in_time(autojump_clock: MockClock) -> None:
    async def trickle() -> dict[str, object]:
        await trio.sleep(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    body = _Body(trickle, 1000)
    start_s = trio.current_time()

    async def read_all() -> None:
        while True:
            await body.receive()

    with pytest.raises(BodyTooSlow):
        await read_all()
    assert BODY_GRACE_S <= trio.current_time() - start_s < BODY_GRACE_S + 1


async def test_waiting_for_the_client_to_leave_has_no_limit(autojump_clock: MockClock) -> None:
    async def receive() -> dict[str, object]:
        if not parts:
            await trio.sleep(10_000)
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(), "more_body": False}

    parts = [b"whole"]
    body = _Body(receive, 1000)
    assert (await body.receive())["body"] == b"whole"
    assert (await body.receive())["type"] == "http.disconnect"


async def test_a_bug_in_a_route_is_reported_but_not_shown() -> None:
    log = Log()
    response = await ask(path="/bug", log=log)
    refused(response, 500, "http.internal")
    assert "internal detail" not in response.text
    assert "Traceback" not in response.text
    [(name, fields)] = log.events
    assert name == "http.route_failed"
    assert "LookupError: internal detail at " in str(fields["reason"])


async def test_a_nodes_own_error_is_shown_with_its_hint() -> None:
    response = await ask(path="/busy")
    refused(response, 429, "node.busy")
    assert response.headers["retry-after"] == "2"
    assert response.json()["error"]["hint"] == "try again in 1500 ms"


@pytest.mark.parametrize("kind", errors.MeshError.__subclasses__())
def test_every_error_of_the_vocabulary_has_a_status_of_its_own(kind: type[MeshError]) -> None:
    if kind.__module__ == errors.__name__:
        assert status_of(kind("x")) != 500
    assert status_of(MeshError("x")) == 500


async def test_unknown_paths_and_methods_are_json_too() -> None:
    refused(await ask(path="/nowhere"), 404, "http.not_found")
    response = await ask("DELETE")
    refused(response, 405, "http.method_not_allowed")
    assert response.headers["allow"]


async def test_refusals_are_reported_without_secrets() -> None:
    log = Log()
    await ask(headers={"host": HOST, "authorization": "Bearer guess"}, log=log)
    assert log.events == [("http.refused", {"path": "/echo", "code": "http.unauthorized"})]
    assert TOKEN not in repr(RULES)


@asynccontextmanager
async def serving(log: Log) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Started) -> None:
            app = build_app(ROUTES, RULES, log.emit)
            await serve_http(app, emit=log.emit, task_status=task_status)

        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


async def test_a_response_that_breaks_off_is_seen_to_be_broken() -> None:
    log = Log()
    async with serving(log) as port, httpx.AsyncClient() as client:
        headers = {"authorization": f"Bearer {TOKEN}"}
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{port}/stream", headers=headers)
    names = [name for name, _ in log.events]
    assert names == ["http.route_failed", "http.response_broken"]


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"Origin": "http://evil.example"}, 403)]
)
async def test_a_websocket_is_refused_in_its_handshake(
    headers: dict[str, str], status: int
) -> None:
    log = Log()
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    handshake |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} | headers
    async with serving(log) as port, httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{port}/ws", headers=handshake)
    assert response.status_code == status
    assert "error" in response.json()
