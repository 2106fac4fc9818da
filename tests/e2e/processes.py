"""Real ``meshnode`` processes on loopback, for tests of the whole."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

MESHNODE = [sys.executable, "-m", "meshnode"]
ROOT = Path(__file__).parents[2]


@dataclass
class NodeProcess:
    """A node that is up."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    home: Path

    @property
    def peer(self) -> str:
        return str(self.ready["peer_id"])

    @property
    def address(self) -> str:
        return str(self.ready["addresses"][0])

    @property
    def invite(self) -> str:
        """The invite that a seed hands out."""
        return str(self.ready["invite"])

    def api(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Ask its HTTP interface; the answer must be a success."""
        token = Path(self.ready["token_file"]).read_text("ascii").strip()
        response = httpx.request(
            method,
            self.ready["http"] + path,
            headers={"Authorization": f"Bearer {token}"},
            timeout=90,
            **kwargs,
        )
        assert response.is_success, response.text
        return response

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def running(home: Path, *args: str) -> Iterator[NodeProcess]:
    """Run ``meshnode ARGS --json --home HOME`` until the context ends."""
    with start(home, *args) as process:
        yield await_ready(process, home)


@contextmanager
def start(
    home: Path, *args: str, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[str]]:
    """Start a node without waiting for it, with ``env`` beside what is in the environment."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [*MESHNODE, *args, "--json", "--home", str(home / "home")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def await_ready(process: subprocess.Popen[str], home: Path) -> NodeProcess:
    """Wait for a node's ready line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (home / "stderr.txt").read_text()
    ready = json.loads(line)
    assert ready.get("event") == "ready", ready
    return NodeProcess(process, ready, home)


@contextmanager
def mesh(
    folder: Path, hosted: Sequence[Sequence[str]], *more: str
) -> Iterator[list[NodeProcess]]:
    """Run a seed and one node for each list of arguments; the seed comes first."""
    with ExitStack() as stack:
        seed = stack.enter_context(running(folder / "seed", "bootstrap"))
        starting = [
            (
                folder / f"node-{n}",
                stack.enter_context(
                    start(folder / f"node-{n}", "up", "--join", seed.invite, *args, *more)
                ),
            )
            for n, args in enumerate(hosted)
        ]
        yield [seed, *(await_ready(process, home) for home, process in starting)]
