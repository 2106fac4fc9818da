"""P5: what it costs to hand an artifact of 64 MiB from its producer to a consumer.

Ours is the product's own fetch: the producer reads it from its disk, the consumer hashes
what comes.  Beside it, in turns, stock py-libp2p writes and reads as many bytes on one
stream, as fast as it can, and does nothing else.  ``P5.ratio`` is our rate by its rate,
producer and consumer in two processes; ``P5.ratio.one_process`` both in one.

``P5.broker_bytes`` are artifact bytes that the broker of a job sent, where one contractor
makes 64 MiB and another takes them in.  ``P5.broker_copy_bytes`` is the copy that the
broker fetches from the producer to check it; the consumer is awarded after that.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import trio

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.libp2p_transport import open_transport
from meshnode.adapters.sqlite_store import open_store
from meshnode.adapters.system import SystemClock, SystemEntropy
from meshnode.app import open_node
from meshnode.bench.contest import (
    ONE,
    TWO,
    Contestant,
    Score,
    Scores,
    Size,
    check_file,
    hold,
    profiled,
)
from meshnode.bench.figures import Figure, Told
from meshnode.bench.watch import Watch
from meshnode.config import (
    ANYONE,
    AccessConfig,
    DirectoryConfig,
    HostConfig,
    NodeConfig,
    TrustConfig,
)
from meshnode.domain.graph_builder import TaskGraph
from meshnode.errors import MeshError
from meshnode.node import Node, Ports, Terms
from meshnode.ports import Handler, Stream, Transport
from protocol.artifacts import PROTOCOL
from protocol.keys import Identity

_OURS: Final = Contestant("", "meshnode.bench.artifact_hop")
_STOCK: Final = Contestant("libp2p", "meshnode.bench.beside.libp2p_bulk")
_WHAT: Final = {
    "": "from the producer's disk, hashed by the consumer",
    "libp2p": "stock py-libp2p, bytes on one stream and no more",
}
_IDS: Final = {TWO: "P5.ratio", ONE: "P5.ratio.one_process"}
_LEFT_OUT: Final = "not measured: stock py-libp2p was left out (--no-peers)"
_MIB: Final = 1024 * 1024
_SIZE: Final = 64 * _MIB
_ROOM: Final = 2 * _SIZE
_PRODUCE: Final = "bench.produce@1"
_CONSUME: Final = "bench.consume@1"
_JOB_S: Final = 300.0
_SOON_S: Final = 30.0

QUICK: Final = Size(rounds=5, calls=1)
FULL: Final = Size(rounds=20, calls=2)


def run(told: Told, *, quick: bool, peers: bool = True, profile: str = "") -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Fewer rounds.
        peers: Measure stock py-libp2p, too.
        profile: File for what cProfile sees of our side, in a pass of its own.

    Raises:
        ConfigError: ``profile`` can't be written.
        MeshError: Somebody fails; says who and why.
    """
    check_file(profile)
    size = QUICK if quick else FULL
    scores = trio.run(hold, told, (_OURS, *((_STOCK,) if peers else ())), size, None)
    told("a job of three nodes")
    sent, copied = trio.run(broker_bytes, _SIZE)
    if profile:
        told("our side once more, under cProfile")
        trio.run(profiled, _OURS, profile, size.calls * size.rounds)
    return [*figures(scores), *_broker_figures(sent, copied)]


def figures(scores: Scores) -> list[Figure]:
    """Return the figures that ``scores`` amount to."""
    made: list[Figure] = []
    for way, name in _IDS.items():
        ours, stock = scores[way, ""], scores.get((way, "libp2p"))
        # A rate is the other way round than a time.
        ratio = 1 / ours.ratio(stock) if stock else None
        note = f"our rate by stock py-libp2p's, median of {len(ours.rounds_us)} rounds"
        made.append(
            Figure(
                id=name, value=ratio, unit="×", goal=2.0, at_least=True, n=ours.calls,
                note=note if stock else _LEFT_OUT,
            )
        )  # fmt: skip
    for way in _IDS:
        for name in _WHAT:
            made += _absolute(way, name, scores.get((way, name)))
    return made


def _absolute(way: str, name: str, score: Score | None) -> list[Figure]:
    start = f"P5.{way}.{name}." if name else f"P5.{way}."
    rate, cpu, note, calls = None, None, _LEFT_OUT, 0
    if score is not None:
        rate, cpu = _SIZE / _MIB / (score.p50_us / 1e6), score.cpu_per_call_us / 1000
        note, calls = f"p50, {_WHAT[name]}", score.calls
    return [
        Figure(
            id=f"{start}rate", value=rate, unit="MiB/s", at_least=True, n=calls, note=note
        ),
        Figure(
            id=f"{start}cpu_ms", value=cpu, unit="ms", n=calls,
            note="processor time for 64 MiB, both sides" if score else _LEFT_OUT,
        ),
    ]  # fmt: skip


def _broker_figures(sent: int, copied: int) -> list[Figure]:
    return [
        Figure(
            id="P5.broker_bytes", value=sent, unit="bytes", goal=0, n=1,
            note="sent on by the broker of a job that hands 64 MiB from one node to another",
        ),
        Figure(
            id="P5.broker_copy_bytes", value=copied, unit="bytes", n=1,
            note="fetched by that broker to check the output, before the consumer is awarded",
        ),
    ]  # fmt: skip


# --- what the broker's transport carries ------------------------------------------------


class _CountedStream:
    """A stream whose bytes are counted by the transport it belongs to."""

    def __init__(self, stream: Stream, transport: "CountingTransport", *, served: bool) -> None:
        self._stream = stream
        self._transport = transport
        self._served = served

    @property
    def peer(self) -> str:
        return self._stream.peer

    async def send(self, data: bytes) -> None:
        if self._served:
            self._transport.sent_bytes += len(data)
        await self._stream.send(data)

    def send_nowait(self, data: bytes) -> bool:
        sent = self._stream.send_nowait(data)
        if sent and self._served:
            self._transport.sent_bytes += len(data)
        return sent

    async def receive(self, size_max: int = 65_536) -> bytes:
        data = await self._stream.receive(size_max)
        if not self._served:
            self._transport.fetched_bytes += len(data)
        return data

    def deliver_to(self, _take: Callable[[bytes], None], /) -> bool:
        return False  # then all of it is received, and counted

    def mind_silence(self, limit_s: float, on_silence: Callable[[], None], /) -> bool:
        return self._stream.mind_silence(limit_s, on_silence)

    async def finish(self) -> None:
        await self._stream.finish()

    async def aclose(self) -> None:
        await self._stream.aclose()


class CountingTransport:
    """A transport that counts the bytes of artifacts that it serves, and fetches."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sent_bytes = 0
        self.fetched_bytes = 0

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self._transport.peer

    def addresses(self) -> Sequence[str]:
        """Return where others can dial this node."""
        return self._transport.addresses()

    async def open(self, peer: str, protocol: str, *, addresses: Sequence[str] = ()) -> Stream:
        """Open a stream; of artifacts one that counts what is fetched."""
        stream = await self._transport.open(peer, protocol, addresses=addresses)
        return _CountedStream(stream, self, served=False) if protocol == PROTOCOL else stream

    def serve(self, protocol: str, handler: Handler, *, per_peer_max: int = 32) -> None:
        """Run ``handler`` for each incoming stream; of artifacts for one that counts."""

        async def counted(stream: Stream) -> None:
            await handler(_CountedStream(stream, self, served=True))

        mine = counted if protocol == PROTOCOL else handler
        self._transport.serve(protocol, mine, per_peer_max=per_peer_max)

    async def disconnect(self, peer: str) -> None:
        """Drop every connection to ``peer``."""
        await self._transport.disconnect(peer)


async def broker_bytes(size: int) -> tuple[int, int]:
    """Return artifact bytes that a broker sent, and fetched, for a job that moves ``size``.

    Raises:
        MeshError: The job failed, or the consumer didn't get all of it.
    """

    async def produce(count: int) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * count

    async def consume(text: str) -> int:
        await trio.lowlevel.checkpoint()
        return len(text)

    makes = FunctionAgent(produce, _PRODUCE, output_bytes_max=_ROOM)
    takes = FunctionAgent(consume, _CONSUME, input_bytes_max=_ROOM)
    graph = TaskGraph("edge")
    graph.output("count", graph.task(_CONSUME, text=graph.task(_PRODUCE, count=size)))
    async with AsyncExitStack() as stack:
        homes = Path(stack.enter_context(TemporaryDirectory(prefix="meshnode-bench-")))
        joins: list[str] = []
        for agent in (makes, takes):
            config = _config(homes / agent.spec.name, joins)
            node = await stack.enter_async_context(open_node(config, agents=[agent]))
            joins += node.addresses
        opened = _open_counted(_config(homes / "broker", joins))
        broker, transport = await stack.enter_async_context(opened)
        watch = Watch()
        broker.events.add(watch)
        with trio.move_on_after(_SOON_S):  # after it the job fails, and says who is missing
            while not all(map(broker.market.providers, (_PRODUCE, _CONSUME))):
                await watch.more()
        job = await broker.submit(graph.build(), {}, Terms(deadline_s=_JOB_S))
        done = (await broker.wait(job)).done
        completed = done is not None and done.state == "completed"
        outputs = await broker.outputs(job) if completed else {}
    # Raised here: inside, the nurseries of three nodes would wrap it.
    if done is None or outputs.get("count") != size:
        why = done.text if done and not completed else "the consumer got something else"
        raise MeshError(f"a job that hands {size} bytes on failed: {why}")
    return transport.sent_bytes, transport.fetched_bytes


def _config(home: Path, joins: Sequence[str]) -> NodeConfig:
    return NodeConfig(
        network="bench",
        home=str(home),
        join=tuple(joins),
        directory=DirectoryConfig(dht=False),
        access=AccessConfig(callers=ANYONE),
        trust=TrustConfig(work_bits=0),  # it would be measured, too
        host=HostConfig(input_bytes_max=_ROOM),  # 64 MiB as JSON are a little more
    )


@asynccontextmanager
async def _open_counted(config: NodeConfig) -> AsyncIterator[tuple[Node, CountingTransport]]:
    """Run a node as :func:`meshnode.app.open_node` does, with a transport that counts."""
    clock, entropy = SystemClock(), SystemEntropy()
    seed = entropy.token(32)
    config.home_path.mkdir(parents=True)
    async with (
        open_store(config.home_path / "node.db") as store,
        open_transport(seed) as real,
    ):
        transport = CountingTransport(real)
        identity = Identity(seed, entropy.token(32))
        rng = Random(0)  # noqa: S311 - jitter
        node = Node(config, Ports(identity, transport, None, store, clock, entropy, rng, None))
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            yield node, transport
            nursery.cancel_scope.cancel()
