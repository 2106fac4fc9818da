"""Play one thing in a process of its own, and tell what it took of time and memory.

``python -m meshnode.bench.simulation_child scenario|market NODES|AGENTS MINUTES|TASKS SEED``
prints lines of JSON: ``{"share"}`` now and then, and ``{"wall_s", "rss_bytes", …}`` in the
end.  The most memory that a process ever had is the process's, so each has its own.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence

import msgspec

from simulations.market import MarketOptions, simulate_market
from simulations.player import play
from simulations.scenarios import named

#: Of getrusage's unit on Linux.
_KIB = 1024


def main(arguments: Sequence[str]) -> None:
    """Play what the arguments say."""
    what, size, length, seed = arguments[0], int(arguments[1]), arguments[2], int(arguments[3])
    begun_s = time.perf_counter()
    if what == "market":
        found = _market(size, int(length), seed)
    else:
        found = _scenario(what, size, float(length), seed)
    found["wall_s"] = time.perf_counter() - begun_s
    found["rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
    _say(found)


def _scenario(name: str, nodes: int, minutes: float, seed: int) -> dict[str, object]:
    """Play a scenario; with fewer nodes and minutes, as many jobs fewer."""
    full = named(name)
    share = nodes / full.nodes * minutes / full.minutes
    loads = tuple(
        msgspec.structs.replace(
            load,
            jobs_max=max(1, round(load.jobs_max * share)),
            per_minute=load.per_minute * nodes / full.nodes,
            brokers=max(1, round(load.brokers * nodes / full.nodes)),
        )
        for load in full.load
    )
    expect = msgspec.structs.replace(full.expect, jobs_min=0)
    scenario = msgspec.structs.replace(
        full, nodes=nodes, minutes=minutes, load=loads, expect=expect
    )
    outcome = play(
        scenario, seed=seed, progress=lambda done, all_s: _say({"share": done / all_s})
    )
    return {
        "digest": outcome.digest,
        "troubles": list(outcome.troubles),
        "awards": outcome.figures["awards"],
        "completed_share": outcome.figures["completed_share"],
    }


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
