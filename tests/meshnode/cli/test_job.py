"""What ``ask`` shows of a job is what its node says; ``verify`` believes only signatures."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from meshnode.cli.client import NodeClient
from meshnode.cli.failure import CommandFailed
from meshnode.cli.progress import SUPERSEDED, Progress
from protocol.errors import BadSignature
from tests.meshnode.cli.commands import run
from tests.meshnode.gateway.api_nodes import GRAPH, open_desk

FLIPS = 60


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """A finished job: its view, its events, its provenance."""

    async def play() -> dict[str, Any]:
        async with open_desk() as desk:
            name = await desk.submit()
            view = await desk.ended(name)
            events = (await desk.http.get(f"/api/jobs/{name}/events")).text.splitlines()
            provenance = (await desk.http.get(f"/api/jobs/{name}/provenance")).content
            return {"view": view, "events": events, "provenance": provenance}

    return trio.run(play, clock=MockClock(autojump_threshold=0))


def test_events_add_up_to_what_the_node_says_at_the_end(job: dict[str, Any]) -> None:
    progress = Progress()
    for line in job["events"]:
        progress.take(json.loads(line))
    assert progress.ended == job["view"]["state"] == "completed"
    rows = {str(row[0]): row for row in progress.rows()}
    assert list(rows) == list(GRAPH["subtasks"])
    for name, row in rows.items():
        units = [unit for unit in job["view"]["subtasks"] if unit["subtask"] == name]
        items = sum(unit["items"] for unit in units)
        assert row[2:4] == ("completed", f"{items}/{items}")
        assert row[4] == units[0]["node"][-8:]
        assert row[5:] == ("unverified", sum(unit["cost_mc"] for unit in units))


def test_progress_between_events_counts_and_a_failed_try_starts_again() -> None:
    progress = Progress()
    base = {"seq": 0, "at_ms": 0, "unit": "a/0", "attempt": 0, "peer": "p"}
    for line in (
        {**base, "kind": "planned", "subtasks": [{"id": "a", "capability": "c@1"}]},
        {**base, "kind": "expanded", "subtask": "a", "sizes": [4]},
        {**base, "kind": "awarded"},
        {"progress": {"fields": {"unit": "a/0", "items_done": 3, "text": "busy"}}},
    ):
        progress.take(line)
    assert progress.rows() == [("a", "c@1", "running", "3/4", "p", "", 0)]
    assert progress.note == "a/0: busy"
    progress.take({**base, "seq": 4, "kind": "failed", "text": "died"})
    assert progress.rows()[0][2:4] == ("waiting", "0/4")
    assert progress.note == "a/0 at p: died"


def test_of_two_that_were_given_the_same_the_one_that_was_paid_is_shown() -> None:
    progress = Progress()
    base = {"seq": 0, "at_ms": 0, "unit": "a/0", "attempt": 0, "peer": "quick"}
    for line in (
        {**base, "kind": "planned", "subtasks": [{"id": "a", "capability": "c@1"}]},
        {**base, "kind": "expanded", "subtask": "a", "sizes": [4]},
        {**base, "kind": "awarded"},
        {**base, "kind": "awarded", "attempt": 1, "peer": "slow"},
        {**base, "kind": "delivered"},
        {**base, "kind": "verified", "verdict": "verified"},
        {**base, "kind": "charged", "paid_mc": 5},
        {**base, "kind": "failed", "attempt": 1, "code": SUPERSEDED, "text": "outrun"},
    ):
        progress.take(line)
    assert progress.rows() == [("a", "c@1", "completed", "4/4", "quick", "verified", 5)]


@pytest.fixture
def journal(job: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "provenance.journal"
    path.write_bytes(job["provenance"])
    return path


def test_verify_shows_each_unit_and_what_was_proved(
    capsys: pytest.CaptureFixture[str], journal: Path, job: dict[str, Any]
) -> None:
    said = run(capsys, "verify", str(journal))
    assert said.status == 0
    for unit in job["view"]["subtasks"]:
        assert unit["id"] in said.out
    assert f"proved: job {job['view']['job']}" in said.out
    told = run(capsys, "verify", str(journal), "--json").line()
    assert told["state"] == "completed"
    assert [row["id"] for row in told["subtasks"]] == [
        row["id"] for row in job["view"]["subtasks"]
    ]
    assert {row["output"] for row in told["subtasks"]} == {
        row["output"] for row in job["view"]["subtasks"]
    }


@pytest.mark.parametrize("how", ["flipped", "cut", "added", "missing"])
def test_verify_refuses_whatever_was_changed(
    capsys: pytest.CaptureFixture[str], journal: Path, how: str
) -> None:
    whole = journal.read_bytes()
    rng = Random(how)
    for _ in range(FLIPS if how == "flipped" else 5):
        at = rng.randrange(len(whole))
        changed = {
            "flipped": whole[:at]
            + bytes([whole[at] ^ 1 << rng.randrange(8)])
            + whole[at + 1 :],
            "cut": whole[:at],
            "added": whole + bytes([rng.randrange(256)]),
            "missing": whole[:at] + whole[at + 1 :],
        }[how]
        journal.write_bytes(changed)
        said = run(capsys, "verify", str(journal), "--json")
        assert said.status == 1, f"byte {at}"
        assert said.line()["error"]["code"] == "provenance.refused", f"byte {at}"


def test_verify_names_the_event_that_does_not_hold(
    capsys: pytest.CaptureFixture[str], journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Changed bytes never get as far as the events: their chain and head are signed.  What
    # is left to a lying broker is to sign a story whose receipts don't hold.
    monkeypatch.setattr("meshnode.domain.audit.check_receipt", _refuse)
    said = run(capsys, "verify", str(journal))
    assert said.status == 1
    assert re.search(r"event \d+ \(\w+\): not the contractor's", said.err)


def _refuse(*_: object, **__: object) -> None:
    raise BadSignature("not the contractor's")


# --- what answers ---------------------------------------------------------------------


def client(answer: httpx.Response | Exception) -> NodeClient:
    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return NodeClient(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1"))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.ConnectError("refused"), "cli.no_node"),
        (httpx.ReadTimeout(""), "cli.no_node"),
        (httpx.Response(200, text="<html>"), "cli.no_node"),
        (httpx.Response(404, text="<html>"), "cli.no_node"),
        (httpx.Response(500, json=[]), "cli.no_node"),
        (
            httpx.Response(401, json={"error": {"code": "http.unauthorized"}}),
            "http.unauthorized",
        ),
    ],
)
async def test_what_is_no_answer_of_a_node_is_told(
    answer: httpx.Response | Exception, code: str
) -> None:
    with pytest.raises(CommandFailed) as caught:
        await client(answer).call("GET", "/api/node")
    assert caught.value.told == code


async def test_a_stream_that_breaks_off_is_told_after_what_came() -> None:
    lines = client(httpx.Response(200, text='{"seq": 0}\n\n{"seq')).lines("/x")
    assert await anext(lines) == {"seq": 0}
    with pytest.raises(CommandFailed) as caught:
        await anext(lines)
    assert caught.value.told == "http.cut"
