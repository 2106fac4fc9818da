"""A node that is killed while a command works goes on from what the command had saved."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from meshnode.adapters.agents.agent_files import AgentFile, write_agent_file
from tests.e2e.processes import NodeProcess, await_ready, start

pytestmark = pytest.mark.timeout(120)

#: Saves half of its work and never does the other half, unless it finds the first.
COMMAND = """
import json, os, sys, time
path, node = os.environ["MESHNODE_CHECKPOINT"], os.getppid()
text = json.load(sys.stdin)["text"]
if os.path.exists(path):
    print(json.dumps(f"{text}: {open(path).read()} and the other"))
    sys.exit()
with open(path + ".new", "w") as file:
    file.write("one half")
os.replace(path + ".new", path)
while os.getppid() == node:
    time.sleep(0.01)
"""
TEXT = {"type": "string"}
GRAPH = {
    "subtasks": {"work": {"capability": "work.long@1", "inputs": {"text": {"value": "x"}}}},
    "outputs": {"made": "work"},
}


def hear(node: NodeProcess, path: str, name: str) -> None:
    """Follow lines of ``node`` until one tells of ``name``."""
    token = Path(node.ready["token_file"]).read_text("ascii").strip()
    with httpx.stream(
        "GET",
        f"{node.ready['http']}{path}?follow=1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    ) as response:
        for line in response.iter_lines():
            told = json.loads(line or "{}")
            if name in {told.get("event"), told.get("kind")}:
                return
    raise AssertionError(f"nothing was heard of {name}")


def test_a_command_goes_on_from_its_file_after_its_node_was_killed(tmp_path: Path) -> None:
    agent = AgentFile(
        kind="command",
        name="long",
        capability="work.long@1",
        command=[sys.executable, "-c", COMMAND],
        input_schema={"type": "object", "properties": {"text": TEXT}, "required": ["text"]},
        output_schema=TEXT,
    )
    write_agent_file(tmp_path / "home", agent)
    with start(tmp_path, "up") as process:
        node = await_ready(process, tmp_path)
        job = node.api("POST", "/api/jobs", json={"graph": GRAPH}).json()["job"]
        hear(node, "/api/events", "award.saved")
        node.kill()
    with start(tmp_path, "up") as process:
        node = await_ready(process, tmp_path)
        hear(node, f"/api/jobs/{job}/events", "done")
        made = node.api("GET", f"/api/jobs/{job}/outputs").json()
        assert made == {"made": "x: one half and the other"}
        (row,) = node.api("GET", f"/api/jobs/{job}").json()["subtasks"]
        assert row["attempts"] == [], "the award is the same"
