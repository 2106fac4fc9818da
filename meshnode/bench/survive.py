"""R1, R2, R4, R5 and R16: what is lost when nodes die, leave, or can't reach each other.

``R1``: nodes of a mesh of real processes, of any role, killed with SIGKILL at random
while jobs are done; ``R1.frozen``: a broker or a contractor that is stopped in its tracks
and goes on; ``R1.full``: a disk that is full and has room again.  ``R2``: nodes that die at
every labelled crash point (:mod:`meshnode.services.crash_points`).  ``R4``: a mesh that is
cut in half.  ``R5``: a store whose process is killed while it writes, and whose log is cut
short.  ``R16``: a day of a thousand simulated nodes that come and go.  Afterwards an auditor
reads all stores.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import trio

from meshnode.bench.figures import Figure, Told
from meshnode.bench.survive_churn import churn_figures
from meshnode.bench.survive_faults import can_mount, fill_disk, freeze_in_turn
from meshnode.bench.survive_jobs import Survived, kill_at_random
from meshnode.bench.survive_partition import partition_figures
from meshnode.bench.survive_points import all_points, kill_at_points
from meshnode.bench.survive_store import store_figures

#: Jobs and kills of R1, times that each point of R2 is tried, times that a broker and a
#: contractor are frozen, seeds of R4, kills of R5.
FULL: Final = (1_000, 500, 3, 10, 20, 1_000)
QUICK: Final = (12, 6, 0, 0, 2, 20)
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
    jobs, kills, times, frozen, cuts, store_kills = QUICK if quick else FULL
    points = list(_FEW) if quick else all_points() * times
    return [
        *_random_figures(told, jobs, kills),
        *_point_figures(told, points),
        *_fault_figures(told, frozen),
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


def _fault_figures(told: Told, times: int) -> list[Figure]:
    if not times:  # the short form
        return []
    return [*_frozen_figures(told, times), *_full_figures(told)]


def _frozen_figures(told: Told, times: int) -> list[Figure]:
    def progress(done: int, _: int) -> None:
        told("frozen brokers and contractors", done / (2 * times))

    with tempfile.TemporaryDirectory() as folder:
        play = partial(freeze_in_turn, Path(folder), times=times, progress=progress)
        found = trio.run(play)
    who = ", ".join(f"{count} times a {role}" for role, count in sorted(found.kills.items()))
    return _figures("R1.frozen", found, f"{_states(found)}; {_passed_on(found)}; {who}")


def _full_figures(told: Told) -> list[Figure]:
    told("a full disk")
    if not can_mount():
        note = "this machine lets its users mount no disk of their own"
        return [
            Figure(id="R1.full", value=None, unit="jobs lost or wrong", goal=0, n=0, note=note)
        ]
    with tempfile.TemporaryDirectory() as folder:
        full = trio.run(fill_disk, Path(folder))
    refused = f"another was refused: {full.refusal[:160] or 'never'}"
    return _figures("R1.full", full.survived, f"{_states(full.survived)}; {refused}")


def _figures(name: str, found: Survived, note: str) -> list[Figure]:
    failed = found.lost + found.wrong
    troubles = len(found.troubles) + found.unsettled
    why = "".join(f"; {one}" for one in (*found.lost[:1], *found.wrong[:1]))
    first = found.troubles[0] if found.troubles else "the stores of all nodes agree"
    return [
        Figure(
            id=name, value=len(failed), unit="jobs lost or wrong", goal=0, n=found.jobs,
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
