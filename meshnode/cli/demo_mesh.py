"""A local mesh of real node processes, for the demo.

One seed node, whose invite is all that the others are given; specialists that share
the capabilities so that each has two providers or more; and the desk, the node that
brokers the job.  Every process runs this installation's ``meshnode`` command.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from meshnode.cli.demo_liar import FUNCTIONS
from meshnode.errors import MeshError

#: Which specialists the nodes host, in turn; the first of a mesh of N nodes get theirs.
ROLES: Final[tuple[tuple[str, ...], ...]] = (
    ("language_identification", "summarization", "report_writing"),
    ("security_audit", "lint", "keyword_extraction"),
    ("support_check", "security_audit", "lint"),
    ("summarization", "keyword_extraction", "security_audit"),
    ("language_identification", "support_check", "lint", "report_writing"),
)
#: The desk hosts a linter to recompute what others deliver, so that lint can be verified.
DESK: Final = ("lint",)
#: Name of the node that lies, if there is one, and what about.
LIAR: Final = "liar"
LIES: Final = ("audit", "lint")
#: Seed, desk, and three specialists have every capability among them.
NODES_MIN: Final = 5

_READY_S: Final = 60.0
_STOP_S: Final = 5.0
_LINE_BYTES_MAX: Final = 64 * 1024


@dataclass(slots=True)
class Member:
    """One process of the mesh.

    Attributes:
        name: ``seed``, ``desk`` or ``node-1`` and so on.
        process: The running process.
        ready: What it said when it was ready.
        specialists: Short names.
    """

    name: str
    process: trio.Process
    ready: dict[str, Any]
    specialists: Sequence[str]

    @property
    def peer(self) -> str:
        """PeerId."""
        return str(self.ready["peer_id"])


@dataclass(slots=True)
class LocalMesh:
    """The processes, seed first, desk last."""

    members: list[Member]

    @property
    def desk(self) -> Member:
        """The node that brokers."""
        return self.members[-1]

    def standbys(self, count: int) -> list[Member]:
        """The first ``count`` nodes that host specialists: those that stand by."""
        return self.members[1 : 1 + count]

    def name_of(self, peer: str) -> str:
        """Return a member's name, or the peer's own shortened."""
        for member in self.members:
            if member.peer == peer:
                return member.name
        return peer[-8:]


@asynccontextmanager
async def local_mesh(
    home: Path,
    *,
    nodes: int,
    told: Callable[[Member], None],
    standbys: int = 0,
    liar: bool = False,
) -> AsyncIterator[LocalMesh]:
    """Run a mesh of ``nodes`` processes under ``home`` for as long as the context lasts.

    Args:
        home: An empty folder; each node gets a folder in it.
        nodes: Processes in all, at least 5.
        told: Called with each member when it is ready.
        standbys: So many of the specialists' nodes stand by for others' jobs.
        liar: One more node is there, whose agents make their answers up.

    Raises:
        MeshError: A process did not come up; says what it said.
    """
    if nodes < NODES_MIN:
        raise MeshError(
            f"{nodes} nodes are too few", hint=f"the demo needs {NODES_MIN} or more"
        )
    processes: list[trio.Process] = []
    members: dict[int, Member] = {}

    async def start(number: int, name: str, args: list[str], hosted: Sequence[str]) -> None:
        command = [sys.executable, "-m", "meshnode", *args, "--home", str(home / name)]
        log = home / f"{name}.log"
        with log.open("wb") as errors:
            # Its standard input ends when this process does, however that goes.
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={
                    **os.environ,
                    "MESHNODE_WITH_STDIN": "1",
                    "MESHNODE_STANDBY__ENABLED": str(1 <= number <= standbys).lower(),
                },
            )
        processes.append(process)
        ready = await _ready(process, name, log)
        members[number] = Member(name, process, ready, hosted)
        told(members[number])

    try:
        await start(0, "seed", ["bootstrap", "--json"], ())
        join = ["--join", str(members[0].ready["invite"]), "--json"]
        async with trio.open_nursery() as nursery:
            for number in range(1, nodes - 1):
                hosted = ROLES[(number - 1) % len(ROLES)]
                args = ["up", *join, *_with(hosted)]
                nursery.start_soon(start, number, f"node-{number}", args, hosted)
            if liar:
                lies = [part for name in FUNCTIONS for part in ("--function", name)]
                nursery.start_soon(start, nodes - 1, LIAR, ["up", *join, *lies], LIES)
            desk = nodes if liar else nodes - 1
            nursery.start_soon(start, desk, "desk", ["up", *join, *_with(DESK)], DESK)
        yield LocalMesh([members[number] for number in sorted(members)])
    finally:
        with trio.CancelScope(shield=True):
            await _stop(processes)


def _with(specialists: Sequence[str]) -> list[str]:
    return [part for name in specialists for part in ("--with", name)]


async def _ready(process: trio.Process, name: str, log: Path) -> dict[str, Any]:
    """Return the line that a node prints when it is ready."""
    line = b""
    with trio.move_on_after(_READY_S):
        while process.stdout is not None and b"\n" not in line and len(line) < _LINE_BYTES_MAX:
            data = await process.stdout.receive_some()
            if not data:
                break
            line += data
    try:
        ready = json.loads(line.split(b"\n", 1)[0])
    except ValueError:
        ready = {}
    if not isinstance(ready, dict) or ready.get("event") != "ready":
        said = (ready.get("error") or {}).get("message") if isinstance(ready, dict) else ""
        tail = (await trio.Path(log).read_text(errors="replace")).strip().splitlines()[-1:]
        why = said or " ".join(tail) or f"no ready line within {_READY_S:g} s"
        raise MeshError(f"the demo's node {name!r} did not come up: {why}")
    return ready


async def _stop(processes: Sequence[trio.Process]) -> None:
    """End every process: politely, then not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    with trio.move_on_after(_STOP_S):
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(process.wait)
    for process in processes:
        if process.poll() is None:
            process.kill()
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()
