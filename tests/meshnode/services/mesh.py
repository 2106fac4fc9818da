"""A mesh of directory services over real sessions, on simulated ports in virtual time."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from meshnode.config import DirectoryConfig
from meshnode.errors import Unreachable
from meshnode.services.directory import DirectoryService, validate_record
from meshnode.services.sessions import Sessions
from protocol.keys import Identity
from protocol.records import CallLimits, Capability, Measured, NodeRecord, sign_record
from protocol.signing import peek
from simulations.clock import EPOCH_MS, SimClock
from simulations.directory import Lossiness, SimDirectory
from simulations.network import SimNetwork, Weather, open_network
from simulations.store import MemoryDisk, MemoryStore

NETWORK = "test"
WEATHER = Weather(latency_s=0.005, jitter_s=0.005)


def identity(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"), (number + 1000).to_bytes(32, "big"))


def capability(
    name: str, *, agent: str = "a", description: str = "", input_schema: bytes = b"{}"
) -> Capability:
    return Capability(
        agent=agent,
        name=name,
        description=description,
        examples=[],
        input_schema=input_schema,
        output_schema=b"{}",
        price_mc=0,
        limits=CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
        measured=Measured(),
    )


def signed(
    number: int,
    sequence: int = 1,
    *,
    issued_ms: int = EPOCH_MS,
    network: str = NETWORK,
    name: str = "x.fine@1",
    schema: bytes = b"{}",
) -> bytes:
    """Return the record of a node that isn't there: ``name``, and what has ``schema``."""
    who = identity(number)
    record = NodeRecord(
        peer=who.peer,
        sequence=sequence,
        issued_ms=issued_ms,
        expires_ms=issued_ms + 600_000,
        addresses=["/memory/999"],
        x25519=who.x25519_public,
        capabilities=[
            capability(name, agent="fine"),
            capability("odd.schema@1", agent="odd", input_schema=schema),
        ],
    )
    return sign_record(who, network, record)


def forged(number: int) -> bytes:
    """Return a record with one bit of its signature flipped."""
    good = signed(number)
    signature = peek(good).s
    return good.replace(signature, bytes([signature[0] ^ 1]) + signature[1:])


@dataclass(eq=False)
class Node:
    """One node's directory service, with all that a test wants to look at."""

    identity: Identity
    sessions: Sessions
    service: DirectoryService
    offered: list[Capability]
    disk: MemoryDisk
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return self.identity.peer

    def known(self) -> set[str]:
        return {record.peer for record in self.service.known()}

    def sequence_of(self, peer: str) -> int:
        return max((r.sequence for r in self.service.known() if r.peer == peer), default=-1)

    def count(self, name: str, **fields: object) -> int:
        return sum(
            name == event and fields.items() <= told.items() for event, told in self.events
        )


class Mesh:
    """Nodes on one network, with one directory."""

    def __init__(
        self, network: SimNetwork, nursery: trio.Nursery, directory: SimDirectory
    ) -> None:
        self.network = network
        self.nursery = nursery
        self.directory = directory
        self.nodes: list[Node] = []

    async def add(
        self,
        number: int,
        *names: str,
        config: DirectoryConfig | None = None,
        disk: MemoryDisk | None = None,
        seeds: Sequence[str] = (),
        skew_ms: int = 0,
    ) -> Node:
        """Start a node that offers ``names``."""
        who = identity(number)
        transport = self.network.transport(who.peer)
        offered = [capability(name, agent=f"a{n}") for n, name in enumerate(names)]
        disk = disk or MemoryDisk()
        events: list[tuple[str, dict[str, Any]]] = []

        def emit(name: str, **fields: object) -> None:
            events.append((name, fields))

        def addresses_of(peer: str) -> Sequence[str]:
            return service.addresses_of(peer)

        clock = SimClock(skew_ms=skew_ms)
        sessions = Sessions(
            transport,
            network=NETWORK,
            clock=clock,
            emit=emit,
            addresses=addresses_of,
        )
        service = DirectoryService(
            identity=who,
            network=NETWORK,
            config=config or DirectoryConfig(),
            clock=clock,
            sessions=sessions,
            directory=self.directory.port(who.peer),
            rng=Random(number),
            emit=emit,
            addresses=transport.addresses,
            capabilities=lambda: offered,
            store=MemoryStore(disk),
            seeds=seeds,
        )
        node = Node(who, sessions, service, offered, disk, events=events)
        self.nodes.append(node)
        await self.nursery.start(self._live, node)
        return node

    async def _live(self, node: Node, *, task_status: Any) -> None:
        with node.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(node.sessions.run)
                await nursery.start(node.service.run)
                task_status.started()

    def kill(self, node: Node) -> None:
        """End ``node`` as a kill would."""
        node.scope.cancel()
        self.network.crash(node.peer)
        self.directory.cut_off(node.peer)
        self.nodes.remove(node)

    async def join(self, node: Node, to: Node) -> None:
        """Give ``node`` a session with ``to``, as a bootstrap address does."""
        address = self.network.transport(to.peer).addresses()
        await node.sessions.connect(to.peer, addresses=address)

    async def until(self, claim: Callable[[], bool], *, within_s: float) -> float:
        """Wait until ``claim`` holds, and return how long that took."""
        start_s = trio.current_time()
        with trio.move_on_after(within_s):
            while not claim():  # noqa: ASYNC110 - a claim about many nodes has no event
                await trio.sleep(0.01)
        assert claim(), f"not within {within_s} s"
        return trio.current_time() - start_s


@asynccontextmanager
async def open_mesh(
    *, lossiness: Lossiness | None = None, weather: Weather = WEATHER, seed: int = 1
) -> AsyncIterator[Mesh]:
    """Run a mesh for the length of the block, in virtual time (``MockClock``)."""
    directory = SimDirectory(
        Random(seed), validate_record(NETWORK, SimClock()), lossiness=lossiness
    )
    async with (
        open_network(Random(seed), weather=weather) as network,
        trio.open_nursery() as nursery,
    ):
        yield Mesh(network, nursery, directory)
        assert not network.handler_failures
        nursery.cancel_scope.cancel()


async def joined_mesh(mesh: Mesh, count: int, config: DirectoryConfig) -> list[Node]:
    """Return ``count`` nodes that joined through the first and know each other."""
    nodes = [
        await mesh.add(number, f"work.kind{number}@1", config=config)
        for number in range(1, count + 1)
    ]

    async def join(node: Node) -> None:
        try:
            await mesh.join(node, nodes[0])
        except Unreachable:
            await mesh.join(node, nodes[0])

    async with trio.open_nursery() as nursery:
        for node in nodes[1:]:
            nursery.start_soon(join, node)
    everyone = {node.peer for node in nodes}
    await mesh.until(lambda: all(n.known() == everyone for n in nodes), within_s=3)
    return nodes
