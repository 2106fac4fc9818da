"""P2, P3 and P6: what a contract costs beside the work itself.

Two nodes in one process, joined by libp2p over loopback, each with its store on the disk;
the agent gives back what it is given.  A job is a chain of sub-tasks, so contracts follow
one another on a warm session.

``P2.contract.ms``: from a sub-task's being ready (its producer's charge is durable) to the
co-signed receipt's being durable at both sides: award, run, result, check, charge,
acceptance.  ``P2.contract`` is that by the bare hop of the A2A SDK, which takes turns with
it and signs, checks and stores nothing.  ``P2.fsync`` is the disk's part, one fsync.
``P2.job``: a job of one sub-task, from submit to done.  ``P3.offer`` and ``P3.cfp``: round
trips before the award, counted, with a standing offer and without; ``P3.share``: what a
contract adds to a sub-task of one second.  ``P6.units``: sub-tasks per second of one job
that is a map, each item a contract of its own.
"""

import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time_ns
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.app import open_node
from meshnode.bench.contest import ONE, Contestant, Score, entered
from meshnode.bench.extra import Extra, extra_environment
from meshnode.bench.figures import Figure, Told
from meshnode.bench.watch import Watch
from meshnode.config import (
    ANYONE,
    AccessConfig,
    DirectoryConfig,
    HostConfig,
    NodeConfig,
)
from meshnode.domain.graph_builder import TaskGraph
from meshnode.errors import MeshError
from meshnode.node import Node, Terms
from meshnode.ports import JsonValue

_A2A: Final = Contestant("a2a", "meshnode.bench.beside.a2a_hop", extra=True)
_LEFT_OUT: Final = "not measured: the A2A SDK was left out (--no-peers)"
#: Dask distributed's bulk rate there, tasks per second.
_DASK_RATE: Final = 333
_ECHO: Final = "bench.echo@1"
_WORK: Final = "bench.second@1"
_TEXT: Final = "".join(f"{number} " for number in range(270))[:1024]
#: Calls that run at once at the contractor.
_WIDTH: Final = 64
_SOON_S: Final = 30.0
_JOB_S: Final = 600.0
_FSYNC_BYTES: Final = 4096
_FSYNCS: Final = 200


async def _echo(text: str) -> str:
    """Give back what is given, turned by one: no output is known already."""
    await trio.lowlevel.checkpoint()
    return text[1:] + text[:1]


async def _work(text: str) -> str:
    """Take a second."""
    await trio.sleep(1.0)
    return text


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        chains: Jobs that are chains of contracts.
        links: Contracts of one chain.
        jobs: Jobs of one contract.
        seconds: Contracts of a second each.
        units: Sub-tasks of one map.
        rounds: Maps.
    """

    chains: int
    links: int
    jobs: int
    seconds: int
    units: int
    rounds: int


QUICK: Final = Size(chains=10, links=20, jobs=60, seconds=10, units=200, rounds=3)
FULL: Final = Size(chains=25, links=40, jobs=400, seconds=40, units=1_000, rounds=5)


def run(told: Told, *, quick: bool, peers: bool = True) -> list[Figure]:
    """Measure contracts one after the other.

    Args:
        told: Called with what is being measured.
        quick: Fewer repetitions.
        peers: Measure the A2A SDK's bare hop, too.

    Raises:
        MeshError: The A2A SDK can't be installed, or somebody fails; says who and why.
    """
    with extra_environment(told) if peers else nullcontext() as extra:
        return trio.run(measure_contracts, told, QUICK if quick else FULL, extra)


def run_broker(told: Told, *, quick: bool) -> list[Figure]:
    """Measure contracts beside one another; see :func:`run`."""
    return trio.run(measure_throughput, told, QUICK if quick else FULL)


async def measure_contracts(told: Told, size: Size, extra: Extra | None = None) -> list[Figure]:
    """Return P2 and P3; with the extra environment beside the A2A SDK."""
    seen = _Seen()
    async with AsyncExitStack() as stack:
        pair = await stack.enter_async_context(_pair())
        a2a = None
        if extra is not None:
            a2a = await stack.enter_async_context(entered(_A2A, ONE, extra))
            await a2a.warm_up(size.links)
        told("warming up")
        for capability in (_ECHO, _WORK):
            await pair.chain(capability, 1)
        seen.fsyncs_ms = _fsyncs_ms(pair.home)
        called = len(pair.broker_saw.times("job.called"))
        for number in range(size.chains):
            told(f"contracts, chain {number + 1} of {size.chains}", number / size.chains)
            before_ns = process_time_ns()
            seen.chains_ms.append(await pair.chain(_ECHO, size.links))
            seen.cpu_ms += (process_time_ns() - before_ns) / 1e6
            if a2a is not None:
                await a2a.turn(size.links)
        for number in range(size.jobs):
            told(f"jobs of one sub-task, {number + 1} of {size.jobs}", number / size.jobs)
            begun_s = perf_counter()
            await pair.chain(_ECHO, 1)
            seen.jobs_ms.append((perf_counter() - begun_s) * 1000)
        told(f"{size.seconds} sub-tasks of a second")
        seen.added_ms = [ms - 1000 for ms in await pair.chain(_WORK, size.seconds)]
        seen.called = len(pair.broker_saw.times("job.called")) - called
        told("without an offer")
        pair.forget_offers()
        await pair.chain(_ECHO, 1)
        seen.called_without = len(pair.broker_saw.times("job.called")) - called - seen.called
    return [*_contract_figures(seen, size, a2a.score if a2a else None), *_calls(seen, size)]


@dataclass(slots=True)
class _Seen:
    """What was measured: milliseconds, and calls for proposals with an offer and without."""

    chains_ms: list[list[float]] = field(default_factory=list)
    jobs_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    fsyncs_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0
    called: int = 0
    called_without: int = 0


def _contract_figures(seen: _Seen, size: Size, a2a: Score | None) -> list[Figure]:
    ours = Score([[ms * 1000 for ms in chain] for chain in seen.chains_ms])
    n, rounds, done = ours.calls, len(seen.chains_ms), size.chains * size.links
    ratio = ours.ratio(a2a) if a2a else None
    note = f"p50 by the A2A SDK's bare hop, median of {rounds} rounds" if a2a else _LEFT_OUT
    hop_ms, hop_cpu_ms, hop_note, hops = None, None, _LEFT_OUT, 0
    if a2a is not None:
        hop_ms, hop_cpu_ms, hops = a2a.p50_us / 1000, a2a.cpu_per_call_us / 1000, a2a.calls
        hop_note = f"p50, nothing signed, checked or stored; p95 {a2a.p95_us / 1000:.2f}"
    contracts = [ms for chain in seen.chains_ms for ms in chain]
    return [
        Figure(id="P2.contract", value=ratio, unit="×", goal=0.8, n=n, note=note),
        _median("P2.contract.ms", contracts, "ready → receipt at both sides"),
        Figure(
            id="P2.contract.cpu_ms", value=seen.cpu_ms / done, unit="ms", n=done,
            note="processor time of a contract, both nodes",
        ),
        Figure(id="P2.a2a.ms", value=hop_ms, unit="ms", n=hops, note=hop_note),
        Figure(
            id="P2.a2a.cpu_ms", value=hop_cpu_ms, unit="ms", n=hops,
            note="processor time of a hop, both sides" if a2a else _LEFT_OUT,
        ),
        _median("P2.fsync", seen.fsyncs_ms, f"one fsync of {_FSYNC_BYTES} bytes"),
        _median("P2.job", seen.jobs_ms, "a job of one sub-task, submit → done", goal_ms=10.0),
    ]  # fmt: skip


def _calls(seen: _Seen, size: Size) -> list[Figure]:
    done = size.chains * size.links + size.jobs + size.seconds
    return [
        Figure(
            id="P3.offer", value=seen.called / done, unit="round trips", goal=0, n=done,
            note="before an award, with standing offers",
        ),
        Figure(
            id="P3.cfp", value=float(seen.called_without), unit="round trips", goal=1, n=1,
            note="before an award, without",
        ),
        Figure(
            id="P3.share", value=_p95(seen.added_ms) / 10, unit="%", goal=5.0,
            n=len(seen.added_ms), note="p95, what a contract adds to a sub-task of 1 s",
        ),
    ]  # fmt: skip


async def measure_throughput(told: Told, size: Size) -> list[Figure]:
    """Return P6."""
    rates: list[float] = []
    async with _pair() as pair:
        await pair.chain(_ECHO, 4)
        for number in range(size.rounds):
            told(f"{size.units} sub-tasks, round {number + 1} of {size.rounds}")
            rates.append(size.units / await pair.map_s(size.units))
    return [
        Figure(
            id="P6.units", value=statistics.median(rates), unit="1/s", at_least=True,
            goal=2 * _DASK_RATE, n=size.units * size.rounds,
            note="sub-tasks of one map, both nodes in one process; median of the rounds",
        ),
    ]  # fmt: skip


def _median(
    name: str, values_ms: list[float], note: str, *, goal_ms: float | None = None
) -> Figure:
    note = f"p50, {note}; p95 {_p95(values_ms):.2f}"
    value = statistics.median(values_ms)
    return Figure(id=name, value=value, unit="ms", goal=goal_ms, n=len(values_ms), note=note)


def _p95(values: list[float]) -> float:
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def _fsyncs_ms(home: Path) -> list[float]:
    """Return how long the disk takes to keep what was appended."""
    taken: list[float] = []
    with (home / "fsync").open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(bytes(_FSYNC_BYTES))
            begun_s = perf_counter()
            os.fsync(file.fileno())
            taken.append((perf_counter() - begun_s) * 1000)
    return taken


@dataclass(slots=True)
class _Pair:
    """A broker and a contractor with a session between them."""

    home: Path
    contractor: str
    broker: Node
    broker_saw: Watch
    contractor_saw: Watch
    jobs: int = 0

    async def chain(self, capability: str, length: int) -> list[float]:
        """Do a chain of sub-tasks; return how long each contract but the first took, ms."""
        graph = TaskGraph("chain")
        self.jobs += 1
        last = graph.task(capability, text=f"{self.jobs} {_TEXT}")
        for _ in range(length - 1):
            last = graph.task(capability, text=last)
        graph.output("text", last)
        charged, accepted = "job.charged", "contract.accepted"
        before = len(self.contractor_saw.times(accepted))
        at = len(self.broker_saw.times(charged))
        await self._done(graph, {})
        with trio.fail_after(_SOON_S):
            await self.contractor_saw.until(accepted, before + length)
        begun = self.broker_saw.times(charged)[at : at + length - 1]
        ended = self.contractor_saw.times(accepted)[before + 1 :]
        return [(end - begin) * 1000 for begin, end in zip(begun, ended, strict=True)]

    def forget_offers(self) -> None:
        """Have the broker know of no standing offer, and not ask for one just now."""
        self.broker.market.failed(self.contractor, unreachable=True)

    async def map_s(self, units: int) -> float:
        """Do a map, each item a sub-task of its own; return how long it took, seconds."""
        graph = TaskGraph("map")
        each = {"text": graph.input("texts").each}
        graph.output("texts", graph.task(_ECHO, each=each, batch_items_max=1))
        # Never the same twice: who has had an input needs no other copy of it.
        self.jobs += 1
        texts: list[JsonValue] = [f"{self.jobs} {number} {_TEXT}" for number in range(units)]
        begun_s = perf_counter()
        await self._done(graph, {"texts": texts})
        return perf_counter() - begun_s

    async def _done(self, graph: TaskGraph, inputs: Mapping[str, JsonValue]) -> None:
        job = await self.broker.submit(graph.build(), inputs, Terms(deadline_s=_JOB_S))
        done = (await self.broker.wait(job)).done
        if done is None or done.state != "completed":
            why = done.text if done else "it goes on"
            raise MeshError(f"a job of the benchmark failed: {why}")


@asynccontextmanager
async def _pair() -> AsyncIterator[_Pair]:
    """Run both nodes for the length of a block."""
    agents = [
        FunctionAgent(_echo, _ECHO, concurrency_max=_WIDTH),
        FunctionAgent(_work, _WORK, concurrency_max=_WIDTH),
    ]
    host = HostConfig(calls_max=_WIDTH, awards_max=4 * _WIDTH, per_peer_max=2 * _WIDTH)
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-") as folder:
        home = Path(folder)
        plain = NodeConfig(
            network="bench",
            directory=DirectoryConfig(dht=False),
            host=host,
            access=AccessConfig(callers=ANYONE),
        )
        one = replace(plain, home=str(home / "contractor"))
        async with open_node(one, agents=agents) as contractor:
            two = replace(plain, home=str(home / "broker"), join=tuple(contractor.addresses))
            async with open_node(two) as broker:
                pair = _Pair(home, contractor.peer, broker, Watch(), Watch())
                broker.events.add(pair.broker_saw)
                contractor.events.add(pair.contractor_saw)
                with trio.fail_after(_SOON_S):
                    while not broker.market.providers(_ECHO):
                        await pair.broker_saw.more()
                yield pair
