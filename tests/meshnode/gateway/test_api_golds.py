"""Golds, as the node's API takes and tells them."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import GRAPH, INPUTS, Desk, open_desk

GOLDS = [{"inputs": {"text": word}, "output": word.upper()} for word in ("one", "two")]
BODY = {"capability": "text.upper@1", "golds": GOLDS, "like": {"kind": "normalised"}}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_golds_are_kept_told_and_removed(autojump_clock: MockClock, desk: Desk) -> None:
    answer = await desk.http.post("/api/golds", json=BODY)
    assert answer.status_code == 201
    names = answer.json()["golds"]
    (first, _) = sorted(
        (await desk.http.get("/api/golds?capability=text.upper@1")).json()["golds"],
        key=lambda gold: str(gold["output"]),
    )
    assert first["gold"] in names
    told = {name: first[name] for name in ("inputs", "output", "like", "origin", "given")}
    assert told == {
        "inputs": {"text": "one"},
        "output": "ONE",
        "like": "normalised",
        "origin": "owner",
        "given": 0,
    }
    assert (await desk.http.get("/api/golds?capability=text@1")).json() == {"golds": []}
    gone = (await desk.http.post(f"/api/golds/{names[0][:6]}/remove")).json()
    assert gone == {"removed": [names[0]]}
    assert (await desk.http.post("/api/golds/text.upper@1/remove")).json() == {
        "removed": [names[1]]
    }
    assert (await desk.http.post("/api/golds/text.upper@1/remove")).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"capability": "text.upper"},
        {"like": {"kind": "embedding"}},
        {"like": {"kind": "roughly"}},
        {"golds": [{"inputs": {"text": "x"}}]},
        {"golds": {}},
        {"gold": []},
    ],
)
async def test_what_is_no_gold_is_refused(
    autojump_clock: MockClock, desk: Desk, change: dict[str, object]
) -> None:
    answer = await desk.http.post("/api/golds", json={**BODY, **change})
    assert answer.status_code in {400, 422}, answer.text
    assert (await desk.http.get("/api/golds")).json() == {"golds": []}


async def test_a_job_lends_golds_only_if_that_is_said_and_golds_are_marked(
    autojump_clock: MockClock, desk: Desk
) -> None:
    body = {"graph": GRAPH, "inputs": INPUTS, "lends_golds": "yes"}
    assert (await desk.http.post("/api/jobs", json=body)).status_code == 400
    for said in ({}, {"lends_golds": True}):
        answer = await desk.http.post("/api/jobs", json={**body, "lends_golds": False, **said})
        job = answer.json()["job"]
        state = await desk.node.wait(job)
        assert state.required_plan.lends_golds is bool(said)
    await desk.http.post("/api/golds", json=BODY)
    gold = await desk.node.golds.give("text.upper@1", f"{desk.worker.peer}/upper")
    await desk.node.wait(gold)
    jobs = (await desk.http.get("/api/jobs")).json()["jobs"]
    assert [row["job"] for row in jobs if row["gold"]] == [gold]
