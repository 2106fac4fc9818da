"""P6: how many sub-tasks a broker sees through in a second, beside Dask distributed.

One broker and two nodes with stub agents, each a process of its own with its store on the
disk.  A job is a map over texts of 1 KiB; every item is a sub-task of its own, journalled,
signed, checked and charged, and it counts once its receipt is on the disk at both sides
(:mod:`.broker_hop`).  Dask runs the same function as ``client.map`` and ``client.gather`` on
a ``LocalCluster`` of two worker processes, and takes turns with us
(:mod:`.beside.dask_hop`).

``P6.units`` is our rate by Dask's, the median of the rounds; ``P6.units.rate`` and
``P6.dask.rate`` are the rates.  ``P6.broker.cpu_ms`` and ``P6.contractors.cpu_ms`` are what a
sub-task costs in processor time, at the broker and at whoever does it.
"""

import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import trio

from meshnode.bench.contest import Child, Contestant, started
from meshnode.bench.extra import Extra, extra_environment
from meshnode.bench.figures import Figure, Told

OURS: Final = Contestant("", "meshnode.bench.broker_hop")
_DASK: Final = Contestant("dask", "meshnode.bench.beside.dask_hop", extra=True)
_LEFT_OUT: Final = "not measured: Dask distributed was left out (--no-peers)"
#: Nodes with stub agents, and Dask's worker processes.
_WORKERS: Final = 2
_TURN_S: Final = 300.0
_GOAL: Final = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        units: Sub-tasks of one map.
        rounds: Turns of each side.
    """

    units: int
    rounds: int


QUICK: Final = Size(units=200, rounds=5)
FULL: Final = Size(units=1_000, rounds=10)


@dataclass(slots=True)
class Tally:
    """What a side did.

    Attributes:
        rates: Sub-tasks per second, by round.
        cpu_ns: Processor time of its rounds, of who was asked and of those who work for it.
    """

    rates: list[float] = field(default_factory=list)
    cpu_ns: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Side:
    """A side of the contest.

    Attributes:
        asked: The broker, or Dask's scheduler.
        others: The nodes that work, as far as they are asked for what they cost.
        tally: What it did in the turns that count.
    """

    asked: Child
    others: Sequence[Child] = ()
    tally: Tally = field(default_factory=Tally)

    async def turn(self, units: int, *, counts: bool = True) -> None:
        """Do one map."""
        before = await self._cpu_ns()
        answer = await self.asked.answer(_TURN_S, calls=units)
        after = await self._cpu_ns()
        if counts:
            self.tally.rates.append(units * 1e9 / answer["ns"][0])
            sofar = self.tally.cpu_ns
            self.tally.cpu_ns = (
                sofar[0] + after[0] - before[0],
                sofar[1] + after[1] - before[1],
            )

    async def _cpu_ns(self) -> tuple[int, int]:
        asked = await self.asked.cpu_ns()
        return asked, sum([await child.cpu_ns() for child in self.others])


def run(told: Told, *, quick: bool, peers: bool = True) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Fewer and smaller maps.
        peers: Measure Dask distributed, too.

    Raises:
        MeshError: Dask can't be installed, or somebody fails; says who and why.
    """
    with extra_environment(told) if peers else nullcontext() as extra:
        return trio.run(measure, told, QUICK if quick else FULL, extra)


async def measure(told: Told, size: Size, extra: Extra | None = None) -> list[Figure]:
    """Return P6; with the extra environment beside Dask distributed."""
    async with AsyncExitStack() as stack:
        told("starting")
        ours = await stack.enter_async_context(our_side(OURS, None))
        sides = [ours]
        if extra is not None:
            context = started(_DASK, (str(_WORKERS),), extra)
            dask, _ = await stack.enter_async_context(context)
            sides.append(Side(dask))
        for side in sides:
            await side.turn(size.units, counts=False)
        for number in range(size.rounds):
            told(f"round {number + 1} of {size.rounds}", number / size.rounds)
            for side in sides:
                await side.turn(size.units)
    return figures(size, *(side.tally for side in sides))


@asynccontextmanager
async def our_side(contestant: Contestant, extra: Extra | None) -> AsyncIterator[Side]:
    """Run a broker and the nodes that work for it, for the length of a block."""
    async with AsyncExitStack() as stack:
        workers, addresses = [], []
        for _ in range(_WORKERS):
            context = started(contestant, ("contractor",), extra)
            child, address = await stack.enter_async_context(context)
            workers.append(child)
            addresses.append(address)
        context = started(contestant, ("broker", *addresses), extra)
        asked, _ = await stack.enter_async_context(context)
        yield Side(asked, workers)


def figures(size: Size, ours: Tally, dask: Tally | None = None) -> list[Figure]:
    """Return the figures that two sides amount to."""
    n = size.units * size.rounds
    pairs = zip(ours.rates, dask.rates, strict=True) if dask else ()
    ratios = [mine / theirs for mine, theirs in pairs]
    note = f"our rate by Dask's, maps of {size.units}, median of {size.rounds} rounds"
    return [
        Figure(
            id="P6.units", value=statistics.median(ratios) if ratios else None, unit="×",
            goal=_GOAL, at_least=True, n=n if ratios else 0, note=note if ratios else _LEFT_OUT,
        ),
        _rate("P6.units.rate", ours, n, f"{_WORKERS} nodes work: signed, journalled, receipts"),
        _rate("P6.dask.rate", dask, n, f"{_WORKERS} worker processes: nothing signed or kept"),
        *(
            Figure(
                id=f"P6.{who}.cpu_ms", value=cpu_ns / n / 1e6, unit="ms", n=n,
                note=f"processor time of a sub-task, {where}",
            )
            for who, where, cpu_ns in (
                ("broker", "at the broker", ours.cpu_ns[0]),
                ("contractors", "at who does it", ours.cpu_ns[1]),
            )
        ),
    ]  # fmt: skip


def _rate(name: str, tally: Tally | None, n: int, what: str) -> Figure:
    if tally is None:
        return Figure(id=name, value=None, unit="1/s", n=0, note=_LEFT_OUT)
    low, high = min(tally.rates), max(tally.rates)
    return Figure(
        id=name, value=statistics.median(tally.rates), unit="1/s", n=n,
        note=f"median of the rounds, {low:.0f} to {high:.0f}; {what}",
    )  # fmt: skip
