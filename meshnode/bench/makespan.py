"""P4: how long a job takes, beside the least that it could.

``P4.critical_path``: one broker and four nodes, real processes over loopback with stores on
the disk, whose agent takes the time that it is told and does more at once than a graph has
tasks.  Chains, fork-joins, layered graphs and map-reduces take turns
(:mod:`.dags`, :mod:`.makespan_hop`).  The figure is the time from submit to done by the
longest path of what the tasks take themselves; tasks take 100 to 500 ms, evenly drawn, and
in ``P4.critical_path.short`` 100 ms each, which is the least that the goal is about.
``P4.added_ms`` is what one task of the longest path took beside itself, and ``P4.fsync`` one
fsync of the same disk, of which each such task waits for three.

``P4.heft``: jobs with fewer agents than tasks that could run at once, by what HEFT's
schedule takes that is made from the same estimates and carried out with what the tasks
really take; in virtual time (:mod:`.makespan_scarce`).  ``P4.heft.exact`` is the same where
the estimates are what the tasks take.
"""

import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from meshnode.bench.contest import Contestant, started
from meshnode.bench.contract import FSYNC_BYTES, fsyncs_ms
from meshnode.bench.dags import LONG_MS, SHORT_MS, Work, longest_path
from meshnode.bench.figures import Figure, Told
from meshnode.bench.makespan_hop import turn_of
from meshnode.bench.makespan_scarce import NOISE, draw_shop, ours_ms

_OURS: Final = Contestant("", "meshnode.bench.makespan_hop")
_NODES: Final = 4
_JOB_S: Final = 300.0
_GOAL: Final = 1.05
SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        jobs: Real jobs; with 8 there is each shape once with tasks of one length and once
            with tasks of several.
        scarce: Simulated jobs.
        exact: Simulated jobs whose tasks take what was thought.
    """

    jobs: int
    scarce: int = 0
    exact: int = 0


QUICK: Final = Size(jobs=16, scarce=30, exact=8)
FULL: Final = Size(jobs=96, scarce=200, exact=60)


def run(told: Told, *, quick: bool) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Fewer jobs.

    Raises:
        MeshError: A node doesn't come up, or a job fails; says why.
    """
    size = QUICK if quick else FULL
    return [*trio.run(measure, told, size), *measure_scarce(told, size)]


@dataclass(frozen=True, slots=True)
class Took:
    """A job that was done.

    Attributes:
        work: What it was.
        took_ms: From submit to done.
    """

    work: Work
    took_ms: float

    @property
    def ratio(self) -> float:
        """What it took by the least that it could."""
        return self.took_ms / self.work.bound_ms

    @property
    def added_ms(self) -> float:
        """What it took beyond that, for each task in a row."""
        tasks = longest_path(self.work.dag, [1.0] * len(self.work.costs_ms))
        return (self.took_ms - self.work.bound_ms) / tasks

    @property
    def is_even(self) -> bool:
        """Whether its tasks take the same."""
        return set(self.work.costs_ms) == {SHORT_MS}


async def measure(told: Told, size: Size) -> list[Figure]:
    """Return P4, measured with real nodes."""
    jobs: list[Took] = []
    async with AsyncExitStack() as stack:
        told("starting")
        addresses: list[str] = []
        for _ in range(_NODES):
            context = started(_OURS, ("contractor",), None)
            addresses.append((await stack.enter_async_context(context))[1])
        context = started(_OURS, ("broker", str(SEED), *addresses), None)
        broker, _ = await stack.enter_async_context(context)
        for number in range(size.jobs):
            told(f"job {number + 1} of {size.jobs}", number / size.jobs)
            answer = await broker.answer(_JOB_S, calls=1)
            jobs.append(Took(turn_of(SEED, number), answer["ns"][0] / 1e6))
    with TemporaryDirectory(prefix="meshnode-bench-") as folder:
        return figures(jobs, fsyncs_ms(Path(folder)))


def figures(jobs: Sequence[Took], fsyncs: Sequence[float]) -> list[Figure]:
    """Return what real jobs amount to.

    Args:
        jobs: One of each kind at least.
        fsyncs: What an fsync takes there, milliseconds.
    """
    added_ms = [job.added_ms for job in jobs]
    return [
        _ratio("P4.critical_path", [job for job in jobs if not job.is_even],
               f"tasks of {SHORT_MS} to {LONG_MS} ms"),
        _ratio("P4.critical_path.short", [job for job in jobs if job.is_even],
               f"every task {SHORT_MS} ms"),
        Figure(
            id="P4.added_ms", value=statistics.median(added_ms), unit="ms", n=len(jobs),
            note=f"median, a task of the longest path beside itself; most {max(added_ms):.1f}",
        ),
        Figure(
            id="P4.fsync", value=statistics.median(fsyncs), unit="ms", n=len(fsyncs),
            note=f"p50, one fsync of {FSYNC_BYTES} bytes on the same disk",
        ),
    ]  # fmt: skip


def _ratio(name: str, jobs: Sequence[Took], what: str) -> Figure:
    by_shape: dict[str, list[float]] = {}
    for job in jobs:
        by_shape.setdefault(job.work.dag.shape, []).append(job.ratio)
    each = ", ".join(f"{shape} {statistics.median(rs):.3f}" for shape, rs in by_shape.items())
    ratios = [job.ratio for job in jobs]
    return Figure(
        id=name, value=statistics.median(ratios), unit="×", goal=_GOAL, n=len(jobs),
        note=f"submit → done by the longest path, {what}, median; worst {max(ratios):.3f};"
        f" {each}; seed {SEED}",
    )  # fmt: skip


def measure_scarce(told: Told, size: Size) -> list[Figure]:
    """Return P4 beside HEFT, in virtual time."""
    return [
        _beside_heft(told, "P4.heft", size.scarce, NOISE, goal=_GOAL),
        _beside_heft(told, "P4.heft.exact", size.exact, 0.0),
    ]


def _beside_heft(
    told: Told, name: str, count: int, noise: float, *, goal: float | None = None
) -> Figure:
    ratios: list[float] = []
    for seed in range(count):
        told(f"{name}: job {seed + 1} of {count}", seed / count)
        shop = draw_shop(seed, noise=noise)
        ratios.append(ours_ms(shop, seed=seed) / shop.heft_ms())
    ratios.sort()
    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
    return Figure(
        id=name, value=statistics.median(ratios), unit="×", goal=goal, n=count,
        note=f"our makespan by that of HEFT's schedule, median; mean"
        f" {statistics.mean(ratios):.3f}, p10 {low:.3f}, p90 {high:.3f},"
        f" worst {ratios[-1]:.3f}; estimates off by sigma {noise:g}, lognormal;"
        f" seeds 0 to {count - 1}",
    )  # fmt: skip
