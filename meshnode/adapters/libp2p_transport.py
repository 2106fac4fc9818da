"""The transport port on py-libp2p: Noise and yamux over TCP, Ed25519 identities only.

A host is built from its parts instead of by ``new_host``, which also offers TLS,
plaintext and other muxers and attaches a resource manager that counts but doesn't
guard.  The host runs in a nursery of :func:`open_transport`; every inbound stream
passes :class:`~meshnode.adapters.libp2p_guards.Door`, so a handler that raises ends
its stream and nothing else, and is reported through ``emit``.

Streams over the limit of a protocol are reset after negotiation, so that the opener
learns of it as ``StreamLost`` on its stream.  At most :data:`STREAMS_MAX` streams of
ours are open per connection; one more is ``Busy``.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final, cast

import ifaddr
import trio
from libp2p.abc import INetStream, ITransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr
from multiaddr.exceptions import MultiaddrError

from meshnode.adapters import libp2p_patches
from meshnode.adapters.libp2p_guards import HOUSEKEEPING, Door, Slots, guarded, peer_of
from meshnode.adapters.libp2p_swarm import MeshSwarm
from meshnode.adapters.libp2p_tcp import TcpTransport, host_and_port, open_listener
from meshnode.adapters.libp2p_yamux import MeshMuxer, MeshYamux, MeshYamuxStream
from meshnode.errors import Busy, StreamLost, Unreachable
from meshnode.ports import Emit, Handler, Stream
from protocol.errors import RemoteProtocolError
from protocol.keys import public_key

if TYPE_CHECKING:
    import socket

    from libp2p.network.stream.net_stream import NetStream

#: Streams opened here per connection: a stock py-libp2p takes 256 from a peer.
STREAMS_MAX: Final = 240
#: Longest wait for a peer to agree on a protocol, seconds.
NEGOTIATE_S: Final = 5.0
#: Streams of one protocol at once, from all peers.
SERVED_TOTAL_MAX: Final = 4096
CONNECTIONS_MAX: Final = 1024
CLOSE_S: Final = 3.0


class Libp2pStream:
    """A stream of the transport port on a yamux stream."""

    __slots__ = ("_muxed", "_net", "_over", "_peer")

    def __init__(self, net: INetStream) -> None:
        self._net = net
        self._muxed = cast("MeshYamuxStream", cast("NetStream", net).muxed_stream)
        self._peer = peer_of(net)
        self._over = False

    @property
    def peer(self) -> str:
        """The other side's PeerId, proved by the Noise handshake."""
        return self._peer

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; waits for as long as the peer doesn't read."""
        try:
            await self._muxed.write(data)
        except _BROKEN as exc:
            raise StreamLost(f"the stream to {self._peer} is over: {exc}") from exc

    def send_nowait(self, data: bytes) -> bool:
        """Send all of ``data`` without waiting, or nothing and return False."""
        try:
            return self._muxed.write_nowait(data)
        except _BROKEN as exc:
            raise StreamLost(f"the stream to {self._peer} is over: {exc}") from exc

    async def receive(self, size_max: int = 65_536) -> bytes:
        """Return what has come, or ``b""`` once the peer has finished."""
        try:
            return await self._muxed.read(size_max)
        except MuxedStreamEOF:
            return b""
        except _BROKEN as exc:
            raise StreamLost(f"the stream to {self._peer} is over: {exc}") from exc

    def deliver_to(self, take: Callable[[bytes], None], /) -> bool:
        """Hand what comes to ``take`` at once, from the task that reads the connection."""
        self._muxed.deliver_to(take)
        return True

    def mind_silence(self, _limit_s: float, _on_silence: Callable[[], None], /) -> bool:
        """Return False: TCP says nothing of a peer that is frozen."""
        return False

    async def finish(self) -> None:
        """Say that nothing more will be sent."""
        await self._muxed.close()

    async def aclose(self) -> None:
        """End both directions; what was sent before still arrives."""
        if not self._over:
            self._over = True
            self._muxed.end()
            await self._forget()

    async def abort(self) -> None:
        """End the stream so that the peer sees a break, not an end."""
        self._over = True
        self._muxed.abort()
        await self._forget()

    async def _forget(self) -> None:
        with trio.CancelScope(shield=True):  # bookkeeping; it waits for nobody
            await self._net.reset()


_BROKEN: Final = (MuxedStreamError, OSError, IOException)


class Libp2pTransport:
    """The transport port; made by :func:`open_transport`."""

    def __init__(self, host: BasicHost, swarm: MeshSwarm, emit: Emit) -> None:
        self._host = host
        self._swarm = swarm
        self._emit = emit
        self._negotiator = MultiselectClient()
        self._peer = str(host.get_id())

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self._peer

    @property
    def host(self) -> BasicHost:
        """The libp2p host, for the DHT beside this adapter."""
        return self._host

    @property
    def swarm(self) -> MeshSwarm:
        """The connections, for the DHT beside this adapter."""
        return self._swarm

    @property
    def emit(self) -> Emit:
        """Where this adapter reports."""
        return self._emit

    def addresses(self) -> Sequence[str]:
        """Return where others can dial this node; real ports, no wildcards."""
        return [str(a) for a in dialable(self._host.get_transport_addrs())]

    def connected(self) -> Sequence[str]:
        """Return the peers with an open connection."""
        return [str(peer) for peer in self._swarm.connections if self._swarm.usable(peer)]

    async def open(self, peer: str, protocol: str, *, addresses: Sequence[str] = ()) -> Stream:
        """Open a stream, dialling when there is no connection yet.

        Raises:
            Unreachable: No address answered as ``peer``.
            StreamLost: Connected, but the peer doesn't speak ``protocol``.
            Busy: Too many streams to the peer are open.
        """
        if peer == self._peer:
            raise Unreachable(peer, "that is this node")
        peer_id = parse_peer(peer)
        known = [Multiaddr(a) for a in addresses if _is_address(a)]
        conn = await self._reach(peer_id, known)
        try:
            return await self._open_on(conn, protocol)
        except StreamLost:
            if not (conn.is_closed or conn.muxed_conn.is_closed):
                raise
        # The connection went away under us: it was the second of two, or just lost.
        return await self._open_on(await self._reach(peer_id, known), protocol)

    async def _reach(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> SwarmConn:
        try:
            return await self._swarm.reach(peer_id, addresses)
        except SwarmException as exc:
            raise Unreachable(str(peer_id), str(exc)) from exc

    async def _open_on(self, conn: SwarmConn, protocol: str) -> Stream:
        peer = str(conn.muxed_conn.peer_id)
        muxed = conn.muxed_conn
        if isinstance(muxed, MeshYamux) and muxed.machine.opened_here >= STREAMS_MAX:
            raise Busy(f"the connection to {peer}")
        try:
            net = await self._swarm.open_on(conn)
        except SwarmException as exc:
            raise StreamLost(f"the connection to {peer} is gone: {exc}") from exc
        stream = Libp2pStream(net)
        try:
            await self._negotiator.select_one_of(
                [TProtocol(protocol)], MultiselectCommunicator(net), int(NEGOTIATE_S)
            )
        except (MultiselectClientError, ValueError, AssertionError) as exc:
            # py-libp2p lets some of what a peer may answer pass, such as text that is none.
            await stream.abort()
            raise StreamLost(f"{peer} does not speak {protocol}: {exc}") from exc
        except BaseException:
            await stream.abort()
            raise
        net.set_protocol(TProtocol(protocol))
        return stream

    def serve(self, protocol: str, handler: Handler, *, per_peer_max: int = 32) -> None:
        """Run ``handler`` for each incoming stream of ``protocol``."""
        slots = Slots(per_peer_max, SERVED_TOTAL_MAX)

        async def run(net: INetStream) -> None:
            peer, stream = peer_of(net), Libp2pStream(net)
            if not slots.take(peer):
                self._emit(
                    "transport.stream_refused", peer=peer, protocol=protocol, why="limit"
                )
                await stream.abort()
                return
            try:
                await handler(stream)
            except BaseException:
                await stream.abort()
                raise  # to the door, which reports it
            else:
                await stream.aclose()
            finally:
                slots.give_back(peer)

        self._host.set_stream_handler(TProtocol(protocol), run)

    async def disconnect(self, peer: str) -> None:
        """Drop every connection to ``peer``."""
        with suppress(Unreachable):  # not a PeerId: then nobody of that name is connected
            peer_id = parse_peer(peer)
            async with trio.open_nursery() as nursery:
                for conn in list(self._swarm.connections.get(peer_id, ())):
                    nursery.start_soon(conn.close)

    async def close(self) -> None:
        """Close connections and listeners; part of :func:`open_transport`."""
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
            await self._swarm.close_all()
            await self._host.close()


def parse_peer(peer: str) -> ID:
    """Return libp2p's form of a PeerId.

    Raises:
        Unreachable: Not a PeerId, so nobody can answer to it.
    """
    try:
        public_key(peer)
    except RemoteProtocolError as exc:
        raise Unreachable(peer, "not the PeerId of an Ed25519 key") from exc
    return ID.from_string(peer)


def _is_address(address: str) -> bool:
    try:
        host_and_port(Multiaddr(address))
    except (ValueError, LookupError, MultiaddrError):
        return False
    return True


def dialable(listening: Sequence[Multiaddr]) -> list[Multiaddr]:
    """Replace wildcard addresses by those of this machine's interfaces."""
    return list(dict.fromkeys(a for address in listening for a in _expand(address)))


def _expand(address: Multiaddr) -> Iterator[Multiaddr]:
    host, port = host_and_port(address)
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - it is looked for, not bound
        yield address
        return
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if host == "::" and isinstance(ip.ip, tuple) and not ip.ip[2]:
                yield Multiaddr(f"/ip6/{ip.ip[0]}/tcp/{port}")
            elif host == "0.0.0.0" and isinstance(ip.ip, str):  # noqa: S104 - as above
                yield Multiaddr(f"/ip4/{ip.ip}/tcp/{port}")


def _silent(name: str, **fields: object) -> None:
    """Report to nobody."""


@asynccontextmanager
async def open_transport(
    key_seed: bytes, *, listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",), emit: Emit = _silent
) -> AsyncIterator[Libp2pTransport]:
    """Run a libp2p host for as long as the context lasts.

    Args:
        key_seed: 32-byte seed of the node's Ed25519 key.
        listen: Multiaddrs to listen on; port 0 picks a free one; none: dial only.
        emit: Takes telemetry, and every failure that ends a stream or a connection.

    Raises:
        PortInUse: Something else listens on one of ``listen``.
        ConfigError: An address can't be used, or py-libp2p is another version.
    """
    libp2p_patches.apply()
    listeners: list[socket.socket] = []
    try:
        listeners.extend(open_listener(address) for address in listen)
        tcp = TcpTransport(listeners)
        host, swarm = build_host(create_new_key_pair(key_seed), tcp, emit)
        transport = Libp2pTransport(host, swarm, emit)
        with one_exception() as body:
            async with (
                host.run(listen_addrs=list(tcp.listening)),
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(swarm.close_duplicates)
                try:
                    with body:
                        yield transport
                finally:
                    await transport.close()
                    nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()


class Body:
    """Remembers what the body of the context raised."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self.error = error


@contextmanager
def one_exception() -> Iterator[Body]:
    """Let what the body raised leave as itself, not in the groups of our nurseries."""
    body = Body()
    try:
        yield body
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            if inner is body.error:
                break
            inner = inner.exceptions[0]
        if inner is body.error:
            raise inner from inner.__cause__
        raise


def build_host(
    keys: KeyPair, tcp: ITransport, emit: Emit, muxer: MeshMuxer | None = None
) -> tuple[BasicHost, MeshSwarm]:
    """Put a host together that speaks TCP, Noise and yamux, and dials only when told."""
    peer_id = ID.from_pubkey(keys.public_key)
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    upgrader = TransportUpgrader({NOISE: noise}, {}, negotiate_timeout=int(NEGOTIATE_S))
    upgrader.muxer_multistream = muxer or MeshMuxer(emit)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, keys)
    swarm = MeshSwarm(
        peer_id,
        peerstore,
        upgrader,
        [tcp],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            min_connections=0,
            low_watermark=0,  # with the line above: nobody dials in the background
            high_watermark=CONNECTIONS_MAX,
            max_connections_per_peer=4,
            inbound_upgrade_timeout=NEGOTIATE_S,
            outbound_upgrade_timeout=NEGOTIATE_S,
            outbound_stream_protocol_negotiation_timeout=NEGOTIATE_S,
            inbound_stream_protocol_negotiation_timeout=NEGOTIATE_S,
        ),
    )
    swarm.prepare(emit)
    host = BasicHost(
        swarm,
        negotiate_timeout=int(NEGOTIATE_S),
        addrs_factory=dialable,
        disable_identify_address_discovery=True,  # a peer must not choose our addresses
    )
    mux = host.get_mux()
    for protocol, handler in list(mux.handlers.items()):
        if handler is not None:
            mux.add_handler(protocol, guarded(handler, HOUSEKEEPING, emit))
    swarm.set_stream_handler(Door(mux, emit))
    return host, swarm
