"""R1, R2, R4, R5 and R16: what is lost when nodes die, leave, or can't reach each other.

``R1``: nodes of a mesh of real processes, of any role, killed with SIGKILL at random
while jobs are done.  ``R2``: nodes that die at every labelled crash point
(:mod:`meshnode.services.crash_points`).  ``R4``: a mesh that is cut in half.  ``R5``: a
store whose process is killed while it writes, and whose log is cut short.  ``R16``: a day
of a thousand simulated nodes that come and go.  Afterwards an auditor reads all stores.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import trio

from meshnode.bench.figures import Figure, Told
from meshnode.bench.survive_churn import churn_figures
from meshnode.bench.survive_jobs import Survived, kill_at_random
from meshnode.bench.survive_partition import partition_figures
from meshnode.bench.survive_points import all_points, kill_at_points
from meshnode.bench.survive_store import store_figures

#: Jobs and kills of R1, times that each point of R2 is tried, seeds of R4, kills of R5.
FULL: Final = (1_000, 500, 3, 20, 1_000)
QUICK: Final = (12, 6, 0, 2, 20)
_SEED: Final = 1
_GOAL_S: Final = 60.0
#: In the short form, each once.
_FEW: Final = (
    ("desk", "after:job.awarded"),
    ("owner", "before:job.done"),
    ("worker", "after:result.kept"),
)


def run(told: Told, *, quick: bool) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: A fraction of everything.

    Raises:
        MeshError: A node does not come up.
    """
    jobs, kills, times, cuts, store_kills = QUICK if quick else FULL
    points = list(_FEW) if quick else all_points() * times
    return [
        *_random_figures(told, jobs, kills),
        *_point_figures(told, points),
        *partition_figures(told, seeds=cuts),
        *store_figures(told, kills=store_kills, seed=_SEED),
        *churn_figures(told, quick=quick),
    ]


def _random_figures(told: Told, jobs: int, kills: int) -> list[Figure]:
    def progress(done: int, killed: int) -> None:
        told("kill -9 at random", min(done / jobs, killed / kills, 1.0))

    with tempfile.TemporaryDirectory() as folder:
        play = partial(
            kill_at_random, Path(folder), jobs=jobs, kills=kills, seed=_SEED, progress=progress
        )
        found = trio.run(play)
    roles = ", ".join(f"{count} of a {role}" for role, count in sorted(found.kills.items()))
    note = f"{_states(found)}; {_passed_on(found)}; killed: {roles}"
    return [
        *_figures("R1", found, note),
        Figure(
            id="R1.ended", value=found.last_end_s, unit="s", goal=_GOAL_S, n=1,
            note="from the last kill until every job had ended",
        ),
    ]  # fmt: skip


def _point_figures(told: Told, points: list[tuple[str, str]]) -> list[Figure]:
    def progress(done: int, _: int) -> None:
        told("crash points", done / len(points))

    with tempfile.TemporaryDirectory() as folder:
        found = trio.run(partial(kill_at_points, Path(folder), points, progress=progress))
    missed = sorted({f"{role} {point}" for role, point in points} - set(found.reached))
    deaths = f"died {found.reached.total()} times at {len(found.reached)} points"
    never = f"; never reached: {', '.join(missed)}" if missed else ""
    note = f"{_states(found)}; {_passed_on(found)}; {deaths}{never}"
    return _figures("R2", found, note)


def _figures(name: str, found: Survived, note: str) -> list[Figure]:
    lost = len(found.lost) + found.wrong
    troubles = len(found.troubles) + found.unsettled
    why = f"; {found.lost[0]}" if found.lost else ""
    first = found.troubles[0] if found.troubles else "the stores of all nodes agree"
    return [
        Figure(
            id=name, value=lost, unit="jobs lost or wrong", goal=0, n=found.jobs,
            note=note + why,
        ),
        Figure(
            id=f"{name}.audit", value=troubles, unit="troubles", goal=0, n=found.jobs,
            note=f"{first}; {found.unsettled} receipts not delivered",
        ),
    ]  # fmt: skip


def _states(found: Survived) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(found.states.items()))


def _passed_on(found: Survived) -> str:
    """Return how many jobs had standbys, and how many were ended by one."""
    again = sum(count for brokers, count in found.passed_on.items() if brokers > 1)
    return f"{found.passed_on.total()} with standbys, {again} ended by another broker"
