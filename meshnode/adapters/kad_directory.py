"""The directory port on py-libp2p's Kademlia DHT.

Two kinds of entry.  Each node's signed record is a value under
``/mesh/<network>/<peer>``; each capability name has provider entries under a hash of
``mesh/<network>/cap/<name>``, one for each node that offers it.  Never a list merged
by several writers: concurrent ones lose each other's entries.

Of py-libp2p's ``KadDHT`` the server, the routing table and the single requests are
used.  The operations are our own, because its own ones answer from stale local
copies, keep what they found for 48 hours, don't say whether anybody took a value,
and end an announcement after ten names without a word.  Every request to one peer
waits for the one before it, so that the peer's guard never finds us greedy.  Its
maintenance loop, which starts with a walk over every bucket, is not run either:
:meth:`KadDirectory.maintain` looks up this node's own key now and then.

What the DHT holds was written by strangers.  ``validate`` judges every record, at
the server before it is stored and here before it is returned.
"""

# ruff: noqa: SLF001 - py-libp2p's single DHT requests are private; its version is pinned,
# and libp2p_patches checks that they exist.

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from libp2p.kad_dht.common import BUCKET_SIZE, PROTOCOL_ID
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Record
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import NamespacedValidator, Validator
from multiaddr import Multiaddr
from typing_extensions import override

from meshnode.adapters.libp2p_guards import DHT as DHT_LIMITS
from meshnode.adapters.libp2p_guards import guarded
from meshnode.adapters.libp2p_patches import DHT_QUERY_S
from meshnode.adapters.libp2p_transport import Libp2pTransport, one_exception, parse_peer
from meshnode.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from libp2p.abc import INetStream
    from libp2p.custom_types import TProtocol

#: ``validate(peer, record)`` returns the record's sequence, or None if it may not be
#: stored or believed: another peer's, another network's, expired, forged.
Validate = Callable[[str, bytes], int | None]

NAMESPACE: Final = "mesh"
NETWORK_BYTES_MAX: Final = 32
#: Largest record; a value travels in one message to each of 20 peers.
RECORD_BYTES_MAX: Final = 64 * 1024
NAMES_MAX: Final = 64
PROVIDERS_MAX: Final = 20
#: Deadline of one operation, seconds.
OPERATION_S: Final = 10.0
#: Operations at once; more wait.
OPERATIONS_MAX: Final = 4
ATTEMPTS: Final = 2
RETRY_S: Final = 0.3
#: Peers that are asked at once within an operation.
PARALLEL_MAX: Final = 8
MAINTAIN_S: Final = 600.0
#: Announcements that a server takes from one peer in 10 s; py-libp2p's 10 are fewer
#: than the names of one node.
ANNOUNCEMENTS_MAX: Final = 4 * NAMES_MAX


class _Refused(ValueError):
    """A record that may not be stored."""


class RecordValidator(Validator):
    """Judges what is stored under ``/mesh/…``, for the server and for lookups."""

    def __init__(self, network: str, validate: Validate) -> None:
        self._prefix = f"/{NAMESPACE}/{network}/"
        self._validate = validate

    def sequence(self, key: str, value: bytes) -> int | None:
        """Return the sequence of an acceptable record, or None."""
        peer = key.removeprefix(self._prefix)
        if peer == key or not value or len(value) > RECORD_BYTES_MAX:
            return None
        return self._validate(peer, value)

    @override
    def validate(self, key: str, value: bytes) -> None:
        if self.sequence(key, value) is None:
            raise _Refused(f"no acceptable record for {key[:128]}")

    @override
    def select(self, key: str, values: list[bytes]) -> int:
        """Return the index of the highest sequence; of equals the last.

        The server stores a value only if it is selected over the one it has, which
        comes first: so a repeated put is taken.
        """
        ranks = [(self._rank(key, value), index) for index, value in enumerate(values)]
        return max(ranks)[1]

    def _rank(self, key: str, value: bytes) -> int:
        sequence = self.sequence(key, value)
        return -1 if sequence is None else sequence


class _OneAtATime:
    """A host for the DHT that has one request at a time open to each peer."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self._host = transport.host
        self._lanes: dict[ID, trio.Semaphore] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it stands for whatever the host has
        return getattr(self._host, name)

    async def new_stream(
        self, peer_id: ID, protocol_ids: "Sequence[TProtocol]"
    ) -> "INetStream":
        lane = self._lanes.setdefault(peer_id, trio.Semaphore(1, max_value=1))
        await lane.acquire()
        try:
            stream = await self._host.new_stream(peer_id, protocol_ids)
        except BaseException:
            self._free(peer_id, lane)
            raise
        close = stream.close

        async def close_and_free() -> None:
            stream.close = close  # type: ignore[method-assign]  # the lane is freed once
            self._free(peer_id, lane)
            with trio.CancelScope(shield=True):  # else a cancelled lookup leaks its stream
                await close()

        stream.close = close_and_free  # type: ignore[method-assign]  # its requests always close
        return stream

    def _free(self, peer_id: ID, lane: trio.Semaphore) -> None:
        lane.release()
        if lane.value and not lane.statistics().tasks_waiting:
            self._lanes.pop(peer_id, None)


class KadDirectory:
    """The directory port; made by :func:`open_directory`."""

    def __init__(
        self,
        transport: Libp2pTransport,
        network: str,
        validate: Validate,
        *,
        bootstrap: Sequence[str] = (),
        server: bool = True,
        quorum: int = 3,
    ) -> None:
        if not 1 <= len(network.encode()) <= NETWORK_BYTES_MAX or "/" in network:
            raise ConfigError(f"{network!r} is not a network id")
        if not 1 <= quorum <= 3:  # noqa: PLR2004 - py-libp2p's lookups hardly meet more
            raise ConfigError("quorum must be 1, 2 or 3")
        self._transport = transport
        self._network = network
        self._judge = RecordValidator(network, validate)
        self._bootstrap = [parse_bootstrap(address) for address in bootstrap]
        self._quorum = quorum
        # Jitter: each node's own, and nothing that anybody must not guess.
        self._rng = random.Random(transport.peer)  # noqa: S311 - jitter, no secret
        self._operations = trio.CapacityLimiter(OPERATIONS_MAX)
        self._dht = KadDHT(
            cast("Any", _OneAtATime(transport)),
            DHTMode.SERVER if server else DHTMode.CLIENT,
            # Strictness must be asked for twice: each overrides the other's default.
            validator=NamespacedValidator({NAMESPACE: self._judge}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
        )
        self._dht._inbound_limiter.total_tokens = DHT_LIMITS.total_max
        self._dht._provider_rate_max = ANNOUNCEMENTS_MAX
        if server:
            transport.host.set_stream_handler(
                PROTOCOL_ID, guarded(self._dht.handle_stream, DHT_LIMITS, transport.emit)
            )

    @property
    def dht(self) -> KadDHT:
        """py-libp2p's DHT."""
        return self._dht

    # --- the port -------------------------------------------------------------------

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """Store this node's record and announce it under each of ``names``.

        Raises:
            Unreachable: The record isn't acceptable, or no DHT peer took it.
        """
        if len(names) > NAMES_MAX:
            # Full names are what a stranger needs; under a prefix others will be found.
            self._transport.emit("directory.names_left_out", count=len(names) - NAMES_MAX)
            names = sorted(names, key=lambda name: "@" not in name)[:NAMES_MAX]
        key = self._record_key(self._transport.peer)
        sequence = self._judge.sequence(key, record)
        held = self._held(key)
        if sequence is None or (held is not None and held[0] > sequence):
            raise Unreachable(
                "the directory", "the record is not acceptable, or older than the last one"
            )
        self._dht.value_store.put(key.encode(), record)
        taken, peers = set[ID](), list[ID]()
        async with self._operations:
            with trio.move_on_after(OPERATION_S):
                for attempt in range(ATTEMPTS):
                    await self._pause(attempt)
                    await self._rejoin()
                    peers = await self._closest(place_of(key))
                    taken = await self._store(key.encode(), record, peers)
                    if taken:
                        break
                if taken:
                    await self._announce_all(names, peers, lost=set(peers) - taken)
                    return
        if not taken:
            raise Unreachable("the directory", "no directory peer took the record")
        self._transport.emit("directory.announcements_cut_short", names=len(names))

    async def providers(self, name: str, *, count_max: int = PROVIDERS_MAX) -> Sequence[str]:
        """Return PeerIds that were listed under ``name``."""
        count_max = min(count_max, PROVIDERS_MAX)
        key = self._name_key(name)
        # What this node holds as a server is not all there is, so it never ends the search.
        found = {
            str(info.peer_id): None for info in self._dht.provider_store.get_providers(key)
        }

        async def ask(peer: ID) -> bool:
            ask_for = self._dht.provider_store._get_providers_from_peer_with_closers
            listed, _ = await ask_for(peer, key)
            found.update(dict.fromkeys(str(info.peer_id) for info in listed))
            return len(found) >= count_max

        async with self._operations:
            with trio.move_on_after(OPERATION_S):
                for attempt in range(ATTEMPTS):
                    await self._pause(attempt)
                    await self._rejoin()
                    await self._ask_closest(key, ask)
                    if found:
                        break
        return list(found)[:count_max]

    async def record(self, peer: str) -> bytes | None:
        """Return the freshest record found for ``peer``, or None."""
        key = self._record_key(peer)
        held = self._held(key)
        if peer == self._transport.peer:
            return held[1] if held else None
        found = [held] if held else []
        answers = 0

        async def ask(asked: ID) -> bool:
            nonlocal answers
            got = await self._dht.value_store._get_from_peer(
                asked, key.encode(), return_record=True
            )
            if isinstance(got, Record):
                sequence = self._judge.sequence(key, got.value)
                if sequence is not None:
                    found.append((sequence, got.value))
                    answers += 1
            return answers >= self._quorum

        async with self._operations:
            with trio.move_on_after(OPERATION_S):
                for attempt in range(ATTEMPTS):
                    await self._pause(attempt)
                    await self._rejoin()
                    await self._ask_closest(place_of(key), ask)
                    if found:
                        break
        return max(found)[1] if found else None

    # --- upkeep ---------------------------------------------------------------------

    async def maintain(self) -> None:
        """Stay part of the DHT for as long as this runs: look for neighbours, expire."""
        while True:
            async with self._operations:
                with trio.move_on_after(OPERATION_S):
                    await self._rejoin()
                    await self._dht.peer_routing.find_closest_peers_network(
                        parse_peer(self._transport.peer).to_bytes()
                    )
            self._expire()
            await trio.sleep(MAINTAIN_S * self._rng.uniform(0.75, 1.25))

    def _expire(self) -> None:
        values = self._dht.value_store
        values.cleanup_expired()
        self._dht.provider_store.cleanup_expired()
        for key in list(values.store):
            kept = values.get(key)
            if kept is not None and self._judge.sequence(key.decode(), kept.value) is None:
                values.remove(key)  # its own expiry comes before the store's

    async def _rejoin(self) -> None:
        """Know the bootstrap peers again: one failed request makes the DHT forget them."""
        async with trio.open_nursery() as nursery:
            for peer_id, address in self._bootstrap:
                if str(peer_id) != self._transport.peer:
                    nursery.start_soon(self._join, peer_id, address)

    async def _join(self, peer_id: ID, address: Multiaddr) -> None:
        with trio.move_on_after(DHT_QUERY_S):
            try:
                await self._transport.swarm.reach(peer_id, [address])
            except SwarmException as exc:
                self._transport.emit(
                    "directory.bootstrap_unreachable", peer=str(peer_id), error=str(exc)
                )
                return
            await self._dht.routing_table.add_peer(
                PeerInfo(peer_id, [address]), skip_server_mode_check=True
            )

    # --- requests -------------------------------------------------------------------

    async def _closest(self, key: bytes) -> list[ID]:
        found = await self._dht.peer_routing.find_closest_peers_network(key)
        return [p for p in found if str(p) != self._transport.peer][:BUCKET_SIZE]

    async def _ask_closest(self, key: bytes, ask: Callable[[ID], Awaitable[bool]]) -> None:
        """Ask the peers closest to ``key`` until one answer says that it is enough."""
        await self._each(await self._closest(key), ask)

    async def _each(self, peers: Sequence[ID], work: Callable[[ID], Awaitable[bool]]) -> None:
        limiter = trio.CapacityLimiter(PARALLEL_MAX)
        async with trio.open_nursery() as nursery:

            async def one(peer: ID) -> None:
                async with limiter:
                    enough = False
                    with trio.move_on_after(DHT_QUERY_S):
                        enough = await work(peer)
                    if enough:
                        nursery.cancel_scope.cancel()

            for peer in peers:
                nursery.start_soon(one, peer)

    async def _store(self, key: bytes, record: bytes, peers: Sequence[ID]) -> set[ID]:
        """Store a record at ``peers``; return those that took it."""
        taken = set[ID]()

        async def store(peer: ID) -> bool:
            if await self._dht.value_store._store_at_peer(peer, key, record):
                taken.add(peer)
            return False

        await self._each(peers, store)
        return taken

    async def _announce_all(
        self, names: Sequence[str], near_record: Sequence[ID], lost: set[ID]
    ) -> None:
        """Announce every name, each at the peers closest to it.

        Args:
            names: What to announce.
            near_record: The peers closest to the record.
            lost: Those that took nothing; no second name is tried with them.  Whoever has
                gone is named by others for hours, and there may be as many as are there.
        """
        # A DHT with fewer peers than one bucket holds has the same closest ones for all.
        everyone = near_record if len(near_record) < BUCKET_SIZE else None
        async with trio.open_nursery() as nursery:
            for name in dict.fromkeys(names):
                nursery.start_soon(self._announce, name, everyone, lost)

    async def _announce(self, name: str, everyone: Sequence[ID] | None, lost: set[ID]) -> None:
        key = self._name_key(name)
        me = parse_peer(self._transport.peer)
        self._dht.provider_store.add_provider(
            key, PeerInfo(me, self._transport.host.get_addrs())
        )

        async def announce(peer: ID) -> bool:
            if peer in lost or await self._dht.provider_store._send_add_provider(peer, key):
                return False
            if peer not in lost:  # all names are under way at once
                lost.add(peer)
                self._transport.emit("directory.announcement_failed", peer=str(peer), name=name)
            return False

        peers = await self._closest(key) if everyone is None else everyone
        await self._each(peers, announce)

    # --- small things ---------------------------------------------------------------

    def _held(self, key: str) -> tuple[int, bytes] | None:
        """Return sequence and bytes of the record that this node itself holds."""
        kept = self._dht.value_store.get(key.encode())
        if kept is None:
            return None
        sequence = self._judge.sequence(key, kept.value)
        return None if sequence is None else (sequence, kept.value)

    def _record_key(self, peer: str) -> str:
        return f"/{NAMESPACE}/{self._network}/{peer}"

    def _name_key(self, name: str) -> bytes:
        return place_of(f"{NAMESPACE}/{self._network}/cap/{name}")

    async def _pause(self, attempt: int) -> None:
        if attempt:
            await trio.sleep(RETRY_S * self._rng.uniform(0.5, 1.5))


def place_of(key: str) -> bytes:
    """Return where an entry belongs: a SHA-256 multihash of its key.

    Any DHT node takes one as a provider key, and as what a lookup is for.  Of other keys
    of more than 50 bytes, such as those of records, py-libp2p's server ignores lookups.
    """
    return b"\x12\x20" + hashlib.sha256(key.encode()).digest()


def parse_bootstrap(address: str) -> tuple[ID, Multiaddr]:
    """Return peer and place that ``/ip4/…/tcp/…/p2p/<peer>`` names.

    Raises:
        ConfigError: It isn't such an address.
    """
    place, _, peer = address.partition("/p2p/")
    try:
        return parse_peer(peer), Multiaddr(place)
    except Exception as exc:
        # multiaddr raises unrelated types for what isn't an address.
        raise ConfigError(
            f"{address} is not a bootstrap address",
            hint="such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…",
        ) from exc


@asynccontextmanager
async def open_directory(
    transport: Libp2pTransport,
    network: str,
    validate: Validate,
    *,
    bootstrap: Sequence[str] = (),
    server: bool = True,
    quorum: int = 3,
) -> AsyncIterator[KadDirectory]:
    """Take part in the DHT for as long as the context lasts.

    A bootstrap node is this on a transport, with nothing above it.

    Args:
        transport: The node's libp2p transport.
        network: Network id; each network has keys of its own.
        validate: Judges a record; see :data:`Validate`.
        bootstrap: Addresses with PeerId of nodes to begin with.
        server: Hold entries for others; a node that can't be dialled must not.
        quorum: Records that a lookup wants before it takes the freshest, 1 to 3.
    """
    directory = KadDirectory(
        transport, network, validate, bootstrap=bootstrap, server=server, quorum=quorum
    )
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(directory.maintain)
            with body:
                yield directory
            nursery.cancel_scope.cancel()
