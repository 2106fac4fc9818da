"""A mesh of real processes whose nodes are killed and started again, each where it was.

Every node keeps its home and its port through all its lives.  Whoever asks one asks
again while it is down, as a program would that has nothing but the node's home.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import randrange
from socket import create_server
from types import MappingProxyType
from typing import Any, Final

import httpx
import trio

from meshnode.adapters.running_file import HTTP_FILE, read_running
from meshnode.bench.survive_agent import WORK
from meshnode.errors import ConfigError, MeshError

_READY_S: Final = 120.0
_PORTS: Final = (20_000, 32_000)
_STOP_S: Final = 20.0
_AGAIN_S: Final = 0.3
_ANSWER_S: Final = 10.0
#: Function that the contractors host.
_FUNCTION: Final = "meshnode.bench.survive_agent:shout"

#: What a node is started with beside the environment of this process.
Env = Mapping[str, str]
_NOTHING: Final[Env] = MappingProxyType({})
#: Of every node: short leases, so that standbys elect within seconds, and a log that can
#: be read.  Its standard input ends when this process does, however that goes.
_SETTINGS: Final = (
    ("MESHNODE_HOST__LEASE_S", "16"),
    ("MESHNODE_LOG__FORM", "json"),
    ("MESHNODE_WITH_STDIN", "1"),
)
_STANDBY: Final = (*_SETTINGS, ("MESHNODE_STANDBY__ENABLED", "true"))


@dataclass(slots=True, eq=False)
class Place:
    """A node through all its lives.

    Attributes:
        name: Of it.
        home: Its folder.
        args: What ``meshnode`` is told at every start.
        settings: The same in its environment.
        disk_bytes: Its home is on a disk of its own, of that size, which is gone with its
            process; 0 for the disk on which all is.
        process: Of the present life.
        lives: How many there were.
        busy: Somebody is killing or starting it.
    """

    name: str
    home: Path
    args: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = _SETTINGS
    disk_bytes: int = 0
    process: trio.Process | None = None
    lives: int = 0
    busy: bool = False

    @property
    def seen(self) -> Path:
        """Where its home is for this process."""
        if self.disk_bytes and self.process is not None:
            return Path(f"/proc/{self.process.pid}/root{self.home.absolute()}")
        return self.home

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "meshnode", *self.args, "--home", str(self.home)]
        if not self.disk_bytes:
            return command
        self.home.mkdir(mode=0o700, exist_ok=True)
        script = 'mount -t tmpfs -o size="$0",mode=700 none "$1" && shift && exec "$@"'
        return [
            "unshare",
            "-rm",
            "sh",
            "-c",
            script,
            str(self.disk_bytes),
            str(self.home),
            *command,
        ]

    async def start(self, env: Env = _NOTHING) -> dict[str, Any]:
        """Start it; return its ready line.

        Raises:
            MeshError: It doesn't come up; says what it said last.
        """
        log = self.home.with_suffix(".log")
        with log.open("ab") as errors:
            self.process = await trio.lowlevel.open_process(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **dict(self.settings), **env},
            )
        self.lives += 1
        line = b""
        with trio.move_on_after(_READY_S):
            assert self.process.stdout is not None
            async for data in self.process.stdout:
                line += data
                if b"\n" in line:
                    break
        said = json.loads(line.split(b"\n")[0]) if b"\n" in line else {}
        if said.get("event") != "ready" and not env:
            tail = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            why = f"{said or ' '.join(tail) or 'no word'}"
            raise MeshError(f"{self.name} did not come up in life {self.lives}: {why}")
        return dict(said)

    async def kill(self) -> None:
        """End it as a loss of power would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            await self.gone()

    async def freeze(self, for_s: float) -> None:
        """Stop its process in its tracks, and let it go on after that."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        with trio.CancelScope(shield=True):
            await trio.sleep(for_s)
            self.process.send_signal(signal.SIGCONT)

    async def gone(self) -> int:
        """Wait until it has died; return how."""
        process, self.process = self.process, None
        if process is None:
            return 0
        status = await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()
        return status

    async def stop(self) -> None:
        """End it in order, or not, if that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        with trio.move_on_after(_STOP_S):
            await self.gone()
        await self.kill()

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and answer of its HTTP interface, as soon as it has one.

        Raises:
            TooSlowError: By the caller's own deadline only.
        """
        while True:
            try:
                running = read_running(self.seen / HTTP_FILE)
                if running is not None:
                    token = (self.seen / "token").read_text("ascii").strip()
                    async with httpx.AsyncClient(timeout=_ANSWER_S) as client:
                        answer = await client.request(
                            method,
                            f"{running['url']}{path}",
                            json=body,
                            headers={"Authorization": f"Bearer {token}"},
                        )
                    return answer.status_code, answer.json()
            except (OSError, ConfigError, ValueError, httpx.HTTPError):
                pass  # it is down, or died while it answered
            await trio.sleep(_AGAIN_S)


@dataclass(slots=True)
class RealMesh:
    """A seed, brokers and contractors.

    Attributes:
        seed: Who the others join.
        desks: Nodes without agents, which broker.
        workers: Nodes with one.
        standbys: Nodes that stand by for the jobs of others.
    """

    seed: Place
    desks: list[Place] = field(default_factory=list)
    workers: list[Place] = field(default_factory=list)
    standbys: list[Place] = field(default_factory=list)

    @property
    def places(self) -> list[Place]:
        """All of them."""
        return [self.seed, *self.desks, *self.standbys, *self.workers]

    @property
    def brokers(self) -> list[Place]:
        """Those who may be a job's broker."""
        return [*self.desks, *self.standbys]


@asynccontextmanager
async def real_mesh(
    folder: Path,
    *,
    desks: int,
    workers: int,
    standbys: int = 2,
    work_s: float = 0.1,
    disk_bytes: int = 0,
) -> AsyncIterator[RealMesh]:
    """Run a mesh under ``folder`` for as long as the context lasts.

    Args:
        folder: An empty one.
        desks: How many there are, as are the others.
        workers: See there.
        standbys: See there.
        work_s: How long a contractor takes for one call.
        disk_bytes: Of each desk's own disk; 0 for none.

    Raises:
        MeshError: A node does not come up.
    """
    seed = Place("seed", folder / "seed", ("bootstrap", "--json", *_listen()))
    mesh = RealMesh(seed)
    try:
        invite = str((await seed.start())["invite"])
        join = ("up", "--json", "--join", invite)
        for number in range(desks):
            name = f"desk{number}"
            args = (*join, *_listen())
            mesh.desks.append(Place(name, folder / name, args, disk_bytes=disk_bytes))
        for number in range(standbys):
            name = f"standby{number}"
            mesh.standbys.append(Place(name, folder / name, (*join, *_listen()), _STANDBY))
        for number in range(workers):
            name = f"worker{number}"
            hosting = (*join, *_listen(), "--function", _FUNCTION)
            settings = (*_SETTINGS, (WORK, str(work_s)))
            mesh.workers.append(Place(name, folder / name, hosting, settings))
        async with trio.open_nursery() as nursery:
            for place in (*mesh.brokers, *mesh.workers):
                nursery.start_soon(place.start)
        yield mesh
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for place in mesh.places:
                    nursery.start_soon(place.stop)


def _listen() -> tuple[str, str]:
    """Return the option for a port that is free, and stays so while its node is down.

    The system gives none of these to whoever dials, as it does with those from 32,768 on.
    """
    while True:
        port = randrange(*_PORTS)  # noqa: S311 - no secret
        with suppress(OSError), create_server(("127.0.0.1", port)):
            return "--listen", f"/ip4/127.0.0.1/tcp/{port}"
