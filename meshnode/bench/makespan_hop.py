"""The real side of ``bench makespan``: a broker, and agents that take the time they are told.

Argument ``contractor``: a node that works.  ``broker SEED ADDRESS…``: a node that has the
graphs of :func:`meshnode.bench.dags.nth` done, each turn the next one; the shapes take
turns, and after each round of them it changes between tasks of one length and of several.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import trio

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.bench.beside.turns import check, take_turns
from meshnode.bench.contract_hop import Broker, broker, contractor
from meshnode.bench.dags import MAP_REDUCE, SHAPES, Work, nth
from meshnode.domain.graph_builder import Place, TaskGraph

NAP: Final = "bench.nap@1"
#: Tasks that one node does at once: with four nodes more than a graph has.
_WIDTH: Final = 8


async def nap(  # noqa: PLR0913, PLR0917 - a field for each task that it may draw from
    ms: int,
    made: list[int] | None = None,
    after0: int = 0,
    after1: int = 0,
    after2: int = 0,
    after3: int = 0,
    after4: int = 0,
    after5: int = 0,
    after6: int = 0,
    after7: int = 0,
) -> int:
    """Take so many milliseconds; tell how many tasks were done up to here, each way counted."""
    await trio.sleep(ms / 1000)
    after = (after0, after1, after2, after3, after4, after5, after6, after7)
    return 1 + sum(after) + sum(made or ())


def graph_of(work: Work) -> TaskGraph:
    """Return ``work`` as a task graph; a map is one sub-task, a unit for each item."""
    dag, costs_ms = work.dag, work.costs_ms
    graph = TaskGraph(dag.shape)
    if dag.shape == MAP_REDUCE:
        first = graph.task(NAP, ms=costs_ms[0])
        middle = list(costs_ms[1:-1])
        mapped = graph.task(NAP, after0=first, each={"ms": middle}, batch_items_max=1)
        graph.output("last", graph.task(NAP, ms=costs_ms[-1], made=mapped))
        return graph
    places: list[Place] = []
    for task, above in enumerate(dag.parents):
        after = {f"after{at}": places[parent] for at, parent in enumerate(above)}
        places.append(graph.task(NAP, after, ms=costs_ms[task]))
    for task, below in enumerate(dag.children):
        if not below:
            graph.output(f"end{task}", places[task])
    return graph


def ways(work: Work) -> list[int]:
    """Return what each task of ``work`` says in the end."""
    said: list[int] = []
    for above in work.dag.parents:
        said.append(1 + sum(said[parent] for parent in above))
    return said


def turn_of(seed: int, number: int) -> Work:
    """Return what is done in the turn of that number."""
    rounds, shape = divmod(number, len(SHAPES))
    again, uneven = divmod(rounds, 2)
    return nth(seed, again * len(SHAPES) + shape, even=not uneven)


async def _main() -> None:
    part, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-") as folder:
        home = Path(folder)
        if part == "contractor":
            agent = FunctionAgent(nap, NAP, concurrency_max=_WIDTH)
            async with contractor(home, [agent]) as addresses:
                await take_turns(_readline, address=addresses[0])
        else:
            await _brokering(home, int(rest[0]), rest[1:])


async def _brokering(home: Path, seed: int, contractors: Sequence[str]) -> None:
    async with broker(home, contractors, NAP) as at_work:
        await at_work.know(NAP, len(contractors))
        await _do(at_work, nth(seed, 3, even=True))  # so that there are sessions and offers
        number = 0

        async def several(count: int) -> list[int]:
            nonlocal number
            taken_ns: list[int] = []
            for _ in range(count):
                taken_ns.append(await _do(at_work, turn_of(seed, number)))
                number += 1
            return taken_ns

        await take_turns(_readline, several=several)


async def _do(at_work: Broker, work: Work) -> int:
    """Do a graph; return how long it took, nanoseconds."""
    graph = graph_of(work)
    begun_ns = perf_counter_ns()
    outputs = await at_work.do(graph, {})
    taken_ns = perf_counter_ns() - begun_ns
    said = ways(work)
    ends = [said[task] for task, below in enumerate(work.dag.children) if not below]
    check(sorted(map(str, outputs.values())), sorted(map(str, ends)))
    return taken_ns


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
