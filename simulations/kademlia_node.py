"""One node of the simulated DHT, and all of them together.

A node holds what a process of the real one holds, and loses it with the process: its
routing table, the addresses it has heard of, its connections, the records and provider
entries that others gave it.  It answers as py-libp2p's server does, unless an
:class:`~simulations.answering.Answering` answers for it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import trio

from simulations.kademlia_table import RoutingTable, key_at, key_of

if TYPE_CHECKING:
    from simulations.answering import Answering

#: ``delay_s(one, other)`` draws what one message from peer to peer takes, seconds.
Delay = Callable[[str, str], float]
#: ``reaches(one, other)`` tells whether a message gets from peer to peer now.
Reaches = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """How nodes act.

    All but the last three are the constants of ``adapters/kad_directory.py`` and of
    py-libp2p 0.8.1, and a test compares them.  The last three were measured on that code
    over connections of a fixed delay, where they are exact: 3, 2 and 5 round trips for
    every kind of request, on a connection and without one.  The same test measures them.

    Attributes:
        network: Part of every key; each network has keys of its own.
        bucket_max: k: peers in a bucket, in an answer, in the result of a lookup.
        buckets_max: Buckets of a table.
        replicas: Nearest peers that are given a record or a provider entry.
        alpha: Peers that a lookup asks at once.
        parallel_max: Peers that are asked at once for, or given, an entry.
        rounds_max: Rounds of a lookup.
        seeds_min: Below so many peers in its table a node tries all it ever heard of.
        quorum: Records that a lookup wants before it takes the freshest.
        attempts: Tries of one operation.
        retry_s: Mean pause before a second one, seconds.
        operation_s: Deadline of one operation, seconds.
        operations_max: Operations of one node at once.
        request_s: Longest wait for one peer, seconds.
        record_life_s: How long a server keeps a record, seconds.
        provider_life_s: How long it keeps a provider entry, seconds.
        providers_max: Provider entries that it keeps under one name, and that a lookup
            returns at most.
        names_max: Names of one node.
        maintain_s: Mean time between lookups of a node's own key, seconds.
        request_trips: Round trips of a request on a connection that is there.
        announce_trips: Round trips of an announcement, whose answer nobody awaits.
        dial_trips: Round trips more if the connection isn't there.
    """

    network: str = "sim"
    bucket_max: int = 20
    buckets_max: int = 256
    replicas: int = 20
    alpha: int = 10
    parallel_max: int = 8
    rounds_max: int = 20
    seeds_min: int = 5
    quorum: int = 3
    attempts: int = 2
    retry_s: float = 0.3
    operation_s: float = 10.0
    operations_max: int = 4
    request_s: float = 3.0
    record_life_s: float = 24 * 3600.0
    provider_life_s: float = 48 * 3600.0
    providers_max: int = 20
    names_max: int = 64
    maintain_s: float = 600.0
    request_trips: float = 3.0
    announce_trips: float = 2.0
    dial_trips: float = 5.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A record as a node keeps it, with the sequence that the validator read in it."""

    record: bytes
    sequence: int
    expires_s: float


#: No life has this number: a link is to one life of a peer.
_NO_LIFE: Final = -1


class KadNode:
    """One life of a node.

    Attributes:
        peer: Its PeerId.
        key: Where it stands.
        life: Different for each life of each peer.
        server: It answers others; a client only asks.
        via: Peers it joined through, and joins through again whenever it does anything.
        table: Whom it would ask.
        known: Everybody whose address it ever heard, by key.
        operations: Lets some of its own operations run at once.
        answering: Answers for it, if it is corrupt.
    """

    def __init__(
        self, peer: str, population: "Population", *, via: Sequence[int], server: bool
    ) -> None:
        rules = population.rules
        self.peer = peer
        self.key = population.key(peer)
        self.life = population.lives
        self.server = server
        self.via = via
        self.table = RoutingTable(
            self.key, bucket_max=rules.bucket_max, buckets_max=rules.buckets_max
        )
        self.known: dict[int, None] = {}
        self.operations = trio.CapacityLimiter(rules.operations_max)
        self.answering: Answering | None = None
        self._population = population
        self._rules = rules
        self._links: dict[int, int] = {}
        self._records: dict[str, Kept] = {}
        self._providers: dict[str, dict[str, float]] = {}

    # --- whom it knows ------------------------------------------------------------

    def meet_all(self, keys: Iterable[int]) -> None:
        """Take peers into the table, in that order, as far as there is room."""
        self.table.meet_all(keys, self._pings)

    def hear_of(self, key: int) -> None:
        """Learn where a peer is."""
        self.known[key] = None
        self.table.meet(key, self._pings)

    def hear_of_all(self, keys: Sequence[int]) -> None:
        """Learn where peers are, in that order; of itself it hears nothing new."""
        others = [key for key in keys if key != self.key]
        self.known.update(dict.fromkeys(others))
        self.table.meet_all(others, self._pings)

    def contacted_by(self, asker: "KadNode") -> None:
        """Note who asks.

        Its address comes with its first request, which is when it is too late to take
        it into the table: that happens at the next one.
        """
        if asker.server:
            if asker.key in self.known:
                self.table.meet(asker.key, self._pings)
            else:
                self.known[asker.key] = None

    def is_linked(self, other: "KadNode") -> bool:
        """Tell whether there is a connection to this life of ``other``."""
        return self._links.get(other.key, _NO_LIFE) == other.life

    def seems_linked(self, key: int) -> bool:
        """Tell whether there is a connection, be it to one that died without a sign."""
        other = self._population.nodes.get(key)
        if other is not None:
            return self.is_linked(other)
        return key in self._population.silent and key in self._links

    def link(self, other: "KadNode") -> None:
        """Connect."""
        self._links[other.key] = other.life
        other._links[self.key] = self.life  # noqa: SLF001 - a connection has two ends

    def _pings(self, key: int) -> bool:
        other = self._population.nodes.get(key)
        return other is not None and self._population.joins(self, other)

    # --- what it answers ----------------------------------------------------------

    def nearest(self, asker: "KadNode", target: int) -> Sequence[int]:
        """Return whom it names to ``asker`` as nearest to ``target``, by key."""
        found = self.table.nearest(target, self._rules.bucket_max)
        if self.answering is None:
            return found
        population = self._population
        honest = [population.name(key) for key in found]
        named = self.answering.closer(asker.peer, target, honest)
        return [population.key(peer) for peer in named][: self._rules.bucket_max]

    def take_record(self, peer: str, kept: Kept) -> bool:
        """Keep a record unless there is a newer one; tell whether it says it did."""
        held = self.held(peer)
        if held is not None and held.sequence > kept.sequence:
            return False
        if self.answering is None or self.answering.keeps(peer):
            self._records[peer] = kept
        return True

    def take_provider(self, peer: str, name: str, expires_s: float) -> None:
        """List ``peer`` under ``name``, if the list isn't full."""
        if self.answering is not None and not self.answering.keeps(peer):
            return
        listed = self._providers.setdefault(name, {})
        if peer in listed or len(listed) < self._rules.providers_max:
            listed[peer] = expires_s

    def record(self, asker: "KadNode", peer: str) -> bytes | None:
        """Return what it serves to ``asker`` as the record of ``peer``."""
        held = self.held(peer)
        honest = None if held is None else held.record
        if self.answering is None:
            return honest
        return self.answering.record(asker.peer, peer, honest)

    def providers(self, asker: "KadNode", name: str) -> Sequence[str]:
        """Return whom it lists to ``asker`` under ``name``."""
        honest = self.listed(name)
        if self.answering is None:
            return honest
        return self.answering.providers(asker.peer, name, honest)

    # --- what it holds ------------------------------------------------------------

    def keep(self, peer: str, kept: Kept) -> None:
        """Keep a record, whatever was there."""
        self._records[peer] = kept

    def held(self, peer: str) -> Kept | None:
        """Return the record of ``peer`` that it keeps."""
        kept = self._records.get(peer)
        return None if kept is None or kept.expires_s <= trio.current_time() else kept

    def listed(self, name: str) -> list[str]:
        """Return whom it has under ``name``."""
        now_s = trio.current_time()
        entries = self._providers.get(name, {})
        return [peer for peer, expires_s in entries.items() if expires_s > now_s]

    def expire(self) -> None:
        """Drop what has lapsed."""
        now_s = trio.current_time()
        self._records = {p: kept for p, kept in self._records.items() if kept.expires_s > now_s}
        for name, listed in list(self._providers.items()):
            left = {peer: expires_s for peer, expires_s in listed.items() if expires_s > now_s}
            if left:
                self._providers[name] = left
            else:
                del self._providers[name]


class Population:
    """All nodes, where they stand, and what lies between them.

    Attributes:
        rules: How all of them act.
        nodes: Those that live, by key.
        silent: Keys of those that died without a sign: their hosts refuse nothing.
        lives: How many lives there were.
        reaches: Whether a message gets from peer to peer.
    """

    def __init__(self, rules: Rules, delay_s: Delay, reaches: Reaches) -> None:
        self.rules = rules
        self.nodes: dict[int, KadNode] = {}
        self.silent: dict[int, None] = {}
        self.lives = 0
        self.reaches = reaches
        self._delay_s = delay_s
        self._keys: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def key(self, peer: str) -> int:
        """Return where ``peer`` stands."""
        key = self._keys.get(peer)
        if key is None:
            key = self._keys[peer] = key_of(peer)
            self._names[key] = peer
        return key

    def name(self, key: int) -> str:
        """Return whom :meth:`key` put at ``key``."""
        return self._names[key]

    def record_key(self, peer: str) -> int:
        """Return where the record of ``peer`` belongs."""
        return _place(f"/mesh/{self.rules.network}/{peer}")

    def name_key(self, name: str) -> int:
        """Return where those who are listed under ``name`` belong."""
        return _place(f"mesh/{self.rules.network}/cap/{name}")

    def trip_s(self, one: str, other: str) -> float:
        """Draw a round trip, seconds."""
        return self._delay_s(one, other) + self._delay_s(other, one)

    def joins(self, one: KadNode, other: KadNode) -> bool:
        """Tell whether two nodes hear each other."""
        return self.reaches(one.peer, other.peer) and self.reaches(other.peer, one.peer)


def _place(key: str) -> int:
    """Return where an entry belongs, which is where the multihash of its key stands."""
    return key_at(b"\x12\x20" + sha256(key.encode()).digest())
