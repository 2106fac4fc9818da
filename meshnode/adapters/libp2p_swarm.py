"""Connections: whom to dial where, and which of several to use.

py-libp2p dials one address per kind of transport (the first it knows, however
stale), retries with pauses, and after a failure refuses to try the peer for 60 s,
even at another address.  Here every address that is known is tried at once, the
first that proves to be the peer wins, nothing is remembered about failures, and all
who want the same peer share one dial.

Two peers that dial each other at the same moment get two connections.  Both sides
prefer the one that the smaller PeerId dialled, and the smaller PeerId closes the
other as soon as no stream uses it.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, cast

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr
from typing_extensions import override

from meshnode.adapters.libp2p_tcp import host_and_port
from meshnode.ports import Emit

DIAL_S: Final = 5.0
#: Addresses that are tried for one peer; more are made up, or stale.
ADDRESSES_MAX: Final = 12
#: How long an address that somebody told us is kept, seconds.
ADDRESS_TTL_S: Final = 3600
#: A second connection is left alone this long: its dialler is about to use it.
DUPLICATE_GRACE_S: Final = 2.0


class DialFailed(SwarmException):
    """No address answered as the peer; the message says what each of them did."""


class _Dial:
    """A dial in progress, for everybody who wants that peer."""

    def __init__(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self.done = trio.Event()
        self.error = ""


class NoAutoConnector(AutoConnector):
    """Dials nobody.

    py-libp2p's dials whomever the peerstore names until half of the high watermark is
    connected, even with ``min_connections`` and ``low_watermark`` at 0.
    """

    @override
    async def run_background_task(self, nursery: trio.Nursery) -> None:
        return

    @override
    async def maybe_connect(self) -> None:
        return


class MeshSwarm(Swarm):
    """py-libp2p's swarm with our way of dialling and choosing."""

    emit: Emit
    _dials: dict[ID, _Dial]

    def prepare(self, emit: Emit) -> None:
        """Finish construction; the base class has thirteen parameters already."""
        self.emit = emit
        self._dials = {}
        self._changed = trio.Event()
        self.auto_connector = NoAutoConnector(self)
        self.register_notifee(_Changes(self))

    # --- dialling -------------------------------------------------------------------

    async def reach(self, peer_id: ID, addresses: Sequence[Multiaddr] = ()) -> SwarmConn:
        """Return a connection to ``peer_id``, dialling if there is none.

        Raises:
            DialFailed: No address answered as that peer within :data:`DIAL_S`.
        """
        if addresses:
            self.peerstore.add_addrs(peer_id, list(addresses), ADDRESS_TTL_S)
        error = "no address is known"
        tried: frozenset[str] = frozenset()
        while True:
            if (conn := self.best_connection(peer_id)) is not None:
                return conn
            dial = self._dials.get(peer_id)
            if dial is None:
                candidates = self._candidates(peer_id, addresses)
                if not {str(a) for a in candidates} - tried:
                    raise DialFailed(error)
                dial = self._start_dial(peer_id, candidates)
            await dial.done.wait()
            tried |= dial.addresses
            error = dial.error or error

    @override
    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """Dial for py-libp2p's own services (DHT, identify)."""
        return [await self.reach(peer_id)]

    def _candidates(self, peer_id: ID, given: Sequence[Multiaddr]) -> list[Multiaddr]:
        known: list[Multiaddr] = []
        with suppress(PeerStoreError):  # its way of saying that there are none
            known = self.peerstore.addrs(peer_id)
        # What the caller says now is newer than what somebody said before.
        unique = dict.fromkeys(
            plain for a in (*given, *reversed(known)) if (plain := _plain(a, peer_id))
        )
        return [Multiaddr(a) for a in list(unique)[:ADDRESSES_MAX]]

    def _start_dial(self, peer_id: ID, addresses: Sequence[Multiaddr]) -> _Dial:
        if self.background_nursery is None:
            raise DialFailed("the transport is closed")
        dial = _Dial(frozenset(str(a) for a in addresses))
        self._dials[peer_id] = dial
        # In a task of its own: one caller's cancellation must not end it for the rest.
        self.background_nursery.start_soon(self._run_dial, peer_id, addresses, dial)
        return dial

    async def _run_dial(self, peer_id: ID, addresses: Sequence[Multiaddr], dial: _Dial) -> None:
        errors: list[str] = []
        try:
            with trio.move_on_after(DIAL_S) as scope:
                async with trio.open_nursery() as nursery:
                    for address in addresses:
                        nursery.start_soon(
                            self._try, address, peer_id, errors, nursery.cancel_scope
                        )
            if scope.cancelled_caught:
                errors.append(f"no answer within {DIAL_S:.0f} s")
            dial.error = "; ".join(errors)
        finally:
            del self._dials[peer_id]
            dial.done.set()

    async def _try(
        self, address: Multiaddr, peer_id: ID, errors: list[str], race: trio.CancelScope
    ) -> None:
        try:
            await self._dial_addr_single_attempt(address, peer_id)
        except Exception as exc:  # noqa: BLE001 - reported to emit and to the caller
            # Whatever is wrong with what answered there, it isn't the peer; the
            # reason goes to the caller if no other address is better.
            errors.append(f"{address}: {exc}")
            self.emit(
                "transport.dial_failed",
                peer=str(peer_id),
                address=str(address),
                error=str(exc),
            )
        else:
            race.cancel()

    # --- choosing -------------------------------------------------------------------

    def usable(self, peer_id: ID) -> list[SwarmConn]:
        """Return the open connections to a peer, the preferred one first."""
        dialled_by_smaller = (
            Direction.OUTBOUND
            if self.self_id.to_bytes() < peer_id.to_bytes()
            else Direction.INBOUND
        )
        usable = [
            cast("SwarmConn", conn)
            for conn in self.connections.get(peer_id, ())
            if not conn.is_closed and not conn.muxed_conn.is_closed
        ]
        # Of several from one side the newest: the peer may have lost the others.
        usable.sort(key=lambda conn: conn._created_at, reverse=True)
        usable.sort(key=lambda conn: conn.direction is not dialled_by_smaller)
        return usable

    def best_connection(self, peer_id: ID) -> SwarmConn | None:
        """Return the connection to use for a new stream, if there is one."""
        usable = self.usable(peer_id)
        return usable[0] if usable else None

    @override
    def _select_connection(self, connections: list[INetConn], peer_id: ID) -> INetConn:
        return self.best_connection(peer_id) or connections[0]

    @override
    async def _open_stream_on_connection(
        self, connection: INetConn, connections: list[INetConn], peer_id: ID
    ) -> INetStream:
        return await self.open_on(cast("SwarmConn", connection))

    async def open_on(self, connection: SwarmConn) -> INetStream:
        """Open a stream on a connection, without a moment in which cancelling leaks it.

        Raises:
            SwarmException: The connection is closed or full.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            with trio.CancelScope(shield=True):  # it sends a frame and waits for nobody
                stream: INetStream = await connection.new_stream()
        except Exception as exc:
            raise SwarmException(f"failed to open a stream: {exc}") from exc
        return stream

    # --- duplicates -----------------------------------------------------------------

    def changed(self) -> None:
        """Say that a connection or a stream came or went."""
        self._changed.set()

    async def close_duplicates(self) -> None:
        """Close idle second connections, for as long as the swarm runs."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            if not any(len(conns) > 1 for conns in self.connections.values()):
                continue
            await trio.sleep(DUPLICATE_GRACE_S)
            for peer_id in list(self.connections):
                if self.self_id.to_bytes() < peer_id.to_bytes():
                    await self._close_idle_duplicates(peer_id)

    async def _close_idle_duplicates(self, peer_id: ID) -> None:
        for conn in self.usable(peer_id)[1:]:
            if not conn.get_streams():
                self.emit("transport.duplicate_closed", peer=str(peer_id))
                await conn.close()

    async def close_all(self) -> None:
        """Close all connections at once (py-libp2p takes 0.2 s for each in turn)."""
        async with trio.open_nursery() as nursery:
            for conns in list(self.connections.values()):
                for conn in list(conns):
                    nursery.start_soon(conn.close)


class _Changes(INotifee):
    """Tells the swarm about connections and streams that came or went."""

    def __init__(self, swarm: MeshSwarm) -> None:
        self._swarm = swarm

    @override
    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._swarm.changed()

    @override
    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._swarm.changed()

    @override
    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        return

    @override
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        self._swarm.changed()

    @override
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return

    @override
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return


def _plain(address: Multiaddr, peer_id: ID) -> str:
    """Return the TCP part of an address, or nothing if it isn't this peer's."""
    text, _, named = str(address).partition("/p2p/")
    if named and named != str(peer_id):
        return ""
    try:
        host_and_port(Multiaddr(text))
    except ValueError:
        return ""
    return text
