"""The real DHT without sockets: py-libp2p and our adapters, over connections in memory.

Noise, yamux, multistream, identify and the DHT are what they are in a process; only TCP
is replaced, by queues whose bytes take a fixed time on Trio's ``MockClock``.  So fifty
real nodes run in virtual time in one process, and what they do can be counted.

Addresses look like TCP's on loopback, because the adapters take no others; nothing is
bound.  A killed node ends as a process does: its connections break, its port refuses.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import THandler
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr
from typing_extensions import override

from meshnode.adapters import libp2p_patches
from meshnode.adapters.libp2p_tcp import TcpStream
from meshnode.adapters.libp2p_transport import Libp2pTransport, build_host
from meshnode.ports import Emit
from simulations.timetable import Timetable

_PORT = 4001


class MemoryStream(TcpStream):
    """One end of a connection; its writes never wait, and arrive a while later."""

    def __init__(self, wire: "Wire", near: str, far: str) -> None:
        super().__init__(cast("trio.SocketStream", None))
        self.near = near
        self.far = far
        self._wire = wire
        self._other: MemoryStream | None = None
        self._arrived = bytearray()
        self._ended = False  # nothing more comes
        self._closed = False
        self._changed = trio.Event()

    @classmethod
    def pair(cls, wire: "Wire", one: str, other: str) -> tuple["MemoryStream", "MemoryStream"]:
        """Return both ends."""
        near, far = cls(wire, one, other), cls(wire, other, one)
        near._other, far._other = far, near
        return near, far

    def arrive(self, data: bytes) -> None:
        """Take what the other end wrote; nothing is its end."""
        self._arrived += data
        self._ended = self._ended or not data
        self._changed.set()

    def end(self) -> None:
        """Be over, as when the process at this end is killed: the other end notices."""
        if not self._closed:
            self._closed = True
            self._send(b"")
            self.arrive(b"")

    def _send(self, data: bytes) -> None:
        assert self._other is not None
        self._wire.deliver(self._other, data)

    @override
    def push(self, data: bytes) -> None:
        if self._closed or self._ended:
            raise ConnectionClosedError("closed", transport="memory")
        self._send(bytes(data))

    @override
    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    @override
    async def room(self, bytes_max: int = 0) -> None:
        return

    @override
    async def receive_into(self, room: memoryview) -> int:
        data = await self.read(len(room))
        room[: len(data)] = data
        return len(data)

    @override
    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._arrived or self._ended):
            self._changed = trio.Event()
            await self._changed.wait()
        data = bytes(self._arrived[:n])
        del self._arrived[: len(data)]
        return data

    @override
    async def close(self) -> None:
        self.end()
        await trio.lowlevel.checkpoint_if_cancelled()

    @override
    def get_remote_address(self) -> tuple[str, int] | None:
        parts = self.far.split("/")
        return parts[2], int(parts[4])


@dataclass
class Wire:
    """What all nodes are connected by.

    Attributes:
        delay_s: What a byte takes from end to end, seconds.
        timetable: Carries what is on its way.
        listeners: Who accepts connections, by address.
        silent: Addresses from which nothing comes any more, not even a refusal.
        streams: All ends there are, by the address of the node that has it.
    """

    delay_s: float
    timetable: Timetable = field(default_factory=Timetable)
    listeners: dict[str, "_Listener"] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    streams: dict[str, list[MemoryStream]] = field(default_factory=dict)

    def deliver(self, end: MemoryStream, data: bytes) -> None:
        """Bring ``data`` to ``end``, unless one of the two ends is silent."""
        if end.near in self.silent or end.far in self.silent:
            return
        self.timetable.at(trio.current_time() + self.delay_s, end.arrive, data)

    async def connect(self, near: str, far: str) -> MemoryStream:
        """Connect as TCP does: one round trip, and the other side knows after half of it."""
        await trio.sleep(self.delay_s)
        if far in self.silent:
            await trio.sleep_forever()
        listener = self.listeners.get(far)
        if listener is None:
            await trio.sleep(self.delay_s)
            raise OpenConnectionError(f"{far} refused")
        here, there = MemoryStream.pair(self, near, far)
        self.streams.setdefault(near, []).append(here)
        self.streams.setdefault(far, []).append(there)
        listener.accept(there)
        await trio.sleep(self.delay_s)
        return here

    def kill(self, address: str, *, silent: bool = False) -> None:
        """Refuse connections to ``address`` from now on, and break those there are.

        Args:
            address: Whose process ends.
            silent: Its host ends with it: nobody refuses, and nobody hears of the end.
        """
        if silent:
            self.silent.add(address)
        self.listeners.pop(address, None)
        for stream in self.streams.pop(address, []):
            stream.end()


class _Listener(IListener):
    def __init__(self, wire: Wire, handler: THandler) -> None:
        self._wire = wire
        self._handler = handler
        self._address = ""
        #: Set by the swarm before it calls :meth:`listen`.
        self.background_nursery: trio.Nursery | None = None

    @override
    async def listen(self, maddr: Multiaddr) -> None:
        self._address = str(maddr)
        self._wire.listeners[self._address] = self

    def accept(self, stream: MemoryStream) -> None:
        assert self.background_nursery is not None
        self.background_nursery.start_soon(self._handler, stream)

    @override
    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return (Multiaddr(self._address),)

    @override
    async def close(self) -> None:
        self._wire.listeners.pop(self._address, None)


class MemoryTransport(ITransport):
    """Dials and listens on a :class:`Wire`."""

    def __init__(self, wire: Wire, address: str) -> None:
        self._wire = wire
        self._address = address

    @override
    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        place, _, _ = str(maddr).partition("/p2p/")
        stream = await self._wire.connect(self._address, place)
        return RawConnection(stream, initiator=True)

    @override
    def create_listener(self, handler_function: THandler) -> IListener:
        return _Listener(self._wire, handler_function)

    @override
    def can_dial(self, maddr: Multiaddr) -> bool:
        return True

    @override
    def can_listen(self, maddr: Multiaddr) -> bool:
        return True

    @override
    def protocols(self) -> list[str]:
        return ["tcp"]


def address_of(number: int) -> str:
    """Return where node ``number`` listens."""
    return f"/ip4/127.1.{number >> 8}.{number & 255}/tcp/{_PORT}"


def silent(_: str, /, **__: object) -> None:
    """Report to nobody."""


@asynccontextmanager
async def open_wire(delay_s: float) -> AsyncIterator[Wire]:
    """Run a wire for as long as the context lasts."""
    async with trio.open_nursery() as nursery:
        wire = Wire(delay_s)
        nursery.start_soon(wire.timetable.run)
        yield wire
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def memory_transport(
    wire: Wire, key_seed: bytes, address: str, emit: Emit = silent
) -> AsyncIterator[Libp2pTransport]:
    """Run what ``open_transport`` runs, on a wire instead of sockets."""
    libp2p_patches.apply()
    host, swarm = build_host(
        create_new_key_pair(key_seed), MemoryTransport(wire, address), emit
    )
    async with host.run(listen_addrs=[Multiaddr(address)]):
        transport = Libp2pTransport(host, swarm, emit)
        try:
            yield transport
        finally:
            wire.kill(address)
            await transport.close()
