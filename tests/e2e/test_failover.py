"""A job whose broker is killed is finished by a standby, and its owner has it on return."""

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import trio

from meshnode.domain.provenance import verify_provenance
from tests.e2e.processes import MESHNODE, ROOT, NodeProcess, await_ready, mesh, start
from tests.e2e.test_restart import follow

AGENTS = '''
"""An agent that takes its time, and writes down whom it worked for."""

import os

import trio

from meshnode.adapters.agents.function import agent


@agent(capability="text.shouting@1", price_mc=3, timeout_s=60.0)
async def shout(text: str) -> str:
    """Return the text in capitals, after a while."""
    with open(os.environ["SHOUTED"], "a", encoding="utf-8") as log:
        log.write(text + "\\n")
    await trio.sleep(1.0)
    return text.upper()
'''
GRAPH = {
    "name": "shouts",
    "subtasks": {
        "shouts": {
            "capability": "text.shouting@1",
            "each": ["text"],
            "inputs": {"text": "@words"},
            "batch_items_max": 1,
        }
    },
    "outputs": {"shouts": "shouts"},
}
WORDS = [f"word {n}" for n in range(20)]


async def finished_by(nodes: list[NodeProcess], job: str) -> NodeProcess:
    """Wait until one of ``nodes`` has finished ``job``; return it."""
    with trio.fail_after(120):
        while True:
            for node in nodes:
                listed = node.api("GET", "/api/jobs").json()["jobs"]
                if any(row["job"] == job and row["state"] == "completed" for row in listed):
                    return node
            await trio.sleep(0.2)


def test_a_standby_finishes_the_job_of_a_killed_broker(tmp_path: Path) -> None:
    (tmp_path / "shouting.py").write_text(AGENTS, "utf-8")
    log = tmp_path / "shouted.txt"
    log.touch()
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "SHOUTED": str(log)}
    standby = {"MESHNODE_STANDBY__ENABLED": "true"}
    with mesh(tmp_path, []) as (seed,), ExitStack() as stack:

        def begin(name: str, *args: str, env: dict[str, str]) -> NodeProcess:
            home = tmp_path / name
            up = ("up", "--join", seed.invite, *args)
            return await_ready(stack.enter_context(start(home, *up, env=env)), home)

        workers = ("--function", "shouting:shout")
        for n in range(2):
            begin(f"worker-{n}", *workers, env=env)
        standbys = [begin(f"standby-{n}", env=standby) for n in range(2)]
        desk = begin("desk", env={})
        desk.api("GET", "/api/agents", params={"capability": "text.shouting"})
        body = {
            "graph": GRAPH,
            "inputs": {"words": WORDS},
            "deadline_s": 300,
            "hedges_pct": 0,  # which do things twice on purpose
            "standbys": [node.peer for node in standbys],
        }
        job = desk.api("POST", "/api/jobs", json=body).json()["job"]
        follow(desk, job, "charged")
        desk.kill()

        heir = trio.run(finished_by, standbys, job)
        told = heir.api("GET", f"/api/jobs/{job}").json()
        assert (told["state"], told["owner"]) == ("completed", desk.peer)
        assert told["broker"] == heir.peer
        assert told["epoch"] >= 2, "both may stand at once on a busy machine"
        data = heir.api("GET", f"/api/jobs/{job}/provenance").content
        proved = verify_provenance(data)
        assert proved.brokers == (desk.peer, heir.peer)
        assert proved.cost_mc == 3 * len(WORDS), "every word is charged once"

        desk = begin("desk", env={})
        follow(desk, job, "done")
        made = desk.api("GET", f"/api/jobs/{job}/outputs").json()["shouts"]
        assert made == [word.upper() for word in WORDS]
        assert desk.api("GET", f"/api/jobs/{job}/provenance").content == data
        shouted = log.read_text("utf-8").splitlines()
        assert sorted(set(shouted)) == sorted(WORDS)
        assert len(shouted) == len(WORDS), "nothing that was being done is done twice"
        shown = subprocess.run(
            [*MESHNODE, "jobs", "show", job, "--home", str(desk.home / "home")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"its broker, number {told['epoch']}, is {heir.peer}" in shown.stdout
