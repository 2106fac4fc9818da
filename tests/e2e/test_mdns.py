"""Two nodes that were told nothing of each other meet on the local network (loopback here)."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import MESHNODE, NodeProcess, running


def count(node: NodeProcess, number: int) -> list[str]:
    """Return the nodes whose agents ``node`` knows, once there are ``number`` agents."""
    home = str(node.home / "home")
    done = subprocess.run(
        [*MESHNODE, "agents", "--home", home, "--count", str(number), "--wait", "40", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [agent["peer"] for agent in json.loads(done.stdout)["agents"]]


def test_nodes_meet_and_those_of_another_mesh_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHNODE_DIRECTORY__MDNS_INTERFACES", "127.0.0.1")
    sentiment = ("up", "--mdns", "--with", "sentiment")
    with (
        running(tmp_path / "other", *sentiment, "--network", "other") as other,
        running(tmp_path / "one", *sentiment) as one,
        running(tmp_path / "two", "up", "--mdns") as two,
    ):
        assert count(two, 1) == [one.peer]
        assert two.peer in one.api("GET", "/api/node").json()["connected"]
        assert other.api("GET", "/api/node").json()["connected"] == []
