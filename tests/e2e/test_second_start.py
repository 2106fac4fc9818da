"""One home, one node: whoever comes second is told who is there, and the first lives on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import MESHNODE, ROOT, NodeProcess, running

#: A program with a node of its own: it says who it is, and ends with standard input.
PROGRAM = """
import sys, trio
from meshnode import Node
from meshnode.config import NodeConfig
from meshnode.errors import MeshError

async def main():
    try:
        async with Node.open(NodeConfig(home=sys.argv[1])) as node:
            print(node.peer, flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
    except MeshError as error:
        print("error:", error.line(), file=sys.stderr)
        sys.exit(1)

trio.run(main)
"""
NAP = """
import trio
from meshnode import agent

@agent(capability="test.sleeping@1", timeout_s=300.0)
async def sleep(seconds: float) -> str:
    \"\"\"Sleep for a while.\"\"\"
    await trio.sleep(seconds)
    return "slept"
"""
GRAPH = """
[subtasks.nap]
capability = "test.sleeping@1"
inputs.seconds = { value = 100 }
[outputs]
nap = "nap"
"""


def starting(way: str, home: Path) -> list[str]:
    """Return the command that starts a node at ``home``."""
    if way == "program":
        return [sys.executable, "-c", PROGRAM, str(home)]
    return [*MESHNODE, way, "--home", str(home), "--json"]


def refused(way: str, home: Path, holder: int) -> None:
    second = subprocess.run(
        starting(way, home), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1, second.stdout
    told = second.stdout + second.stderr
    assert f"{home}/node.db is in use by another node (process {holder})" in told
    assert f"meshnode down --home {home}" in told
    assert "Traceback" not in told


@contextmanager
def holding(way: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        starting(way, home),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip()
        yield process
    finally:
        if way == "program":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
        process.stdin.close()


@pytest.mark.parametrize("first", ["up", "bootstrap", "program"])
def test_a_second_node_at_a_home_is_refused_and_the_first_lives_on(
    first: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with holding(first, home) as process:
        for second in ("up", "bootstrap", "program"):
            refused(second, home, process.pid)
        assert process.poll() is None
    assert process.returncode == 0
    with holding("program", home):
        pass  # it is free again


def nap(node: NodeProcess, folder: Path) -> subprocess.Popen[str]:
    """Have the node nap, as its own asker; it is at it when this returns."""
    (folder / "nap.toml").write_text(GRAPH)
    asking = subprocess.Popen(
        [*MESHNODE, "ask", "--home", str(node.home / "home"), "--graph", folder / "nap.toml"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    token = Path(node.ready["token_file"]).read_text("ascii").strip()
    with httpx.stream(
        "GET",
        node.ready["http"] + "/api/events",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    ) as events:
        lines = (json.loads(line) for line in events.iter_lines() if line)
        assert any(line["event"] == "award.begun" for line in lines)
    return asking


def test_a_node_that_drains_holds_its_home_and_says_what_it_waits_for(tmp_path: Path) -> None:
    (tmp_path / "napping.py").write_text(NAP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
        patch.setenv("MESHNODE_DRAIN_S", "20")
        with running(tmp_path, "up", "--function", "napping:sleep") as node:
            home = node.home / "home"
            asking = nap(node, tmp_path)
            down = subprocess.Popen(
                [*MESHNODE, "down", "--home", str(home)], stderr=subprocess.PIPE, text=True
            )
            assert down.stderr is not None
            said = down.stderr.readline()
            assert "waits for 1 award in work" in said
            assert "--now" in said
            refused("up", home, node.process.pid)
            assert down.wait(60) == 0
            down.stderr.close()
            assert node.process.wait(30) == 0
            asking.kill()
            asking.wait()
