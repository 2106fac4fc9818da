"""P8, P9 and R3: how much simulation fits into how much time, and what many seeds find.

``P8``: a thousand real nodes for a simulated hour (the scenario ``thousand-nodes``: ten
thousand sub-tasks, every tenth node leaves or crashes), wall time and peak memory of the
process that plays it.  ``P9``: ten thousand agents and a million tasks in the market's heap
loop.  ``R3``: seeds of ``rough-weather`` (twenty nodes, ten simulated minutes) in which
something that must hold did not, and whether the same seed is the same run in another
process.

``--quick`` plays a fraction, and its goal is the same fraction of the time.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Final

from meshnode.bench.figures import Figure, Told
from meshnode.errors import MeshError
from simulations.outcome import Outcome
from simulations.runs.takes import Take
from simulations.runs.workers import play_takes
from simulations.scenario import Scenario
from simulations.scenarios import named

GOAL_P8_S: Final = 120.0
GOAL_P8_MIB: Final = 1_536.0
GOAL_P9_S: Final = 300.0
#: Nodes and minutes of P8, agents and tasks of P9, seeds of R3.
FULL: Final = ((1_000, 60), (10_000, 1_000_000), 100)
QUICK: Final = ((250, 12), (10_000, 40_000), 6)
_SEED: Final = 1
#: Seeds that are played twice, in two processes.
_TWICE: Final = 3


class ChildFailed(MeshError):
    """What was to be measured broke off."""

    code = "bench.child_failed"


def run(told: Told, *, quick: bool) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: A fraction of everything.

    Raises:
        ChildFailed: A simulation broke off; says how.
    """
    (nodes, minutes), (agents, tasks), seeds = QUICK if quick else FULL
    return [
        *_thousand_nodes(told, nodes, minutes),
        _market(told, agents, tasks),
        *_seeds(told, seeds),
    ]


def _thousand_nodes(told: Told, nodes: int, minutes: int) -> list[Figure]:
    share = nodes * minutes / (FULL[0][0] * FULL[0][1])
    found = _child(told, "thousand nodes", "thousand-nodes", nodes, minutes)
    if found["troubles"]:
        raise ChildFailed(f"what must hold does not: {found['troubles'][0]}")
    note = (
        f"{nodes} nodes, {minutes} simulated minutes, {found['awards']:g} sub-tasks,"
        f" {found['completed_share']:.1%} of the jobs completed, seed {_SEED}"
    )
    return [
        Figure(
            id="P8", value=found["wall_s"], unit="s", n=1, goal=GOAL_P8_S * share, note=note
        ),
        Figure(
            id="P8.memory",
            value=found["rss_bytes"] / 1024**2,
            unit="MiB",
            n=1,
            goal=GOAL_P8_MIB,
            note="peak of the process",
        ),
    ]


def _market(told: Told, agents: int, tasks: int) -> Figure:
    found = _child(told, "market", "market", agents, tasks)
    return Figure(
        id="P9",
        value=found["wall_s"],
        unit="s",
        n=1,
        goal=GOAL_P9_S * tasks / FULL[1][1],
        note=f"{agents:,} agents, {tasks:,} tasks, {found['success_share']:.1%} done,"
        f" {found['rss_bytes'] / 1024**2:.0f} MiB, seed {_SEED}",
    )


def _seeds(told: Told, seeds: int) -> list[Figure]:
    scenario = named("rough-weather")
    first = _play(told, scenario, range(seeds))
    again = _play(told, scenario, range(min(seeds, _TWICE)))
    failed = [outcome for outcome in first.values() if not outcome.passed]
    worst = f"; seed {failed[0].seed}: {failed[0].troubles[0]}" if failed else ""
    differ = [seed for seed, outcome in again.items() if outcome.digest != first[seed].digest]
    jobs = sum(outcome.figures.get("jobs", 0) for outcome in first.values())
    return [
        Figure(
            id="R3",
            value=len(failed),
            unit="failed seeds",
            n=seeds,
            goal=0,
            note=f"{scenario.nodes} nodes, {scenario.minutes:g} simulated minutes each,"
            f" {jobs:g} jobs{worst}",
        ),
        Figure(
            id="R3.repeat",
            value=len(differ),
            unit="seeds with two traces",
            n=len(again),
            goal=0,
            note="played again in another process",
        ),
    ]


def _play(told: Told, scenario: Scenario, seeds: Iterable[int]) -> dict[int, Outcome]:
    takes = [Take(scenario=scenario, seed=seed) for seed in seeds]
    ended: dict[int, Outcome] = {}
    told(f"{len(takes)} seeds of {scenario.name}", 0.0)
    for outcome in play_takes(takes, workers=0, told=lambda *_: None):
        ended[outcome.seed] = outcome
        told(f"{len(takes)} seeds of {scenario.name}", len(ended) / len(takes))
    return ended


def _child(told: Told, what: str, *arguments: object) -> dict[str, Any]:
    """Return the last line of a child, whose others tell how far it is."""
    command = [sys.executable, "-m", "meshnode.bench.simulation_child", *map(str, arguments)]
    line: dict[str, Any] = {}
    with subprocess.Popen(  # noqa: S603 - our own program
        [*command, str(_SEED)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for raw in child.stdout:
            line = json.loads(raw)
            told(what, line.get("share"))
        last = child.stderr.read().strip().rpartition("\n")[2]
    if child.returncode or "wall_s" not in line:
        raise ChildFailed(f"{what} broke off: {last or child.returncode}")
    return line
