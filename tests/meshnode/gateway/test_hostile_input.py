"""Whatever a client sends, the server answers the next one.

Each input is sent in full, the sending side is closed, and what comes back is read to
its end: a server that neither answers nor hangs up fails the test at its deadline.
"""

import socket
import struct
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from meshnode.gateway.auth import GateRules, build_app
from meshnode.gateway.http import Started, serve_http
from tests.meshnode.gateway.hostile_inputs import HOST, all_inputs

LIMIT_S = 30.0
TOKEN = "t" * 43
INPUTS = all_inputs()
#: Found in the inputs that are known to end Hypercorn's own server.
DEADLY = (
    b"Sec-WebSocket-Extensions: \xff",
    b"\x04\x03/\xff\xfe",
    b"\x02\x03G\xc3\x89",
    b"\x02\x07CONNECT\x01\x09127.0.0.1",
)


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


ROUTES = [Route("/", answer, methods=["GET", "POST"])]


class Log:
    """Remembers what was emitted."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def emit(self, name: str, **_fields: object) -> None:
        self.names.append(name)


@asynccontextmanager
async def guarded(log: Log, *, gate: bool) -> AsyncIterator[int]:
    """Serve with the guard; without the gate, so that inputs get as far as they can."""
    app = build_app(ROUTES, GateRules(TOKEN), log.emit) if gate else Starlette(routes=ROUTES)
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: Started) -> None:
            await serve_http(app, emit=log.emit, task_status=task_status)

        port: int = await nursery.start(serve)
        yield port
        nursery.cancel_scope.cancel()


async def send_hostile(port: int, data: bytes, *, reset: bool) -> None:
    """Send ``data``; then break the connection, or close our side and read to the end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            await stream.send_all(data)
            if reset:
                linger = struct.pack("ii", 1, 0)
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            await stream.send_eof()
            while await stream.receive_some(65_536):
                pass
        except trio.BrokenResourceError:
            pass  # the server hung up on us, as it may


async def well_served(port: int) -> bool:
    """Return whether the next, honest client gets its answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        head = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n"
        await stream.send_all(head + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        reply = b"".join([part async for part in stream])
    return reply.startswith(b"HTTP/1.1 200") and b"0 bytes" in reply


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("reset", [False, True])
async def test_no_input_ends_the_server_or_hangs_it(gate: bool, reset: bool) -> None:
    assert len(INPUTS) >= 90
    log = Log()
    async with guarded(log, gate=gate) as port:
        for number, data in enumerate(INPUTS):
            with trio.move_on_after(LIMIT_S) as scope:
                await send_hostile(port, data, reset=reset)
                assert await well_served(port), (
                    f"input {number} broke the server: {data[:80]!r}"
                )
            assert not scope.cancelled_caught, f"input {number} hung: {data[:80]!r}"
    if not gate and not reset:
        # The inputs do reach what the guard is there for.
        assert "http.connection_failed" in log.names


async def test_hostile_clients_at_once_keep_no_honest_one_waiting() -> None:
    log = Log()
    async with guarded(log, gate=True) as port:
        with trio.fail_after(LIMIT_S * 2):
            async with trio.open_nursery() as nursery:
                for data in INPUTS:
                    nursery.start_soon(partial(send_hostile, port, data, reset=False))
                assert await well_served(port)
        assert await well_served(port)


async def dies_of(data: bytes) -> bool:
    """Return whether Hypercorn's own server ends by ``data``."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    log = Log()

    async def bare(*, task_status: Any) -> None:
        app: Any = Starlette(routes=ROUTES)
        await hypercorn.trio.serve(app, config, task_status=task_status)

    try:
        async with trio.open_nursery() as nursery:
            binds: list[str] = await nursery.start(bare)
            port = int(binds[0].rpartition(":")[2])
            with trio.move_on_after(LIMIT_S):
                await send_hostile(port, data, reset=False)
                # Cancelling at once could overtake the error on its way up.
                await well_served(port)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        log.emit("server.died", error=group.subgroup(Exception))
    return "server.died" in log.names


async def test_without_the_guard_the_server_dies_of_them() -> None:
    suspects = [data for data in INPUTS if any(part in data for part in DEADLY)]
    assert len(suspects) == len(DEADLY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the dead leave sockets open
        assert [await dies_of(data) for data in suspects] == [True] * len(suspects)
