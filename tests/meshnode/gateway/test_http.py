"""The HTTP server: where it listens, what it waits for, how it ends."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import h2.connection
import h2.events
import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from meshnode.errors import ConfigError
from meshnode.gateway import http
from meshnode.gateway.http import CannotListen, PortInUse, Started, serve_http

LIMIT_S = 30.0


def silent(_name: str, **_fields: object) -> None:
    pass


async def hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@asynccontextmanager
async def serving(app: Any, **settings: Any) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Started) -> None:
            emit = settings.pop("emit", silent)
            await serve_http(app, emit=emit, task_status=task_status, **settings)

        port: int = await nursery.start(serve)
        with trio.fail_after(LIMIT_S):
            yield port
        nursery.cancel_scope.cancel()


def app_of(*routes: BaseRoute) -> Starlette:
    return Starlette(routes=[Route("/", hello), *routes])


async def test_port_zero_reports_the_port_that_answers() -> None:
    async with serving(app_of()) as port, httpx.AsyncClient() as client:
        assert port > 0
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"


async def test_ipv6_loopback_is_served() -> None:
    async with serving(app_of(), host="::1") as port, httpx.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{port}/")).text == "hello"


async def test_a_port_in_use_is_refused_by_address() -> None:
    async with serving(app_of()) as port:
        with pytest.raises(PortInUse) as caught:
            await serve_http(app_of(), host="localhost", port=port, emit=silent)
    assert caught.value.code == "http.port_in_use"
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - is refused
async def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="reached by other machines"):
        await serve_http(app_of(), host=host, emit=silent)


async def test_an_exposed_address_is_served_when_allowed() -> None:
    async with (
        serving(app_of(), host="0.0.0.0", exposed=True) as port,  # noqa: S104 - allowed here
        httpx.AsyncClient() as client,
    ):
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"


async def test_another_machines_address_is_refused_by_name() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        await serve_http(app_of(), host="192.0.2.1", exposed=True, emit=silent)


@pytest.mark.parametrize("host", ["", "node.example", "127.0.0.1:80"])
async def test_a_name_is_no_host(host: str) -> None:
    with pytest.raises(ConfigError, match="not an IP address"):
        await serve_http(app_of(), host=host, emit=silent)


async def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="70000"):
        await serve_http(app_of(), port=70_000, emit=silent)


async def test_an_answer_reaches_a_client_whose_body_nobody_read() -> None:
    body = bytes(16 * 1024 * 1024)

    async def deaf(request: Request) -> PlainTextResponse:
        # Until what waits for the app is at its limit, and the client is stuck.
        await trio.testing.wait_all_tasks_blocked(0.01)
        return await hello(request)

    async with serving(app_of(Route("/deaf", deaf, methods=["POST"]))) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            head = f"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            # All of it first: a server that closes with unread data loses its answer.
            await stream.send_all(head.encode() + body)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_client_that_sends_for_ever_after_its_answer_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "LINGER_S", 0.1)

    async def send_for_ever(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(bytes(65_536))

    async with serving(app_of(Route("/deaf", hello, methods=["POST"]))) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"POST /deaf HTTP/1.1\r\nHost: x\r\n")
            await stream.send_all(b"Content-Length: 999999999999\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                await send_for_ever(stream)


async def test_a_long_lived_http2_connection_goes_on_past_a_thousand_streams() -> None:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    last = 3001
    for stream_id in range(1, last, 2):
        client.prioritize(stream_id, weight=16)
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
    client.send_headers(last, head, end_stream=True)
    answered: list[object] = []
    async with serving(app_of()) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(client.data_to_send())
            while not answered and (data := await stream.receive_some()):
                events = client.receive_data(data)
                answered += [e for e in events if isinstance(e, h2.events.ResponseReceived)]
    assert answered


async def test_half_a_head_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http.IDLE_S <= 5
    monkeypatch.setattr(http, "IDLE_S", 0.05)
    async with serving(app_of()) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some() == b""


async def test_a_client_that_does_not_read_keeps_nobody_from_stopping() -> None:
    writing = trio.Event()

    class Endless:
        async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                writing.set()
                body = bytes(1024 * 1024)
                await send({"type": "http.response.body", "body": body, "more_body": True})

    with trio.fail_after(LIMIT_S):
        async with serving(app_of(Route("/endless", Endless()))) as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await writing.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.aclose()


async def test_an_app_is_cancelled_when_its_client_leaves() -> None:
    left = trio.Event()
    began = trio.Event()

    async def wait(_request: Request) -> PlainTextResponse:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    async with serving(app_of(Route("/wait", wait))) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await began.wait()
        await stream.aclose()
        await left.wait()


async def test_connections_over_the_limit_are_closed_and_the_others_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 3)
    async with serving(app_of()) as port:
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(4)]
        for stream in streams[:3]:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert await streams[3].receive_some() == b""
        for stream in streams:
            await stream.aclose()


async def test_a_raised_error_is_reported_and_the_connection_not_left_open() -> None:
    events: list[str] = []

    async def bare(scope: Any, receive: Any, _send: Any) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, _send)
            return
        raise LookupError("a bug")

    async with (
        serving(bare, emit=lambda name, **_: events.append(name)) as port,
        httpx.AsyncClient() as client,
    ):
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 500
    assert events == ["http.app_failed"]


async def test_the_lifespan_starts_before_and_ends_after_every_request() -> None:
    story: list[str] = []
    began = trio.Event()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        story.append("up")
        yield {"colour": "blue"}
        story.append("down")

    async def wait(request: Request) -> PlainTextResponse:
        story.append(request.state.colour)
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            story.append("request ended")

    app = Starlette(routes=[Route("/", wait)], lifespan=lifespan)
    async with serving(app) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await began.wait()
    await stream.aclose()
    assert story == ["up", "blue", "request ended", "down"]


async def test_a_failed_start_of_the_app_is_raised_and_frees_the_port() -> None:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        raise LookupError("no model")
        yield

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.RaisesGroup(pytest.RaisesExc(LookupError), flatten_subgroups=True):
        await serve_http(Starlette(lifespan=lifespan), port=port, emit=silent)
    async with serving(app_of(), port=port):
        pass


async def test_a_websocket_talks_both_ways() -> None:
    from trio_websocket import open_websocket_url

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text((await socket.receive_text()).upper())
        await socket.close()

    async with (
        serving(app_of(WebSocketRoute("/ws", echo))) as port,
        open_websocket_url(f"ws://127.0.0.1:{port}/ws") as ours,
    ):
        await ours.send_message("hello")
        assert await ours.get_message() == "HELLO"
