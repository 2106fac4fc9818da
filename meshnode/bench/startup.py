"""P7 and P10: how fast things start, and what a node at rest weighs.

``P7.help``: ``meshnode --help``, a process from start to end.  ``P7.ready``: a node from
start to its ready line, in a new home.  ``P7.demo``: the demo from start to its first
result.  ``P10.rest``: resident memory of a node without agents, a while after it is ready.
``P10.peer``: what one more idle connected peer adds to it (:mod:`meshnode.bench.memory`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

from meshnode.bench.figures import Figure, Told
from meshnode.bench.memory import peer_figures
from meshnode.errors import MeshError

_MESHNODE: Final = (sys.executable, "-m", "meshnode")
#: As users have it: some development machines tell Python to keep no compiled modules.
_ENVIRONMENT: Final = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
#: A node is at rest this long after it was ready, seconds.
_REST_S: Final = 5.0


def run(told: Told, *, quick: bool) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Fewer repetitions.
    """
    runs = 3 if quick else 10
    told("--help")
    _help_s()  # not counted: it fills the caches of files and of compiled modules
    figures = [_figure("P7.help", [_help_s() for _ in range(runs)], 0.3, "process, warm cache")]
    told("node ready")
    figures.append(_figure("P7.ready", [_ready_s() for _ in range(runs)], 3.0, "new home"))
    told("the demo's first result")
    demos = [_demo_s() for _ in range(1 if quick else 3)]
    figures.append(_figure("P7.demo", demos, 20.0, "7 processes, this repository"))
    told("memory at rest")
    rests = [_at_rest_mb() for _ in range(1 if quick else 3)]
    figures.append(
        Figure(
            id="P10.rest", value=statistics.median(rests), unit="MB", goal=150, n=len(rests),
            note=f"RSS, no agents, {_REST_S:g} s after it was ready; median",
        )
    )  # fmt: skip
    return figures + peer_figures(told)


def _figure(name: str, values: list[float], goal_s: float, note: str) -> Figure:
    return Figure(
        id=name,
        value=statistics.median(values),
        unit="s",
        goal=goal_s,
        n=len(values),
        note=f"median, {note}",
    )


def _help_s() -> float:
    begun_s = perf_counter()
    command = [*_MESHNODE, "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_ENVIRONMENT)  # noqa: S603 - our own
    return perf_counter() - begun_s


def _ready_s() -> float:
    begun_s = perf_counter()
    with tempfile.TemporaryDirectory() as home, _node(home):
        return perf_counter() - begun_s


def _demo_s() -> float:
    begun_s = perf_counter()
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*_MESHNODE, "demo", "--json", "--out", out],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_ENVIRONMENT,
        )
        try:
            for line in process.stdout or ():
                if json.loads(line).get("event") == "first_result":
                    return perf_counter() - begun_s
        finally:
            process.terminate()
            process.communicate()
    raise MeshError("the demo ended without a result", hint="run `meshnode demo` to see why")


def _at_rest_mb() -> float:
    with tempfile.TemporaryDirectory() as home, _node(home) as (process, _):
        sleep(_REST_S)
        return _resident_bytes(process.pid) / 1e6


@contextmanager
def _node(home: str, *args: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*_MESHNODE, "up", "--json", "--home", home, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_ENVIRONMENT,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready: dict[str, Any] = json.loads(line) if line else {}
        if ready.get("event") != "ready":
            raise MeshError(f"a node did not come up: {line.strip() or 'no output'}")
        yield process, ready
    finally:
        process.terminate()
        process.communicate()


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise MeshError("this system doesn't tell a process's memory", hint="it needs /proc")
