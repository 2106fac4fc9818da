"""What the owner says and sees through the node's API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.domain.graph_files import graph_of
from tests.meshnode.gateway.api_nodes import Desk, open_desk

#: The desk does it for the worker.
JOINING: dict[str, Any] = {
    "name": "joining",
    "subtasks": {"join": {"capability": "text.join@1", "inputs": {"texts": "@words"}}},
    "outputs": {"joined": "join"},
}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def ask_desk(desk: Desk) -> str:
    """Have the worker's job done by the desk; return how it ended."""
    graph = graph_of(JOINING, where="test")
    state = await desk.worker.wait(await desk.worker.submit(graph, {"words": ["a", "b"]}))
    assert state.done is not None
    await trio.sleep(1)  # until the broker's half of the receipt is there
    return state.done.code or state.done.state


async def test_a_pause_is_told_until_it_is_ended(autojump_clock: MockClock, desk: Desk) -> None:
    assert (await desk.http.get("/api/node")).json()["paused"] is None
    told = (await desk.http.post("/api/pause", json={"for_s": 7_200})).json()
    assert told["working"] == 0
    assert told["paused"]["until_ms"] - told["paused"]["since_ms"] == 7_200_000
    node = (await desk.http.get("/api/node")).json()
    assert node["paused"] == told["paused"]
    assert node["closed"]["reason"] == "paused"
    assert (await desk.http.post("/api/resume")).json() == {"was_paused": True}
    node = (await desk.http.get("/api/node")).json()
    assert (node["paused"], node["closed"]) == (None, None)
    assert (await desk.http.post("/api/resume")).json() == {"was_paused": False}


async def test_a_pause_without_an_end_has_none(autojump_clock: MockClock, desk: Desk) -> None:
    told = (await desk.http.post("/api/pause")).json()
    assert told["paused"]["until_ms"] is None


@pytest.mark.parametrize(
    "body", [{"for_s": 0}, {"for_s": -1}, {"for_s": 1e12}, {"for_s": "2h"}, {"for": 1}, [], 3]
)
async def test_what_is_no_pause_is_refused(
    autojump_clock: MockClock, desk: Desk, body: Any
) -> None:
    answer = await desk.http.post("/api/pause", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "request.invalid"
    assert (await desk.http.get("/api/node")).json()["paused"] is None


async def test_what_was_done_for_whom_is_told(autojump_clock: MockClock, desk: Desk) -> None:
    assert (await desk.http.get("/api/served")).json()["rows"] == []
    assert await ask_desk(desk) == "completed"
    told = (await desk.http.get("/api/served?since_s=3600")).json()
    (row,) = told["rows"]
    assert (row["caller"], row["capability"]) == (desk.worker.peer, "text.join@1")
    assert (row["awarded"], row["calls"], row["finished"], row["earned_mc"]) == (1, 1, 1, 1)
    assert told["total"]["earned_mc"] == 1
    assert told["quotas"] == []
    answer = await desk.http.get("/api/served?since_s=yesterday")
    assert answer.status_code == 400
