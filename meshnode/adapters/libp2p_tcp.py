"""TCP for libp2p, with writes that happen at once or not at all.

py-libp2p awaits each socket write, so whoever cancels a send may leave half an
encrypted frame on the wire, and nobody on that connection understands anything
after it.  Here :meth:`TcpStream.push` never waits: what the socket refuses goes to
a backlog that a task of the connection then writes out (:mod:`.libp2p_yamux`), and a
sender waits *before* its frame, not within it.

The listening sockets are opened before the host runs: a port in use is then an
error of the caller with the address in it (py-libp2p sets ``SO_REUSEPORT``, so two
nodes on one port would each get half of the connections, and nobody would be told).
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.custom_types import THandler
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr
from typing_extensions import override

from meshnode.errors import ConfigError

BACKLOG_BYTES_MAX: Final = 256 * 1024
ACCEPT_QUEUE: Final = 128
_WRITE_BYTES: Final = 256 * 1024
_HOSTS: Final = ("ip4", "ip6", "dns", "dns4", "dns6")


class PortInUse(ConfigError):
    """Another program (or node) already listens on an address that this one was given."""

    code = "transport.port_in_use"

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is already in use",
            hint="stop the other program, or listen on another port (0 picks a free one)",
        )
        self.address = address


class AddressUnusable(ConfigError):
    """An address to listen on that isn't one, or isn't this machine's."""

    code = "transport.address_unusable"


def host_and_port(address: Multiaddr) -> tuple[str, int]:
    """Return what ``/ip4/…/tcp/…`` (or ip6, dns) names.

    Raises:
        ValueError: Not a plain TCP address.
    """
    parts = [(protocol.name, value) for protocol, value in address.items()]
    if len(parts) < 2 or parts[0][0] not in _HOSTS or parts[1][0] != "tcp":  # noqa: PLR2004 - host and port
        raise ValueError(f"{address} is not a TCP address")
    if any(name != "p2p" for name, _ in parts[2:]):
        raise ValueError(f"{address} is more than a TCP address")
    return str(parts[0][1]), int(parts[1][1])


def open_listener(address: str) -> socket.socket:
    """Return a socket that listens on ``address``.

    Raises:
        PortInUse: Somebody else does.
        AddressUnusable: Not an address, or not one of this machine.
    """
    try:
        host, port = host_and_port(Multiaddr(address))
    except Exception as exc:
        # multiaddr raises half a dozen unrelated types for what isn't an address.
        raise AddressUnusable(
            f"{address} is not an address to listen on", hint="such as /ip4/127.0.0.1/tcp/0"
        ) from exc
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(ACCEPT_QUEUE)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(address) from exc
        raise AddressUnusable(f"cannot listen on {address}: {exc.strerror}") from exc
    return listener


def address_of(listener: socket.socket) -> Multiaddr:
    """Return where a listening socket listens, as a multiaddr."""
    host, port = listener.getsockname()[:2]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")


class TcpStream(TrioTCPStream):
    """A TCP connection whose writes can be made without waiting."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self._backlog = bytearray()
        self._drained = trio.Event()
        self._more = False  # the last read was full

    @property
    def backlog_bytes(self) -> int:
        """What was pushed and the socket has not taken yet."""
        return len(self._backlog)

    def push(self, data: bytes) -> None:
        """Write ``data``; what the socket doesn't take now is kept for :meth:`flush`.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        if not self._backlog:
            sent = self._write_now(data)
            if sent == len(data):
                return
            data = data[sent:]
            self._drained = trio.Event()
        self._backlog += data

    async def flush(self) -> None:
        """Write the backlog out.  One task at a time; cancelling it loses nothing.

        Raises:
            ConnectionClosedError: The connection is gone.
        """
        while self._backlog:
            await self._wait(trio.lowlevel.wait_writable)
            with memoryview(self._backlog) as view:
                sent = self._write_now(view[:_WRITE_BYTES])
            del self._backlog[:sent]
        self._drained.set()

    async def room(self, bytes_max: int = 0) -> None:
        """Wait until the backlog holds no more than ``bytes_max`` bytes.

        Raises:
            ConnectionClosedError: The connection was closed meanwhile.
        """
        while len(self._backlog) > bytes_max:
            await self._drained.wait()
            self._check_open()

    async def receive_into(self, room: memoryview) -> int:
        """Put what has come into ``room``; return how many bytes, 0 at the end.

        py-libp2p's :meth:`read` asks for so many bytes, and takes a lock each time; this
        is for the muxer, the only reader once the handshakes are over.

        Raises:
            ConnectionClosedError: The connection broke.
        """
        if self._more:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait(trio.lowlevel.wait_readable)
        while True:
            self._check_open()
            try:
                size = os.readv(self.stream.socket.fileno(), [room])
            except BlockingIOError:
                self._more = False
                await self._wait(trio.lowlevel.wait_readable)
                continue
            except OSError as exc:
                raise ConnectionClosedError(f"TCP: {exc}", transport="tcp") from exc
            self._more = size == len(room)
            return size

    async def _wait(self, until: Callable[[int], Awaitable[None]]) -> None:
        try:
            await until(self.stream.socket.fileno())
        except (OSError, trio.ClosedResourceError) as exc:
            raise ConnectionClosedError(f"closed: {exc}", transport="tcp") from exc

    def _write_now(self, data: bytes | memoryview) -> int:
        self._check_open()
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise ConnectionClosedError(f"TCP: {exc}", transport="tcp") from exc

    def _check_open(self) -> None:
        if self.stream.socket.fileno() < 0:
            raise ConnectionClosedError("closed here", transport="tcp")

    @override
    async def write(self, data: bytes) -> None:
        """Write as py-libp2p expects it: during the handshakes, before the muxer."""
        self.push(data)
        await self.flush()

    @override
    async def close(self) -> None:
        self._backlog.clear()
        self._drained.set()  # whoever waits for room learns that there is no connection
        await self.stream.aclose()


class _Listener(IListener):
    def __init__(self, transport: "TcpTransport", handler: THandler) -> None:
        self._transport = transport
        self._handler = handler
        self._listeners: list[trio.SocketListener] = []
        self._scope = trio.CancelScope()
        #: Set by the swarm before it calls :meth:`listen`.
        self.background_nursery: trio.Nursery | None = None

    @override
    async def listen(self, maddr: Multiaddr) -> None:
        nursery = self.background_nursery
        if nursery is None:
            raise OpenConnectionError("the swarm isn't running")
        listener = trio.SocketListener(
            trio.socket.from_stdlib_socket(self._transport.take_listener(maddr))
        )
        self._listeners.append(listener)
        await nursery.start(self._serve, listener)

    async def _serve(
        self,
        listener: trio.SocketListener,
        *,
        task_status: Any,  # noqa: ANN401 - trio gives its type no public name
    ) -> None:
        with self._scope:
            await trio.serve_listeners(self._accept, [listener], task_status=task_status)

    async def _accept(self, stream: trio.SocketStream) -> None:
        # The swarm catches what goes wrong in a handshake, and closes.
        await self._handler(TcpStream(stream))

    @override
    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return tuple(address_of(listener.socket) for listener in self._listeners)  # type: ignore[arg-type]  # trio's socket has getsockname, too

    @override
    async def close(self) -> None:
        self._scope.cancel()
        for listener in self._listeners:
            await listener.aclose()
        self._listeners.clear()


class TcpTransport(ITransport):
    """Dials and listens on TCP; nothing else is spoken."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = {str(address_of(listener)): listener for listener in listeners}

    @property
    def listening(self) -> tuple[Multiaddr, ...]:
        """Where the sockets that were handed in listen, with their real ports."""
        return tuple(Multiaddr(address) for address in self._listeners)

    def take_listener(self, address: Multiaddr) -> socket.socket:
        """Hand over the socket that was opened for ``address``."""
        try:
            return self._listeners.pop(str(address))
        except KeyError as exc:
            raise OpenConnectionError(f"no socket was opened for {address}") from exc

    @override
    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        host, port = host_and_port(maddr)
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as exc:
            raise OpenConnectionError(f"{host}:{port}: {exc}") from exc
        return RawConnection(TcpStream(stream), initiator=True)

    @override
    def create_listener(self, handler_function: THandler) -> IListener:
        return _Listener(self, handler_function)

    @override
    def can_dial(self, maddr: Multiaddr) -> bool:
        try:
            host_and_port(maddr)
        except ValueError:
            return False
        return True

    @override
    def can_listen(self, maddr: Multiaddr) -> bool:
        return self.can_dial(maddr)

    @override
    def protocols(self) -> list[str]:
        return ["tcp"]

    async def close(self) -> None:
        """Close the sockets that nobody took."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
