"""A directory that is a Kademlia DHT: with hops, tables, replicas and what goes with them.

:class:`simulations.directory.SimDirectory` is one table for everybody, with chances of
loss.  Here every node has a routing table that it learns by looking up and by being
asked, a record is at the nodes nearest to its key and nowhere else, and what a node held
goes with it when it crashes.  Misses, staleness and delays are consequences and not
settings.  The operations are those of ``adapters/kad_directory.py``, step by step, with
its numbers (:class:`Rules`); ``tests/simulations/test_kademlia_calibration.py`` holds
this model against that code.

What the model leaves out: requests of one operation see the tables as they were when it
began, and those of several names are walked one name after the other, so they learn from
each other a little sooner; addresses don't lapse (the real ones do after an hour or
two); no limit of a server's on rates, sizes or subnets is there; who is dialled by two
at once has one connection.

In a world::

    kademlia = SimKademlia(world.random("directory"), validate, delay_s=…, reaches=…)
    world.nursery.start_soon(kademlia.run)      # every node's upkeep
    kademlia.join(peer, via)                    # when a node starts; ``via``: seeds
    Ports(directory=kademlia.port(peer), …)
    kademlia.crash(peer)                        # when it is killed; silent=True: half-open

``delay_s(one, other)`` is what one message takes, ``reaches(one, other)`` whether it
arrives at all: both are the network's to say.  Nothing is republished by those who hold
it: as in the real one, each node publishes what is its own again and again
(``services/rendezvous.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from meshnode.errors import Unreachable
from simulations.alarms import sleep
from simulations.answering import Answering
from simulations.directory import Validate
from simulations.kademlia_node import Delay, KadNode, Population, Reaches, Rules
from simulations.kademlia_operations import Operations
from simulations.kademlia_walk import Walk
from simulations.timetable import Timetable
from simulations.trace import Trace

__all__ = ["Operation", "Rules", "SimKademlia", "SimKademliaPort"]

_JITTER: Final = (0.75, 1.25)


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation of one node came to.

    Attributes:
        kind: ``publish``, ``providers``, ``record`` or ``maintain``.
        peer: Whose it was.
        found: Peers that took the record, providers or records found, peers near.
        rounds: Hops of its lookups, one after the other.
        finds: Requests of its lookups.
        requests: Its other requests.
        unanswered: Those of both that nobody answered.
        elapsed_s: What it took, seconds.
    """

    kind: str
    peer: str
    found: int
    rounds: int
    finds: int
    requests: int
    unanswered: int
    elapsed_s: float


class SimKademlia:
    """The DHT of a world.

    Attributes:
        rules: How its nodes act.
        watch: Told of every operation, if anybody wants to know.
        operations: What nodes can do.
    """

    def __init__(
        self,
        rng: Random,
        validate: Validate,
        *,
        delay_s: Delay,
        reaches: Reaches,
        rules: Rules | None = None,
        trace: Trace | None = None,
    ) -> None:
        """Be without nodes.

        Args:
            rng: All its chance, beside what ``delay_s`` draws.
            validate: Judges a record, where it is stored and where it is returned.
            delay_s: Draws what a message takes from one peer to another, seconds.
            reaches: Tells whether one peer's messages reach another.
            rules: How nodes act; as the real ones by default.
            trace: Where to note what happens.
        """
        self.rules = rules or Rules()
        self.watch: Callable[[Operation], None] | None = None
        self._rng = rng
        self._trace = trace or Trace()
        self._population = Population(self.rules, delay_s, reaches)
        self.operations = Operations(self._population, rng, validate)
        self._timetable = Timetable()

    def join(
        self, peer: str, via: Sequence[str] = (), *, server: bool = True
    ) -> "SimKademliaPort":
        """Start a node, with nothing but the addresses of ``via``; return its port.

        Like the real one it begins with a lookup of its own key, by which it and those
        around it learn of each other.

        Args:
            peer: Who it is; if it lives already, that life ends.
            via: PeerIds of bootstrap nodes.
            server: It answers others too; a node that can't be dialled must not.
        """
        population = self._population
        seeds = [population.key(seed) for seed in via if seed != peer]
        population.lives += 1
        node = KadNode(peer, population, via=seeds, server=server)
        population.nodes[node.key] = node
        population.silent.pop(node.key, None)
        self._trace.note(f"kademlia joined {peer}")
        self._maintain(node)
        return self.port(peer)

    def crash(self, peer: str, *, silent: bool = False) -> None:
        """End a node, and what it held for others.

        Args:
            peer: Who.
            silent: Its host is gone too: nobody refuses connections in its name, and
                whoever asks it waits in vain.
        """
        key = self._population.key(peer)
        if self._population.nodes.pop(key, None) is not None:
            if silent:
                self._population.silent[key] = None
            self._trace.note(f"kademlia crashed {peer}")

    def port(self, peer: str) -> "SimKademliaPort":
        """Return the way into the DHT of whichever life of ``peer`` there is."""
        return SimKademliaPort(self, peer)

    def node(self, peer: str) -> KadNode | None:
        """Return the node of ``peer``, if it lives."""
        return self._population.nodes.get(self._population.key(peer))

    def record_key(self, peer: str) -> int:
        """Return where the record of ``peer`` belongs: an adversary wants to stand there."""
        return self._population.record_key(peer)

    def name_key(self, name: str) -> int:
        """Return where those who are listed under ``name`` belong."""
        return self._population.name_key(name)

    def corrupt(self, peer: str, answering: Answering | None) -> None:
        """Let ``answering`` answer for a node; None makes it honest again.

        Raises:
            KeyError: It doesn't live.
        """
        self._population.nodes[self._population.key(peer)].answering = answering

    async def run(self) -> None:
        """See to the upkeep of every node, for ever."""
        await self._timetable.run()

    def tell(self, kind: str, node: KadNode, walk: Walk, found: int) -> None:
        """Note what an operation came to."""
        self._trace.note(
            f"kademlia {kind} {node.peer} found {found} in {walk.rounds} hops,"
            f" {walk.finds}+{walk.requests}-{walk.unanswered} requests, {walk.now_s:.6f} s"
        )
        if self.watch is not None:
            counts = (walk.rounds, walk.finds, walk.requests, walk.unanswered)
            self.watch(Operation(kind, node.peer, found, *counts, walk.now_s))

    def _maintain(self, node: KadNode) -> None:
        if self.node(node.peer) is not node:
            return  # that life is over
        walk, found = self.operations.maintain(node)
        self.tell("maintain", node, walk, found)
        wait_s = self.rules.maintain_s * self._rng.uniform(*_JITTER)
        self._timetable.at(trio.current_time() + wait_s, self._maintain, node)


class SimKademliaPort:
    """One peer's :class:`meshnode.ports.Directory`; without a living node it finds nothing."""

    __slots__ = ("_kademlia", "_peer")

    def __init__(self, kademlia: SimKademlia, peer: str) -> None:
        self._kademlia = kademlia
        self._peer = peer

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """See :meth:`meshnode.ports.Directory.publish`."""
        kademlia, node = self._kademlia, self._kademlia.node(self._peer)
        if node is None:
            raise Unreachable(self._peer, "it is no part of the directory")
        async with node.operations:
            walk, taken = kademlia.operations.publish(node, record, names)
            kademlia.tell("publish", node, walk, taken)
            await sleep(walk.now_s)
        if not taken:
            raise Unreachable(self._peer, "no directory peer took the record")

    async def providers(self, name: str, *, count_max: int = 20) -> Sequence[str]:
        """See :meth:`meshnode.ports.Directory.providers`."""
        kademlia, node = self._kademlia, self._kademlia.node(self._peer)
        if node is None:
            return []
        async with node.operations:
            walk, found = kademlia.operations.providers(node, name, count_max)
            kademlia.tell("providers", node, walk, len(found))
            await sleep(walk.now_s)
        return found

    async def record(self, peer: str) -> bytes | None:
        """See :meth:`meshnode.ports.Directory.record`."""
        kademlia, node = self._kademlia, self._kademlia.node(self._peer)
        if node is None:
            return None
        async with node.operations:
            walk, found = kademlia.operations.record(node, peer)
            kademlia.tell("record", node, walk, int(found is not None))
            await sleep(walk.now_s)
        return found
