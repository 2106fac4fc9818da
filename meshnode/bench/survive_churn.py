"""R16: a thousand simulated nodes for a day, none of which stays longer than an hour or so.

The scenario ``day-of-churn``, in a process of its own.  What that process has of memory is
looked at as the day goes on: a node's memory must not grow, and what its simulated disk
holds is the history that it keeps on purpose, told apart.
"""

import json
import subprocess
import sys
from typing import Any, Final

from meshnode.bench.figures import Figure, Told
from meshnode.errors import MeshError

#: Nodes and minutes.
FULL: Final = (1_000, 24 * 60)
QUICK: Final = (100, 120)
_SEED: Final = 1
_GOAL_S: Final = 1_800.0
_GOAL_SHARE: Final = 0.995
#: More objects in the evening than at noon, by this, aren't growth: jobs come by chance.
_GOAL_OBJECTS: Final = 1.05


class ChildFailed(MeshError):
    """What was to be measured broke off."""

    code = "bench.child_failed"


def churn_figures(told: Told, *, quick: bool) -> list[Figure]:
    """Play it.

    Raises:
        ChildFailed: The simulation broke off; says how.
    """
    nodes, minutes = QUICK if quick else FULL
    lines = _play(told, nodes, minutes)
    last = lines[-1]
    noon, evening = [line for line in lines[:-1] if "objects" in line]
    grew_bytes = evening["rss_bytes"] - noon["rss_bytes"]
    disk_bytes = evening["disk_bytes"] - noon["disk_bytes"]
    troubles = last["troubles"]
    note = (
        f"{nodes} nodes, {minutes / 60:g} simulated hours, {last['jobs']:g} jobs,"
        f" {last['awards']:g} sub-tasks, {last['lives']:g} lives of nodes, seed {_SEED}"
    )
    share = nodes * minutes / (FULL[0] * FULL[1])
    return [
        Figure(
            id="R16", value=last["completed_share"], unit="of the jobs", goal=_GOAL_SHARE,
            at_least=True, n=round(last["jobs"]), note=note,
        ),
        Figure(
            id="R16.audit", value=len(troubles), unit="troubles", goal=0, n=1,
            note=troubles[0] if troubles else "all tables of all nodes are as at noon",
        ),
        Figure(
            id="R16.wall", value=last["wall_s"], unit="s", goal=_GOAL_S * share, n=1,
            note=f"{last['cpu_s']:.0f} s of processor time",
        ),
        Figure(
            id="R16.memory", value=grew_bytes / 1024**2, unit="MiB", n=1,
            note=f"more in the evening than at noon, {disk_bytes / 1024**2:.0f} MiB of it on"
            f" simulated disks; {last['rss_bytes'] / 1024**2:.0f} MiB at most",
        ),
        Figure(
            id="R16.objects", value=evening["objects"] / noon["objects"], unit="",
            goal=_GOAL_OBJECTS, n=1,
            note=f"{evening['objects']} objects in the evening by {noon['objects']} at noon,"
            " garbage collected",
        ),
    ]  # fmt: skip


def _play(told: Told, nodes: int, minutes: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "meshnode.bench.simulation_child", "day-of-churn"]
    lines: list[dict[str, Any]] = []
    with subprocess.Popen(  # noqa: S603 - our own program
        [*command, str(nodes), str(minutes), str(_SEED), "counted"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for raw in child.stdout:
            lines.append(json.loads(raw))
            told("a day of churn", lines[-1].get("share"))
        last = child.stderr.read().strip().rpartition("\n")[2]
    if child.returncode or "wall_s" not in lines[-1]:
        raise ChildFailed(f"the day of churn broke off: {last or child.returncode}")
    return lines
