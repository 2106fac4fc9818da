"""P2, P3 and P6: what a contract costs beside the work itself.

Two nodes in one process, joined by libp2p over loopback, each with its store on the disk;
the agent gives back what it is given.  A job is a chain of sub-tasks, so contracts follow
one another on a warm session.

``P2.contract``: from a sub-task's being ready (its producer's charge is durable) to the
co-signed receipt's being durable at both sides: award, run, result, check, charge,
acceptance.  ``P2.fsync`` is the disk's part in it, one fsync, measured beside it.
``P2.job``: a job of one sub-task, from submit to done.  ``P3.offer`` and ``P3.cfp``: round
trips before the award, counted, with a standing offer and without; ``P3.share``: what a
contract adds to a sub-task of one second.  ``P6.units``: sub-tasks per second of one job
that is a map, each item a contract of its own.
"""

import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.app import open_node
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

#: A2A SDK's bare hop on two quiet cores, ms: what the goals are made from.
_A2A_HOP_MS: Final = 2.5
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


QUICK: Final = Size(chains=5, links=40, jobs=60, seconds=10, units=200, rounds=3)
FULL: Final = Size(chains=25, links=40, jobs=400, seconds=40, units=1_000, rounds=5)


def run(told: Told, *, quick: bool) -> list[Figure]:
    """Measure contracts one after the other.

    Args:
        told: Called with what is being measured.
        quick: Fewer repetitions.
    """
    return trio.run(measure_contracts, told, QUICK if quick else FULL)


def run_broker(told: Told, *, quick: bool) -> list[Figure]:
    """Measure contracts beside one another; see :func:`run`."""
    return trio.run(measure_throughput, told, QUICK if quick else FULL)


async def measure_contracts(told: Told, size: Size) -> list[Figure]:
    """Return P2 and P3."""
    async with _pair() as pair:
        told("warming up")
        for capability in (_ECHO, _WORK):
            await pair.chain(capability, 1)
        fsyncs = _fsyncs_ms(pair.home)
        called = len(pair.broker_saw.times("job.called"))
        contracts: list[float] = []
        for number in range(size.chains):
            told(f"contracts, chain {number + 1} of {size.chains}")
            contracts += await pair.chain(_ECHO, size.links)
        jobs: list[float] = []
        for number in range(size.jobs):
            told(f"jobs of one sub-task, {number + 1} of {size.jobs}")
            begun_s = perf_counter()
            await pair.chain(_ECHO, 1)
            jobs.append((perf_counter() - begun_s) * 1000)
        told(f"{size.seconds} sub-tasks of a second")
        added = [ms - 1000 for ms in await pair.chain(_WORK, size.seconds)]
        with_offer = len(pair.broker_saw.times("job.called")) - called
        told("without an offer")
        pair.forget_offers()
        await pair.chain(_ECHO, 1)
        without = len(pair.broker_saw.times("job.called")) - called - with_offer
    done = size.chains * size.links + size.jobs + size.seconds
    return [
        _median("P2.contract", contracts, 0.8 * _A2A_HOP_MS, "ready → receipt at both sides"),
        _median("P2.fsync", fsyncs, 0.8 * _A2A_HOP_MS, f"one fsync of {_FSYNC_BYTES} bytes"),
        _median("P2.job", jobs, 10.0, "a job of one sub-task, submit → done"),
        Figure(
            id="P3.offer", value=with_offer / done, unit="round trips", goal=0, n=done,
            note="before an award, with standing offers",
        ),
        Figure(
            id="P3.cfp", value=float(without), unit="round trips", goal=1, n=1,
            note="before an award, without",
        ),
        Figure(
            id="P3.share", value=_p95(added) / 10, unit="%", goal=5.0, n=len(added),
            note="p95, what a contract adds to a sub-task of 1 s",
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


def _median(name: str, values_ms: list[float], goal_ms: float, note: str) -> Figure:
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
