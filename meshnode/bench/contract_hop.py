"""A contestant of ``bench contract``: whole contracts between two nodes.

The contractor gives back what it is given; the broker's jobs are chains of sub-tasks, so
contracts follow one another on a warm session.  A contract begins when its producer's
charge is durable and ends when the contractor has acknowledged the broker's half of the
receipt, which it does once that is durable there.
"""

import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.app import open_node
from meshnode.bench.beside.turns import TEXT, arguments, take_turns
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
from meshnode.node import Node, Terms
from meshnode.ports import Agent, JsonValue

ECHO: Final = "bench.echo@1"
WORK: Final = "bench.second@1"
#: Calls that run at once at the contractor.
_WIDTH: Final = 64
_SOON_S: Final = 30.0
_JOB_S: Final = 600.0
_CHARGED: Final = "job.charged"
_SETTLED: Final = "acceptance.acknowledged"


async def _echo(text: str) -> str:
    """Give back what is given, turned by one: no output is known already."""
    await trio.lowlevel.checkpoint()
    return text[1:] + text[:1]


async def _work(text: str) -> str:
    """Take a second."""
    await trio.sleep(1.0)
    return text


@dataclass(slots=True)
class Broker:
    """A node that has chains and maps of sub-tasks done."""

    node: Node
    saw: Watch
    jobs: int = 0

    async def chain(self, capability: str, length: int) -> list[float]:
        """Do a chain of sub-tasks; return how long each contract but the first took, ms."""
        graph = TaskGraph("chain")
        self.jobs += 1
        last = graph.task(capability, text=f"{self.jobs} {TEXT}")
        for _ in range(length - 1):
            last = graph.task(capability, text=last)
        graph.output("text", last)
        settled, charged = len(self.saw.times(_SETTLED)), len(self.saw.times(_CHARGED))
        await self.do(graph, {})
        with trio.fail_after(_SOON_S):
            await self.saw.until(_SETTLED, settled + length)
        begun = self.saw.times(_CHARGED)[charged : charged + length - 1]
        ended = self.saw.times(_SETTLED)[settled + 1 :]
        return [(end - begin) * 1000 for begin, end in zip(begun, ended, strict=True)]

    async def spread(self, units: int) -> tuple[list[str], JsonValue]:
        """Do a map, each item a sub-task of its own; return what went in and what came out.

        It is over when every receipt is at both sides.
        """
        graph = TaskGraph("map")
        each = {"text": graph.input("texts").each}
        graph.output("texts", graph.task(ECHO, each=each, batch_items_max=1))
        # Never the same twice: who has had an input needs no other copy of it.
        self.jobs += 1
        texts = [f"{self.jobs} {number} {TEXT}" for number in range(units)]
        settled = len(self.saw.times(_SETTLED))
        outputs = await self.do(graph, {"texts": [*texts]})
        with trio.fail_after(_SOON_S):
            await self.saw.until(_SETTLED, settled + units)
        return texts, outputs["texts"]

    async def know(self, capability: str, count: int) -> None:
        """Wait until ``count`` agents are known that offer ``capability``."""
        with trio.fail_after(_SOON_S):
            while len(self.node.market.providers(capability)) < count:
                await self.saw.more()

    def forget_offers(self) -> None:
        """Know of no standing offer, and don't ask for one just now."""
        for record, _ in self.node.directory.providers(ECHO):
            self.node.market.failed(record.peer, unreachable=True)

    async def do(
        self, graph: TaskGraph, inputs: Mapping[str, JsonValue]
    ) -> Mapping[str, JsonValue]:
        """Do a job; return its outputs.

        Raises:
            MeshError: It failed; says why.
        """
        job = await self.node.submit(graph.build(), inputs, Terms(deadline_s=_JOB_S))
        done = (await self.node.wait(job)).done
        if done is None or done.state != "completed":
            why = done.text if done else "it goes on"
            raise MeshError(f"a job of the benchmark failed: {why}")
        return await self.node.outputs(job)


def _config(home: Path, join: Sequence[str] = ()) -> NodeConfig:
    return NodeConfig(
        network="bench",
        home=str(home),
        join=tuple(join),
        directory=DirectoryConfig(dht=False),
        host=HostConfig(calls_max=_WIDTH, awards_max=4 * _WIDTH, per_peer_max=2 * _WIDTH),
        access=AccessConfig(callers=ANYONE),
        trust=TrustConfig(work_bits=0),  # it would be measured, too
    )


@asynccontextmanager
async def contractor(home: Path, agents: Sequence[Agent] = ()) -> AsyncIterator[Sequence[str]]:
    """Run a node that works, for the length of a block; give its addresses.

    Its agents are those of this bench, unless there are others.
    """
    agents = agents or [
        FunctionAgent(_echo, ECHO, concurrency_max=_WIDTH),
        FunctionAgent(_work, WORK, concurrency_max=_WIDTH),
    ]
    async with open_node(_config(home / "contractor"), agents=agents) as node:
        yield node.addresses


@asynccontextmanager
async def broker(
    home: Path, contractors: Sequence[str], capability: str = ECHO
) -> AsyncIterator[Broker]:
    """Run the node that has work, for the length of a block, once it knows who does it."""
    async with open_node(_config(home / "broker", contractors)) as node:
        broker = Broker(node, Watch())
        node.events.add(broker.saw)
        await broker.know(capability, 1)
        yield broker


async def _main() -> None:
    part, address = arguments()
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-") as folder:
        home = Path(folder)
        if part == "callee":
            async with contractor(home) as addresses:
                await take_turns(_readline, address=addresses[0])
        elif part == "caller":
            await _calling(home, [address])
        else:
            async with contractor(home) as addresses:
                await _calling(home, addresses)


async def _calling(home: Path, contractors: Sequence[str]) -> None:
    async with broker(home, contractors) as calling:

        async def contracts(count: int) -> list[int]:
            return [round(ms * 1e6) for ms in await calling.chain(ECHO, count + 1)]

        await take_turns(_readline, several=contracts)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
