"""A broker that is killed mid-job goes on from its journal when it is started again."""

import json
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from meshnode.domain.provenance import verify_provenance
from tests.e2e.processes import MESHNODE, NodeProcess, await_ready, mesh, start

CODE = "import subprocess\n\n\ndef run(x):\n    subprocess.call(x, shell=True)\n"
GRAPH = {
    "name": "audits",
    "subtasks": {
        "audits": {
            "capability": "code.security_audit@1",
            "each": ["path", "text"],
            "inputs": {"path": "@files/*/path", "text": "@files/*/text"},
            "batch_items_max": 2,
        }
    },
    "outputs": {"audits": "audits"},
}


def follow(desk: NodeProcess, job: str, kind: str) -> None:
    """Read the job's events until one is of ``kind``."""
    token = Path(desk.ready["token_file"]).read_text("ascii").strip()
    seen = []
    with httpx.stream(
        "GET",
        f"{desk.ready['http']}/api/jobs/{job}/events?follow=1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=90,
    ) as response:
        for line in response.iter_lines():
            seen.append(line)
            if f'"kind":"{kind}"' in line.replace(" ", ""):
                return
    raise AssertionError(f"no {kind} event among {seen[-5:]}")


@pytest.mark.parametrize("point", ["before:job.charged#3", "after:job.awarded#5"])
def test_a_broker_that_dies_where_it_was_told_goes_on(tmp_path: Path, point: str) -> None:
    home = tmp_path / "desk"
    with mesh(tmp_path, [("--with", "security_audit")] * 2) as (seed, *_), ExitStack() as stack:
        doomed = {"MESHNODE_CRASH_AT": point}
        first = stack.enter_context(start(home, "up", "--join", seed.invite, env=doomed))
        desk = await_ready(first, home)
        desk.api("GET", "/api/agents", params={"capability": "code.security_audit"})
        files = [{"path": f"f{n}.py", "text": f"{CODE}\n# {n}\n"} for n in range(24)]
        body = {"graph": GRAPH, "inputs": {"files": files}, "deadline_s": 120}
        job = desk.api("POST", "/api/jobs", json=body).json()["job"]
        assert first.wait(60) == -signal.SIGKILL
        assert f"dies {point}" in (home / "stderr.txt").read_text()

        again = stack.enter_context(start(home, "up", "--join", seed.invite))
        desk = await_ready(again, home)
        follow(desk, job, "done")
        status = desk.api("GET", f"/api/jobs/{job}").json()
        assert status["state"] == "completed", status["error"]
        proved = verify_provenance(desk.api("GET", f"/api/jobs/{job}/provenance").content)
        assert proved.cost_mc == 5 * len(files), "every file is charged once"


def test_a_crash_point_that_is_none_is_told(tmp_path: Path) -> None:
    with start(tmp_path, "up", env={"MESHNODE_CRASH_AT": "after:lunch"}) as process:
        assert process.wait(30) == 1
        assert process.stdout is not None
        told = process.stdout.read()
    assert "$MESHNODE_CRASH_AT: there is no crash point at 'lunch'" in told


def test_a_killed_broker_goes_on_with_its_job_after_a_restart(tmp_path: Path) -> None:
    auditors = [("--with", "security_audit")] * 2
    with mesh(tmp_path, [*auditors, ()]) as (seed, *_, killed), ExitStack() as stack:
        killed.api("GET", "/api/agents", params={"capability": "code.security_audit"})
        files = [{"path": f"f{n}.py", "text": f"{CODE}\n# {n}\n"} for n in range(24)]
        body = {"graph": GRAPH, "inputs": {"files": files}, "deadline_s": 120}
        job = killed.api("POST", "/api/jobs", json=body).json()["job"]
        follow(killed, job, "charged")
        at_home = ("--home", str(killed.home / "home"))
        told = stack.enter_context(
            subprocess.Popen(
                [*MESHNODE, "jobs", "events", job, "--follow", "--json", *at_home],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert told.stdout is not None
        first = told.stdout.readline()
        killed.kill()

        home = killed.home
        again = stack.enter_context(start(home, "up", "--join", seed.invite))
        desk = await_ready(again, home)
        before = {
            row["id"]: row["attempts"]
            for row in desk.api("GET", f"/api/jobs/{job}").json()["subtasks"]
            if row["state"] == "completed"
        }
        assert before, "the first charge was durable before it was told"
        follow(desk, job, "done")

        status = desk.api("GET", f"/api/jobs/{job}").json()
        assert status["state"] == "completed", status["error"]
        found = desk.api("GET", f"/api/jobs/{job}/outputs").json()["audits"]
        assert [audit["path"] for audit in found] == [file["path"] for file in files]
        proved = verify_provenance(desk.api("GET", f"/api/jobs/{job}/provenance").content)
        assert proved.cost_mc == 5 * len(files), "every file is charged once"
        after = {row["id"]: row["attempts"] for row in status["subtasks"]}
        assert {unit: after[unit] for unit in before} == before

        assert told.stderr is not None
        lines = [json.loads(line) for line in [first, *told.stdout]]
        seqs = [line["seq"] for line in lines if "seq" in line]
        assert seqs == [*range(seqs[-1] + 1)], "nothing is missing, and nothing told twice"
        assert lines[-1]["kind"] == "done"
        assert "the node is back; going on after event" in told.stderr.read()
        shown = subprocess.run(
            [*MESHNODE, "jobs", "explain", job, *at_home],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"Job {job} (audits) completed after" in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= 100
