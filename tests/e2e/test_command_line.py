"""The command line with real processes: a seed, a node that works, a node that asks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshnode.domain.provenance import verify_provenance
from tests.e2e.processes import MESHNODE, ROOT, NodeProcess, mesh, running

AGENTS = '''"""Agents of this test."""

from collections.abc import AsyncIterator

import trio

from meshnode.adapters.agents.function import agent


@agent(capability="text.shouting@1", price_mc=3)
def shout(text: str) -> str:
    """Return the text in capitals."""
    return text.upper()


@agent(capability="test.sleeping@1", timeout_s=300.0)
async def sleep(seconds: float) -> AsyncIterator[str]:
    """Sleep for a while."""
    yield "zzz"
    yield "zzz"  # a piece is passed on when the next has come
    await trio.sleep(seconds)
    yield "slept"
'''
GRAPH = """
name = "shouts"
[subtasks.shouts]
capability = "text.shouting@1"
each = ["text"]
inputs.text = "@files/*/text"
[outputs]
shouts = "shouts"
"""
SLEEP = """
[subtasks.nap]
capability = "test.sleeping@1"
inputs.seconds = { value = SECONDS }
[outputs]
nap = "nap"
"""


def command(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*MESHNODE, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """The one line of JSON that a command printed."""
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command failed with."""
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
    return line


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "shouting.py").write_text(AGENTS)
    (folder / "graph.toml").write_text(GRAPH)
    (folder / "nap.toml").write_text(SLEEP.replace("SECONDS", "200"))
    (folder / "wrong.toml").write_text(SLEEP.replace("SECONDS", '"long"'))
    (folder / "unknown.toml").write_text(GRAPH.replace("shouting", "shoutin"))
    (folder / "a.md").write_text("hello")
    (folder / "b.md").write_text("world")
    return folder


@pytest.fixture(scope="module")
def nodes(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[NodeProcess]]:
    hosted = ["--function", "shouting:shout", "--function", "shouting:sleep"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{files}")
        with mesh(tmp_path_factory.mktemp("mesh"), [hosted, []]) as members:
            yield members


def at(node: NodeProcess) -> tuple[str, str]:
    return "--home", str(node.home / "home")


def test_agents_of_the_mesh_are_listed(nodes: list[NodeProcess]) -> None:
    desk = nodes[-1]
    done = command("agents", *at(desk), "--count", "2", "--wait", "30", "--json")
    rows = {row["capability"]: row for row in told(done)["agents"]}
    assert set(rows) == {"text.shouting@1", "test.sleeping@1"}
    assert rows["text.shouting@1"]["peer"] == nodes[1].peer
    shown = command("agents", *at(desk), "--capability", "text")
    assert "text.shouting@1" in shown.stdout
    assert "test.sleeping@1" not in shown.stdout


def test_a_graph_is_asked_for_done_and_verified(
    nodes: list[NodeProcess], files: Path, tmp_path: Path
) -> None:
    desk, out = nodes[-1], tmp_path / "out"
    ask = ["ask", *at(desk), "--graph", "graph.toml", "--file", "a.md", "--file", "b.md"]
    done = command(*ask, "--out", out, cwd=files)
    assert done.returncode == 0, done.stderr
    assert '["HELLO", "WORLD"]' in done.stdout
    assert "6 of 1000000 mc" in done.stdout
    journal = out / "provenance.journal"
    assert json.loads((out / "outputs.json").read_text()) == {"shouts": ["HELLO", "WORLD"]}
    proved = verify_provenance(journal.read_bytes())
    assert {row.peer for row in proved.rows} == {nodes[1].peer}

    again = told(command(*ask, "--key", "k", "--json", cwd=files))
    assert again["outputs"] == {"shouts": ["HELLO", "WORLD"]}
    same = told(command(*ask, "--key", "k", "--json", cwd=files))
    assert same["job"] == again["job"] != proved.job

    assert command("verify", journal).returncode == 0


def test_a_goal_in_words_is_planned_shown_and_done(
    nodes: list[NodeProcess], files: Path
) -> None:
    desk = nodes[-1]
    command("agents", *at(desk), "--count", "2", "--wait", "30", "--json")
    goal = ("ask", *at(desk), "Put this text in capitals, shouting", "--file", "a.md")
    shown = command(*goal, "--file", "b.md", "--plan", cwd=files)
    assert shown.returncode == 0, shown.stderr
    assert "shouting: text.shouting@1  (once for each file)" in shown.stdout
    assert "cost about 6 mc" in shown.stdout
    plan = told(command(*goal, "--plan", "--json", cwd=files))
    assert (plan["by_meaning"], plan["missing"], plan["cost_mc"]) == (True, [], 3)
    done = told(command(*goal, "--json", cwd=files))
    assert (done["outputs"], done["cost_mc"]) == ({"shouting": "HELLO"}, 3)
    wrong = refusal(command("ask", *at(desk), "Paint the fence"))
    assert "nothing here can serve 'Paint the fence'" in wrong
    assert "text.shouting@1" in wrong, "the nearest are named"
    vague = refusal(command("ask", *at(desk), "Shouting, in capitals"))
    assert "--input 'text=" in vague
    (nearest, *_) = told(command("agents", *at(desk), "--near", "say it LOUD", "--json"))[
        "agents"
    ]
    assert nearest["capability"] == "text.shouting@1"


def test_jobs_are_listed_shown_and_read_again(
    nodes: list[NodeProcess], files: Path, tmp_path: Path
) -> None:
    desk = nodes[-1]
    ask = ("ask", *at(desk), "--graph", "graph.toml", "--file", "a.md", "--json")
    job = told(command(*ask, cwd=files))["job"]
    (newest, *_) = told(command("jobs", "list", *at(desk), "--json"))["jobs"]
    assert (newest["job"], newest["name"]) == (job, "shouts")
    assert (newest["state"], newest["cost_mc"], newest["ended"]) == ("completed", 3, True)
    listed = command("jobs", "list", *at(desk)).stdout
    (line,) = [line for line in listed.splitlines() if job in line]
    assert line.split()[-3:-1] == ["completed", "3"]
    shown = command("jobs", "show", job[:10], *at(desk))
    assert f"job {job} completed: 3 of" in shown.stdout
    assert told(command("jobs", "outputs", job, *at(desk))) == {"shouts": ["HELLO"]}
    command("jobs", "outputs", job, *at(desk), "--out", tmp_path / "out")
    assert command("verify", tmp_path / "out" / "provenance.journal").returncode == 0
    assert "nothing to cancel" in refusal(command("jobs", "cancel", job, *at(desk)))
    assert "there is no job 'zz'" in refusal(command("jobs", "show", "zz", *at(desk)))
    assert "there is no job" in refusal(command("jobs", "show", "f" * 20, *at(desk)))


def test_an_owner_pauses_resumes_and_sees_who_was_served(
    nodes: list[NodeProcess], files: Path
) -> None:
    worker, desk = nodes[1], nodes[-1]
    ask = ("ask", *at(desk), "--graph", "graph.toml", "--file", "a.md")
    assert command(*ask, cwd=files).returncode == 0
    paused = command("pause", "--for", "2h", "--drain", *at(worker))
    assert paused.stdout.startswith("paused until 20")
    assert "paused this node until" in command("node", *at(worker)).stdout
    assert "its owner has paused this node until" in refusal(command(*ask, cwd=files))
    assert told(command("resume", *at(worker), "--json")) == {"was_paused": True}
    assert "it was not paused" in command("resume", *at(worker)).stdout
    assert "others   welcome" in command("node", *at(worker)).stdout
    assert command(*ask, cwd=files).returncode == 0, "it is heard of at once"

    served = told(command("served", *at(worker), "--since", "7d", "--json"))
    rows = {row["capability"]: row for row in served["rows"]}
    row = rows["text.shouting@1"]
    assert (row["caller"], row["standing"]) == (desk.peer, "member")
    assert row["calls"] >= row["finished"] >= 2
    assert row["refused"]["paused"] >= 1
    shown = command("served", *at(worker)).stdout
    assert "text.shouting@1" in shown
    assert "paused" in shown
    assert "'soon' is no span of time" in refusal(
        command("pause", "--for", "soon", *at(worker))
    )


def test_owners_write_to_each_other(nodes: list[NodeProcess], tmp_path: Path) -> None:
    worker, desk = nodes[1], nodes[-1]
    (tmp_path / "notes.bin").write_bytes(b"\xff\x00 notes")
    send = ("inbox", "send", worker.peer[-8:])
    first = command(*send, "Shall we share it?", "--subject", "the GPU", *at(desk))
    assert "is on its way" in first.stdout, first.stderr
    sent = told(command(*send, "--file", tmp_path / "notes.bin", *at(desk), "--json"))
    shown = ""
    for _ in range(60):  # a command takes its time
        shown = command("inbox", "sent", *at(desk)).stdout
        if "waiting" not in shown:
            break
    else:
        pytest.fail(shown)
    assert shown.count("delivered") == 2

    listed = told(command("inbox", *at(worker), "--json"))
    assert listed["unread"] == 2
    (one,) = [row["id"] for row in listed["letters"] if row["subject"] == "the GPU"]
    shown = command("inbox", "show", one[:10], *at(worker)).stdout
    assert f"from: {desk.peer}" in shown
    assert shown.endswith("Shall we share it?\n")
    out = tmp_path / "out.bin"
    command("inbox", "show", sent["id"], "--out", out, *at(worker))
    assert out.read_bytes() == b"\xff\x00 notes"
    assert told(command("inbox", *at(worker), "--json"))["unread"] == 0
    assert "is deleted" in command("inbox", "delete", one[:10], *at(worker)).stdout
    assert "there is no letter" in refusal(command("inbox", "show", one, *at(worker)))
    assert "there is no peer 'nobody'" in refusal(
        command("inbox", "send", "nobody", "hello", *at(desk))
    )


def test_a_graph_that_can_not_be_done_is_refused_naming_the_thing(
    nodes: list[NodeProcess], files: Path
) -> None:
    def ask(graph: str, *more: str) -> str:
        arguments = ("ask", *at(nodes[-1]), "--graph", graph, *more)
        return refusal(command(*arguments, cwd=files))

    unknown = ask("unknown.toml", "--file", "a.md")
    assert "nobody reachable offers text.shoutin@1" in unknown
    assert "text.shouting@1" in unknown, "the nearest is named"
    assert "sub-task 'nap'" in ask("wrong.toml")
    assert "'files', which is not given" in ask("graph.toml")


@contextmanager
def asking(desk: NodeProcess, graph: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``ask --json``; its agent is at it when this gives process and job."""
    earlier = {job["job"] for job in desk.api("GET", "/api/jobs").json()["jobs"]}
    token = Path(desk.ready["token_file"]).read_text("ascii").strip()
    headers = {"Authorization": f"Bearer {token}"}
    url = desk.ready["http"] + "/api/events"
    with httpx.stream("GET", url, headers=headers, timeout=60) as events:
        process = subprocess.Popen(
            [*MESHNODE, "ask", *map(str, at(desk)), "--graph", str(graph), "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        heard = (json.loads(line) for line in events.iter_lines() if line)
        begun = (one["fields"]["job"] for one in heard if one["event"] == "award.progress")
        job = next(job for job in begun if job not in earlier)
    try:
        yield process, job
    finally:
        process.kill()
        process.communicate()


def test_interrupting_ask_cancels_the_job(nodes: list[NodeProcess], files: Path) -> None:
    desk = nodes[-1]
    with asking(desk, files / "nap.toml") as (process, job):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert json.loads(out)["state"] == "cancelled"
    assert desk.api("GET", f"/api/jobs/{job}").json()["state"] == "cancelled"


def test_places_that_are_taken_are_named(nodes: list[NodeProcess], tmp_path: Path) -> None:
    desk = nodes[-1]
    port = desk.address.split("/")[4]
    taken = f"/ip4/127.0.0.1/tcp/{port}"
    assert port in refusal(command("up", "--home", tmp_path / "x", "--listen", taken))
    place = desk.ready["http"].removeprefix("http://")
    in_use = refusal(command("up", "--home", tmp_path / "y", "--http", place))
    assert f"{place} is in use" in in_use
    assert str(desk.home / "home") in refusal(command("up", *at(desk))), "the home is taken"
    assert desk.api("GET", "/api/node").json()["peer_id"] == desk.peer, "and it lives on"


def test_a_wrong_token_or_url_is_told(nodes: list[NodeProcess], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 43)
    token.chmod(0o600)
    url = ("--url", nodes[-1].ready["http"], "--token-file", token)
    assert "token is missing or wrong" in refusal(command("agents", *url))
    nobody = ("--url", "http://127.0.0.1:9", "--token-file", token)
    assert "no node answers at http://127.0.0.1:9" in refusal(command("agents", *nobody))


def test_a_node_is_told_when_nobody_is_there_or_when_it_is_a_stranger(tmp_path: Path) -> None:
    with running(tmp_path / "a", "up") as founder:
        with running(tmp_path / "b", "up", "--join", founder.address) as stranger:
            note = stranger.ready["note"]
            assert f"this node is no member of the mesh of {founder.peer}" in note
        founder.kill()
        up = command("up", "--home", tmp_path / "c", "--join", founder.address, "--detach")
        try:
            assert f"note    nobody has answered at {founder.address} yet" in up.stdout
        finally:
            command("down", "--home", tmp_path / "c")


def test_a_killed_node_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    with running(tmp_path, "up") as node:
        home = node.home / "home"
        note = json.loads((home / "http.json").read_text())
        assert note == {
            "url": node.ready["http"],
            "peer_id": node.peer,
            "pid": node.process.pid,
            "drain_s": 30.0,
        }
        for name in ("http.json", "token"):
            assert (home / name).stat().st_mode & 0o777 == 0o600
        node.kill()
        assert (home / "http.json").exists()
        assert "no node runs" in refusal(command("agents", *at(node)))
        assert "no node runs" in refusal(command("down", *at(node)))


def test_a_seed_and_a_node_go_on_in_the_background_until_they_are_ended(
    tmp_path: Path,
) -> None:
    seeds = tmp_path / "seeds.txt"
    seed, home = tmp_path / "seed", tmp_path / "home"
    try:
        ready = told(
            command("bootstrap", "--home", seed, "--seeds", seeds, "--detach", "--json")
        )
        assert ready["addresses"][0] in seeds.read_text()
        up = told(command("up", "--home", home, "--join", f"@{seeds}", "--detach", "--json"))
        assert set(up) == {"event", "peer_id", "addresses", "http", "token_file"}
        assert Path(up["token_file"]).is_absolute()
        # Its port is taken now; why the second one fails comes through.
        taken = ("--listen", up["addresses"][0].partition("/p2p/")[0])
        refused = refusal(command("up", "--home", tmp_path / "x", *taken, "--detach"))
        assert taken[1].rpartition("/")[2] in refused
    finally:
        ended = command("down", "--home", home, "--home", seed)
    assert ended.returncode == 0, ended.stderr
    assert not (home / "http.json").exists()
    assert not (seed / "seed.json").exists()


def test_a_node_finishes_what_it_does_before_it_ends(files: Path, tmp_path: Path) -> None:
    (tmp_path / "nap.toml").write_text(SLEEP.replace("SECONDS", "3"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{files}")
        with mesh(tmp_path, [["--function", "shouting:sleep"], []]) as (_, worker, desk):
            assert command("agents", *at(desk), "--count", "1", "--wait", "30").returncode == 0
            with asking(desk, tmp_path / "nap.toml") as (process, _job):
                worker.process.terminate()
                out, _ = process.communicate(timeout=60)
            assert worker.process.wait(30) == 0
    ended = json.loads(out)
    assert ended["state"] == "completed", json.dumps(ended)
    assert ended["subtasks"][0]["attempts"] == [], "it was not given to another"


def test_a_second_signal_ends_a_node_at_once_and_its_asker_is_told(
    files: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{files}")
        with running(tmp_path, "up", "--function", "shouting:sleep") as node:
            with asking(node, files / "nap.toml") as (process, _job):
                began_s = os.times().elapsed
                assert command("down", *at(node), "--now").returncode == 0
                assert os.times().elapsed - began_s < 15, "a drain takes 30 s"
                out, _ = process.communicate(timeout=60)
            assert node.process.wait(30) == 0
    assert json.loads(out)["error"]["code"] == "cli.no_node"


def test_a_seed_runs_without_the_rest_of_the_command_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bootstrap", "--home", str(tmp_path), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["event"] == "ready"
    assert ready["addresses"][0].endswith(f"/p2p/{ready['peer_id']}")
    second = subprocess.run(
        [sys.executable, "-m", "bootstrap", "--home", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("error: ")
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()
