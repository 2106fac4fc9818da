"""Play one thing in a process of its own, and tell what it took of time and memory.

``python -m meshnode.bench.simulation_child WHAT NODES|AGENTS MINUTES|TASKS SEED [counted]``
prints lines of JSON: ``{"share", …}`` now and then, and ``{"wall_s", "rss_bytes", …}`` in
the end.  The most memory that a process ever had is the process's, so each has its own;
on the way it is what it has then, with what is on the nodes' simulated disks beside it.
With ``counted`` all objects are counted halfway and in the end, and garbage is collected
before: what ended nodes left may lie about for hours, since collecting it often would take
longer than playing.  That takes seconds of its own.
"""

import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simulations.market import MarketOptions, simulate_market
from simulations.player import play
from simulations.scenarios import named

if TYPE_CHECKING:
    from simulations.mesh import Member
    from simulations.stage import Stage

#: Of getrusage's unit on Linux.
_KIB = 1024
#: Shares of the time at which objects are counted, and what lies on the disks.
_COUNTED = (0.5, 0.99)


def main(arguments: Sequence[str]) -> None:
    """Play what the arguments say."""
    what, size, length, seed = arguments[0], int(arguments[1]), arguments[2], int(arguments[3])
    begun_s = time.perf_counter()
    if what == "market":
        found = _market(size, int(length), seed)
    else:
        counted = "counted" in arguments[4:]
        found = _scenario(what, size, float(length), seed, counted=counted)
    found["wall_s"] = time.perf_counter() - begun_s
    found["rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    _say(found)


def _scenario(
    name: str, nodes: int, minutes: float, seed: int, *, counted: bool
) -> dict[str, object]:
    """Play a scenario; with fewer nodes and minutes, as many jobs fewer."""
    full = named(name)
    share = nodes / full.nodes * minutes / full.minutes
    loads = tuple(
        msgspec.structs.replace(
            load,
            jobs_max=load.jobs_max and max(1, round(load.jobs_max * share)),
            per_minute=load.per_minute * nodes / full.nodes,
            brokers=max(1, round(load.brokers * nodes / full.nodes)),
        )
        for load in full.load
    )
    expect = msgspec.structs.replace(full.expect, jobs_min=0)
    scenario = msgspec.structs.replace(
        full, nodes=nodes, minutes=minutes, load=loads, expect=expect
    )
    stages: list[Stage] = []

    due = list(_COUNTED) if counted else []

    def tell(done_s: float, all_s: float) -> None:
        told: dict[str, object] = {"share": done_s / all_s}
        if due and done_s / all_s >= due[0]:
            del due[0]
            gc.collect()
            disk_bytes = sum(_disk_bytes(one) for one in stages[0].mesh.members.values())
            told |= {
                "objects": len(gc.get_objects()),
                "rss_bytes": _rss_bytes(),
                "disk_bytes": disk_bytes,
            }
        _say(told)

    outcome = play(scenario, seed=seed, progress=tell, shown=stages.append)
    return {
        "digest": outcome.digest,
        "troubles": list(outcome.troubles),
        "jobs": outcome.figures["jobs"],
        "awards": outcome.figures["awards"],
        "completed_share": outcome.figures["completed_share"],
        "lives": sum(one.lives for one in stages[0].mesh.members.values()),
        "cpu_s": time.process_time(),
    }


def _disk_bytes(member: "Member") -> int:
    cells = member.disk.tables.values()
    logs = member.disk.logs.values()
    return sum(
        sum(map(len, values)) for values in (*(table.values() for table in cells), *logs)
    )


def _rss_bytes() -> int:
    """Return what this process has of memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def _market(agents: int, tasks: int, seed: int) -> dict[str, object]:
    result = simulate_market(
        MarketOptions(agents=agents, tasks=tasks, seed=seed),
        on_progress=lambda done, count: _say({"share": done / count}),
    )
    return {"digest": result.digest, "success_share": result.success_share}


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
