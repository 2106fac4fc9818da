"""An HTTP server that no connection can end.

Hypercorn's protocol machines (HTTP/1.1, HTTP/2, WebSocket) are good; around them its
server lets one connection's exception end the process, waits for ever for a client
that doesn't read, and blocks when an app answers before it has read the body.  So the
connection is ours: bytes in, bytes out, deadlines, and a guard that turns whatever a
connection raises into an event.

What each connection may cost is bounded: a request's head must be complete
``IDLE_S`` after the connection was made or became idle, a write must make progress
within ``SEND_S``, ``CONNECTIONS_MAX`` are open at once.

The server listens on loopback addresses unless it is told otherwise; who may call what
is the business of :mod:`meshnode.gateway.auth`.
"""

import errno
import ipaddress
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import (
    H2CProtocolRequiredError,
    H2ProtocolAssumedError,
    H11Protocol,
)
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from priority.priority import PriorityTree
from starlette.types import ASGIApp

from meshnode.errors import ConfigError, MeshError
from meshnode.ports import Emit

PORT_MAX: Final = 65_535
IDLE_S: Final = 5.0
SEND_S: Final = 30.0
#: After our last byte the client's are read and dropped for so long: closing with
#: unread data resets the connection, and the client would lose the answer.
LINGER_S: Final = 2.0
LIFESPAN_END_S: Final = 5.0
CONNECTIONS_MAX: Final = 512
RECEIVE_BYTES: Final = 65_536
HEAD_BYTES_MAX: Final = 32 * 1024
#: Body chunks that wait for the app; beyond it the client is not read.
INBOX_MAX: Final = 10
WEBSOCKET_MESSAGE_BYTES_MAX: Final = 1024 * 1024
#: Streams that one HTTP/2 connection may name in its lifetime's priority tree.
H2_STREAMS_MAX: Final = 100_000

Message = dict[str, Any]


class Started(Protocol):
    """Where the bound port is reported: the ``task_status`` of ``nursery.start``."""

    def started(self, value: int) -> None:
        """Say that requests are accepted at port ``value``."""


class PortInUse(MeshError):
    """Another program listens there already."""

    code = "http.port_in_use"


class CannotListen(MeshError):
    """The address can't be listened on: not this machine's, or not allowed."""

    code = "http.cannot_listen"


async def serve_http(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    exposed: bool = False,
    emit: Emit,
    task_status: Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until cancelled; reports the bound port once it listens.

    Args:
        app: An ASGI app that answers lifespan events, such as one of Starlette's.
        host: An IP address, or ``localhost``.
        port: 0 takes a free one.
        exposed: Allow an address that other machines can reach.
        emit: Is told what connections and the app raise.
        task_status: Started with the port.

    Raises:
        PortInUse: Something listens there.
        CannotListen: The address can't be bound.
        ConfigError: ``host`` is no IP address, or not loopback while not ``exposed``.
    """
    listeners = await _listen(_address(host, exposed=exposed), port)
    bound_port: int = listeners[0].socket.getsockname()[1]
    server = _Server(app, emit)
    scope = trio.CancelScope(shield=True)
    stopping = trio.Event()
    async with trio.open_nursery() as lifespan:
        try:
            await lifespan.start(_live, server, scope, stopping)
            async with trio.open_nursery() as connections:
                task_status.started(bound_port)
                try:
                    await trio.serve_listeners(
                        server.converse, list(listeners), handler_nursery=connections
                    )
                finally:
                    # A write is shielded, so that no frame is torn: only its socket
                    # going away ends it before its deadline.
                    connections.cancel_scope.cancel()
                    for stream in server.streams:
                        stream.socket.close()
        finally:
            for listener in listeners:
                listener.socket.close()
            # The app's lifespan outlives its connections, but not for ever.
            scope.deadline = trio.current_time() + LIFESPAN_END_S
            stopping.set()


def _address(host: str, *, exposed: bool) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(
            f"HTTP host {host!r} is not an IP address", hint="use 127.0.0.1, ::1 or localhost"
        ) from None
    if not address.is_loopback and not exposed:
        raise ConfigError(
            f"HTTP host {host} can be reached by other machines",
            hint="use 127.0.0.1, or allow it explicitly",
        )
    return str(address)


async def _listen(host: str, port: int) -> Sequence[trio.SocketListener]:
    if not 0 <= port <= PORT_MAX:  # the resolver would take it modulo 65536
        raise ConfigError(f"HTTP port {port} is not 0 to {PORT_MAX}", hint="choose another")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{place} is in use by another program",
                hint="stop it, or choose another port; 0 takes a free one",
            ) from error
        raise CannotListen(
            f"can't listen on {place}: {error.strerror}",
            hint="use an address of this machine and a port above 1023",
        ) from error


async def _live(
    server: "_Server",
    scope: trio.CancelScope,
    stopping: trio.Event,
    *,
    task_status: Started,
) -> None:
    """Run the app's lifespan: up before the first request, down after the last."""
    messages: deque[Message] = deque([{"type": "lifespan.startup"}])

    async def receive() -> Message:
        if messages:
            return messages.popleft()
        await stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI messages are untyped
        # A failed start needs no notice: the app raises it, out of this task.
        if message["type"] == "lifespan.startup.complete":
            task_status.started(0)

    with scope:
        lifespan = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        await server.app({**lifespan, "state": server.state}, receive, send)


def _settings() -> Config:
    config = Config()
    config.errorlog = None  # what there is to tell is emitted
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.h2_max_header_list_size = HEAD_BYTES_MAX
    config.keep_alive_max_requests = 2**31  # else long-lived clients are dropped mid-call
    config.websocket_max_message_size = WEBSOCKET_MESSAGE_BYTES_MAX
    return config


@dataclass(eq=False)
class _Server:
    """What all connections of one server share."""

    app: ASGIApp
    emit: Emit
    config: Config = field(default_factory=_settings)
    context: WorkerContext = field(default_factory=lambda: WorkerContext(None))
    state: dict[str, Any] = field(default_factory=dict)
    streams: set[trio.SocketStream] = field(default_factory=set)

    async def converse(self, stream: trio.SocketStream) -> None:
        """Serve one connection, and let nothing that it raises get further."""
        if len(self.streams) >= CONNECTIONS_MAX:
            self.emit("http.connection_refused", open=len(self.streams))
            await trio.aclose_forcefully(stream)
            return
        self.streams.add(stream)
        try:
            await _Connection(self, stream).run()
        except* Exception as errors:  # noqa: BLE001 - the guard: reported, the server lives on
            self.emit("http.connection_failed", reason=_reason(errors))
        finally:
            self.streams.discard(stream)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


def _reason(error: BaseException) -> str:
    """Return the first real error of a group, as text for an event."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class _Connection:
    """One client's connection: moves bytes between its socket and a protocol machine."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._send_lock = trio.Lock()
        self._finished = False
        # Its deadline is the client's patience with us, or ours with it: see _update.
        self._reading = trio.CancelScope()
        self._parts: tuple[Any, ...] = ()
        self._protocol: H11Protocol | H2Protocol

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        try:
            client = self._stream.socket.getpeername()[:2]
            own = self._stream.socket.getsockname()[:2]
        except OSError:
            return  # reset before we looked
        async with trio.open_nursery() as nursery:
            self._parts = self._machine_parts(_Tasks(nursery, self._server), client, own)
            self._protocol = H11Protocol(*self._parts)
            self._reading.deadline = trio.current_time() + IDLE_S
            with self._reading:
                await self._read()
            await self._protocol.handle(Closed())
            # Nobody is there any more: what apps still do for this client ends here.
            nursery.cancel_scope.cancel()

    def _machine_parts(self, tasks: "_Tasks", client: Any, own: Any) -> tuple[Any, ...]:  # noqa: ANN401 - socket addresses
        """Return what every protocol machine of this connection is made with."""
        server, tls = self._server, False
        state = ConnectionState(server.state.copy())
        return (
            server.app,
            server.config,
            server.context,
            tasks,
            state,
            tls,
            client,
            own,
            self._send,
        )

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not self._finished:
                await self._handle(RawData(bytes(data)))
            if not data:
                return

    async def _handle(self, event: Event) -> None:
        try:
            await self._protocol.handle(event)
        except H2ProtocolAssumedError as switch:
            await self._speak_h2(switch.data)
        except H2CProtocolRequiredError as switch:
            await self._speak_h2(switch.data, switch.headers, switch.settings)

    async def _speak_h2(
        self,
        data: bytes,
        headers: list[tuple[bytes, bytes]] | None = None,
        settings: bytes | None = None,
    ) -> None:
        protocol = H2Protocol(*self._parts)
        # Entries of streams that were reset stay in the tree, and the default of a
        # thousand would end a long-lived connection.
        protocol.priority = PriorityTree(maximum_streams=H2_STREAMS_MAX)
        self._protocol = protocol
        await protocol.initiate(headers, settings)
        if data:
            await protocol.handle(RawData(data))

    async def _send(self, event: Event) -> None:
        """Do what the protocol machine asks for."""
        match event:
            case RawData(data=data):
                await self._write(data)
            case Closed():
                await self._finish()
            case Updated(idle=idle) if not self._finished:
                self._reading.deadline = trio.current_time() + IDLE_S if idle else math.inf

    async def _write(self, data: bytes) -> None:
        sent = False
        async with self._send_lock:
            try:
                # Shielded: a frame cut in two would spoil the connection for others.
                with trio.CancelScope(deadline=trio.current_time() + SEND_S, shield=True):
                    await self._stream.send_all(data)
                    sent = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        if not sent:
            self._finished = True
            self._reading.cancel()

    async def _finish(self) -> None:
        """Say that no more comes, and give the client a moment to read what came."""
        if self._finished:
            return
        self._finished = True
        self._reading.deadline = trio.current_time() + LINGER_S
        async with self._send_lock:
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._reading.cancel()
        await self._protocol.handle(Closed())


class _Tasks:
    """What protocol machines start tasks with; has the shape of Hypercorn's TaskGroup."""

    def __init__(self, nursery: trio.Nursery, server: _Server) -> None:
        self._nursery = nursery
        self._server = server

    def spawn(self, func: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run ``func`` for as long as the connection lasts."""
        self._nursery.start_soon(func, *args)

    async def spawn_app(
        self,
        app: ASGIApp,
        config: Config,  # noqa: ARG002 - part of the shape
        scope: Any,  # noqa: ANN401 - ASGI scopes are untyped
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the app on one request; returns what feeds it."""
        inbox = _Inbox()
        self._nursery.start_soon(self._run_app, app, scope, inbox, send)
        return inbox.put

    async def _run_app(
        self,
        app: ASGIApp,
        scope: Any,  # noqa: ANN401 - ASGI scopes are untyped
        inbox: "_Inbox",
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        try:
            await app(scope, inbox.receive, send)
        except* Exception as errors:  # noqa: BLE001 - reported, and answered with a 500
            self._server.emit("http.app_failed", path=scope["path"], reason=_reason(errors))
        inbox.close()
        await send(None)


class _Inbox:
    """What an app has still to read of its request.

    Hypercorn's own is a channel that blocks when it is full; with an app that answers
    without reading the body, that blocked the connection for ever.  Here the end of a
    request never waits, and after it nothing does.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._end: Message | None = None
        self._changed = trio.lowlevel.ParkingLot()

    async def put(self, message: Message) -> None:
        """Add a message; waits while the app is behind."""
        if message["type"].endswith(".disconnect"):
            self.close(message)
        while self._end is None and len(self._messages) >= INBOX_MAX:
            await self._changed.park()
        if self._end is None:
            self._messages.append(message)
            self._changed.unpark_all()

    def close(self, end: Message | None = None) -> None:
        """Let nobody wait here any more; ``end`` is what the app reads from now on."""
        self._end = self._end or end or {"type": "http.disconnect"}
        self._changed.unpark_all()

    async def receive(self) -> Message:
        """Return the next message; after the end, the end again and again."""
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._end is not None:
                return self._end
            await self._changed.park()
        self._changed.unpark_all()
        return self._messages.popleft()
