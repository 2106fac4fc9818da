"""The API: what it shows of a node and its jobs, and how it refuses."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from meshnode.domain.provenance import verify_provenance
from meshnode.errors import StoreError
from meshnode.gateway import api_streams
from meshnode.services.broker import Broker
from protocol.errors import Malformed
from tests.meshnode.gateway.api_nodes import (
    BODY_BYTES_MAX,
    GRAPH,
    INPUTS,
    NETWORK,
    SLOW,
    Desk,
    open_desk,
    stream,
)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal, which must have this status, code, and a hint."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code, error
    assert set(error) == {"code", "message", "hint"}
    return f"{error['message']} ({error['hint']})"


# --- the node -----------------------------------------------------------------------


async def test_the_node_says_who_it_is(autojump_clock: MockClock, desk: Desk) -> None:
    told = (await desk.http.get("/api/node")).json()
    assert told["peer_id"] == desk.node.peer
    assert told["network"] == NETWORK
    assert told["addresses"] == list(desk.node.addresses)
    assert told["agents"] == ["join"]
    assert told["connected"] == [desk.worker.peer]
    assert told["version"]


async def test_agents_of_all_nodes_are_listed_with_what_they_take_and_give(
    autojump_clock: MockClock, desk: Desk
) -> None:
    listed = (await desk.http.get("/api/agents")).json()["agents"]
    rows = {row["capability"]: row for row in listed}
    names = ("text.upper@1", "text.join@1", "test.nap@1", "test.fail@1", "test.tell@1")
    assert set(rows) == set(names)
    upper = rows["text.upper@1"]
    assert upper["agent"] == f"{desk.worker.peer}/upper"
    assert upper["alive"] is True
    assert upper["price_mc"] == 2
    assert upper["description"] == "Return the text in capitals."
    assert upper["input_schema"]["required"] == ["text"]
    assert upper["output_schema"]["type"] == "string"
    assert rows["text.join@1"]["alive"] is True, "its own agents count as there"


async def test_a_capability_asked_for_covers_what_is_more_special(
    autojump_clock: MockClock, desk: Desk
) -> None:
    found = (await desk.http.get("/api/agents", params={"capability": "text"})).json()
    assert {row["name"] for row in found["agents"]} == {"upper", "join"}
    assert found["nearest"] == []


async def test_an_agent_whose_node_has_gone_is_listed_as_not_alive(
    autojump_clock: MockClock, desk: Desk
) -> None:
    await desk.node.sessions.aclose()
    listed = (await desk.http.get("/api/agents")).json()["agents"]
    assert {row["name"]: row["alive"] for row in listed}["upper"] is False


async def test_a_capability_that_nobody_offers_names_the_nearest(
    autojump_clock: MockClock, desk: Desk
) -> None:
    found = (await desk.http.get("/api/agents", params={"capability": "text.uper"})).json()
    assert found["agents"] == []
    assert found["nearest"][0] == "text.upper@1"


# --- a job's life -------------------------------------------------------------------


async def test_a_job_goes_from_graph_to_outputs_and_provenance(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    view = await desk.ended(job)
    assert (view["state"], view["error"], view["name"]) == ("completed", None, "shout")
    outputs = (await desk.http.get(f"/api/jobs/{job}/outputs")).json()
    assert outputs == {"shouted": "A-B-C"}
    provenance = (await desk.http.get(f"/api/jobs/{job}/provenance")).content
    proved = verify_provenance(provenance)
    shown = [(row["id"], row["node"], row["agent"], row["cost_mc"]) for row in view["subtasks"]]
    assert sorted(shown) == sorted(
        (row.unit, row.peer, row.agent, row.cost_mc) for row in proved.rows
    )
    assert view["cost_mc"] == proved.cost_mc == 7
    for row in view["subtasks"]:
        assert row["state"] == "completed"
        assert row["verdict"] == "unverified"
        assert row["items_done"] == row["items"]
        assert len(row["output"]) == 64


async def test_a_running_job_shows_sub_tasks_that_wait_for_their_inputs(
    autojump_clock: MockClock, desk: Desk
) -> None:
    graph = {
        "name": "two",
        "subtasks": {
            **SLOW["subtasks"],
            "after": {"capability": "text.upper@1", "inputs": {"text": "nap"}},
        },
        "outputs": {"after": "after"},
    }
    job = await desk.submit(graph, {})
    await trio.sleep(5)
    view = (await desk.http.get(f"/api/jobs/{job}")).json()
    first, second = view["subtasks"]
    assert (view["state"], first["state"], first["id"]) == ("running", "running", "nap/0")
    assert first["node"] == desk.worker.peer
    assert 4_000 < first["ms"] <= 5_100
    assert (second["id"], second["batch"], second["state"]) == ("after", None, "waiting")


async def test_a_failed_job_says_why_and_shows_each_attempt(
    autojump_clock: MockClock, desk: Desk
) -> None:
    graph = {
        "subtasks": {
            "bad": {
                "capability": "test.fail@1",
                "inputs": {"text": {"value": "it"}},
                "attempts_max": 2,
            }
        },
        "outputs": {"x": "bad"},
    }
    job = await desk.submit(graph, {})
    view = await desk.ended(job)
    assert view["state"] == "failed"
    assert "no luck with it" in view["error"]["message"]
    (row,) = view["subtasks"]
    assert (row["state"], row["output"]) == ("failed", None)
    assert [attempt["code"] for attempt in row["attempts"]] == ["agent.failed"]
    assert {attempt["node"] for attempt in row["attempts"]} == {desk.worker.peer}
    outputs = await desk.http.get(f"/api/jobs/{job}/outputs")
    assert "no luck" in refusal(outputs, 409, "job.state")
    provenance = await desk.http.get(f"/api/jobs/{job}/provenance")
    assert verify_provenance(provenance.content).state == "failed"


async def test_a_cancelled_job_ends_and_can_not_be_cancelled_again(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit(SLOW, {})
    answer = await desk.http.post(f"/api/jobs/{job}/cancel")
    assert answer.status_code == 202
    view = await desk.ended(job)
    assert (view["state"], view["error"]["code"]) == ("cancelled", "owner")
    assert view["elapsed_s"] < 60
    again = await desk.http.post(f"/api/jobs/{job}/cancel")
    assert "ended already" in refusal(again, 409, "job.state")


async def test_the_same_key_is_the_same_job(autojump_clock: MockClock, desk: Desk) -> None:
    first = await desk.submit(idempotency_key="monday")
    assert await desk.submit(idempotency_key="monday") == first
    assert await desk.submit(idempotency_key="tuesday") != first
    body = {"graph": GRAPH, "inputs": INPUTS, "idempotency_key": "monday", "budget_mc": 9}
    told = refusal(await desk.http.post("/api/jobs", json=body), 409, "job.key_reused")
    assert f"'monday' is that of job {first}" in told
    listed = (await desk.http.get("/api/jobs")).json()["jobs"]
    assert len(listed) == 2
    newest = (await desk.http.get("/api/jobs", params={"limit": "1"})).json()["jobs"]
    assert newest == listed[:1]
    assert listed[0]["name"] == "shout"


async def test_the_terms_of_a_job_are_those_that_were_asked_for(
    autojump_clock: MockClock, desk: Desk
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    body = {"graph": GRAPH, "inputs": INPUTS, "budget_mc": 50, "deadline_s": 9.5}
    answer = await desk.http.post("/api/jobs", json=body, headers={"traceparent": trace})
    journal = await desk.node.journal(answer.json()["job"])
    plan = journal.state.required_plan
    assert (plan.budget_mc, plan.traceparent) == (50, trace)
    assert plan.deadline_ms - journal.state.planned_ms <= 9_500
    view = await desk.ended(journal.job)
    assert view["budget_mc"] == 50
    costs = view["costs"]
    assert costs["total"]["paid_mc"] == view["cost_mc"]
    assert costs["total"]["units"] == len(view["subtasks"])
    assert set(costs["nodes"]) == {row["node"] for row in view["subtasks"]}
    assert sum(cost["paid_mc"] for cost in costs["subtasks"].values()) == view["cost_mc"]


async def test_a_job_tells_what_it_used_of_the_tokens_that_it_may(
    autojump_clock: MockClock, desk: Desk
) -> None:
    body = {"graph": GRAPH, "inputs": INPUTS, "tokens_max": 700}
    answer = await desk.http.post("/api/jobs", json=body)
    view = await desk.ended(answer.json()["job"])
    assert (view["tokens_max"], view["tokens_used"]) == (700, 0), "these agents use no model"
    for wrong in (-1, 10**16, 1.5, "many", True):
        answer = await desk.http.post("/api/jobs", json={**body, "tokens_max": wrong})
        assert answer.status_code in {400, 422}, wrong
        assert "tokens_max" in answer.json()["error"]["message"]
        assert answer.json()["error"]["hint"]


async def test_results_of_a_job_that_goes_on_are_refused(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit(SLOW, {})
    for what in ("outputs", "provenance"):
        answer = await desk.http.get(f"/api/jobs/{job}/{what}")
        assert "has not ended" in refusal(answer, 409, "job.state")


async def test_an_end_that_is_not_written_down_yet_is_none(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    await desk.ended(job)
    journal = await desk.node.journal(job)
    journal._durable -= 1  # as while the disk still writes the last event
    assert (await desk.http.get(f"/api/jobs/{job}")).json()["state"] == "running"
    assert "has not ended" in refusal(
        await desk.http.get(f"/api/jobs/{job}/outputs"), 409, "job.state"
    )
    journal._durable += 1
    assert (await desk.http.get(f"/api/jobs/{job}")).json()["state"] == "completed"


# --- events -------------------------------------------------------------------------


async def test_events_tell_the_story_without_envelopes_and_resume_by_number(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    await desk.ended(job)
    whole = (await desk.http.get(f"/api/jobs/{job}/events")).text.splitlines()
    events = [json.loads(line) for line in whole]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert (events[0]["kind"], events[-1]["kind"]) == ("planned", "done")
    assert events[0]["subtasks"][0] == {"id": "upper", "capability": "text.upper@1"}
    awarded = next(event for event in events if event["kind"] == "awarded")
    assert awarded["capability"] == "text.upper@1"
    assert awarded["peer"] == desk.worker.peer
    journal = await desk.node.journal(job)
    envelopes = [e.data["award"].hex() for e in journal.events() if e.kind == "awarded"]
    assert envelopes
    assert not any(envelope[:64] in "".join(whole) for envelope in envelopes)
    rest = await desk.http.get(f"/api/jobs/{job}/events", params={"since": "5"})
    assert rest.text.splitlines() == whole[5:]
    after = await desk.http.get(f"/api/jobs/{job}/events", params={"last_seq": "4"})
    assert after.text.splitlines() == whole[5:]
    end = {"last_seq": str(len(whole) - 1)}
    assert (await desk.http.get(f"/api/jobs/{job}/events", params=end)).text == ""


async def test_a_follower_hears_progress_signs_of_life_and_then_the_end(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit(SLOW, {})
    began_s = trio.current_time()
    heard: list[Any] = []
    path = f"/api/jobs/{job}/events"
    async with stream(desk.app, path, "follow=1") as (lines, _):
        async for line in lines:
            heard.append(None if line == b"\n" else json.loads(line))
            if heard[-1] is None and heard.count(None) == 3:
                await desk.node.cancel(job)
    assert heard[0]["kind"] == "planned"
    assert heard[-1]["kind"] == "done", "it ends after the end of the job"
    texts = [
        line["progress"]["fields"]["text"] for line in heard if line and "progress" in line
    ]
    assert "zzz" in "".join(texts)
    elapsed_s = trio.current_time() - began_s
    assert 3 * api_streams.HEARTBEAT_S <= elapsed_s < 6 * api_streams.HEARTBEAT_S


async def test_a_follower_who_leaves_is_followed_no_longer(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit(SLOW, {})
    onlookers = len(desk.node.events._onlookers)
    async with stream(desk.app, f"/api/jobs/{job}/events", "follow=1") as (lines, left):
        await lines.receive()
        assert len(desk.node.events._onlookers) == onlookers + 1
        left.set()
        async for _ in lines:
            pass
        assert len(desk.node.events._onlookers) == onlookers
    assert (await desk.node.journal(job)).state.done is None, "the job goes on"


async def test_telemetry_is_told_from_what_was_lately_to_what_happens(
    autojump_clock: MockClock, desk: Desk
) -> None:
    lately = await desk.http.get("/api/events", params={"follow": "0"})
    names = [json.loads(line)["event"] for line in lately.text.splitlines()]
    assert "session.opened" in names
    told: dict[str, Any] = {}
    async with stream(desk.app, "/api/events") as (lines, _):
        desk.node.events.emit("test.news", what=b"\x01", where={"a": (1, 2)}, name="n")
        async for line in lines:
            told = json.loads(line)
            if told["event"] == "test.news":
                break
    assert told["fields"] == {"what": "01", "where": {"a": [1, 2]}, "name": "n"}


# --- refusals -----------------------------------------------------------------------


def changed(**changes: Any) -> dict[str, Any]:
    """A request for the usual job, but for ``changes``."""
    return {"graph": GRAPH, "inputs": INPUTS, **changes}


def with_task(**changes: Any) -> dict[str, Any]:
    """A request whose sub-task `join` is changed."""
    tasks = {**GRAPH["subtasks"], "join": {**GRAPH["subtasks"]["join"], **changes}}
    return changed(graph={**GRAPH, "subtasks": tasks})


CYCLE = {
    "subtasks": {
        "a": {"capability": "text.upper@1", "inputs": {"text": "b"}},
        "b": {"capability": "text.upper@1", "inputs": {"text": "a"}},
    },
    "outputs": {"x": "a"},
}
REFUSED: list[tuple[object, int, str, str]] = [
    ([], 400, "request.invalid", "not a JSON object"),
    ({"inputs": {}}, 400, "request.invalid", "no 'graph'"),
    (changed(budget=5), 400, "request.invalid", "did you mean 'budget_mc'?"),
    (changed(inputs=[]), 400, "request.invalid", "'inputs' should be an object"),
    (changed(budget_mc="5"), 400, "request.invalid", "budget_mc should be a whole number"),
    (changed(budget_mc=True), 400, "request.invalid", "budget_mc should be a whole number"),
    (changed(budget_mc=-1), 422, "input.invalid", "a budget of -1"),
    (changed(budget_mc=10**30), 422, "input.invalid", "budget_mc is out of range"),
    (changed(deadline_s="soon"), 400, "request.invalid", "deadline_s should be"),
    (changed(deadline_s=0), 422, "input.invalid", "a deadline of 0 s"),
    (changed(standbys="two"), 400, "request.invalid", "standbys should be"),
    (changed(standbys=[1, 2]), 400, "request.invalid", "standbys should be"),
    (changed(standbys=1), 409, "job.no_standbys", "2 to 6, or none"),
    (changed(standbys=2), 409, "job.no_standbys", "0 nodes are known that stand by"),
    (changed(standbys=["a", "b"]), 409, "job.no_standbys", "these standbys can't be"),
    (changed(deadline_s=1e308), 422, "input.invalid", "up to 7 days"),
    (changed(asked=7), 400, "request.invalid", "asked should be text"),
    (changed(idempotency_key=7), 400, "request.invalid", "idempotency_key should be text"),
    (changed(idempotency_key="k" * 201), 422, "input.invalid", "over 200 characters"),
    (changed(graph=[]), 422, "graph.invalid", "the graph should be a table"),
    (changed(graph=CYCLE), 422, "graph.invalid", "cycle: a -> b -> a"),
    (with_task(inputs={"texts": "uper"}), 422, "graph.invalid", "did you mean 'upper'?"),
    (with_task(inputs={"texts": "@wods"}), 422, "graph.invalid", "'wods', which is not given"),
    (with_task(inputs={"texts": {"value": 7}}), 422, "graph.invalid", "sub-task 'join'"),
    (with_task(inputs={"textz": "upper"}), 422, "graph.invalid", "'texts' is required"),
    (with_task(capability="text.joi@1"), 404, "capability.not_offered", "text.join@1"),
    (with_task(capability="Text!"), 422, "graph.invalid", "sub-task 'join'"),
]


async def test_a_job_that_makes_no_sense_is_refused_naming_the_thing(
    autojump_clock: MockClock, desk: Desk
) -> None:
    for body, status, code, says in REFUSED:
        answer = await desk.http.post("/api/jobs", json=body)
        assert says in refusal(answer, status, code)
    assert (await desk.http.get("/api/jobs")).json() == {"jobs": []}, "nothing was begun"


BROKEN: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff{}", "not UTF-8"),
    (b'{"graph": NaN}', "NaN is not JSON"),
    (b'{"graph": {}, "graph": {}}', "'graph' stands twice"),
    (b'{"graph": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deep"),
    (b'{"graph": {"name": "\\ud800"}}', "not UTF-8 text"),
    (b'{"graph": ' + b"9" * 10_000 + b"}", "not JSON"),
]


async def test_a_body_that_is_not_json_is_refused(
    autojump_clock: MockClock, desk: Desk
) -> None:
    for body, says in BROKEN:
        answer = await desk.http.post("/api/jobs", content=body)
        assert says in refusal(answer, 400, "request.invalid")


async def test_a_body_over_the_limit_is_refused(autojump_clock: MockClock, desk: Desk) -> None:
    answer = await desk.http.post("/api/jobs", content=b" " * (BODY_BYTES_MAX + 1))
    refusal(answer, 413, "http.too_large")


@pytest.mark.parametrize("what", ["", "/events", "/outputs", "/provenance"])
async def test_an_unknown_job_is_not_found(
    autojump_clock: MockClock, desk: Desk, what: str
) -> None:
    for job in ("0" * 20, "x", "a" * 600, "%00"):
        refusal(await desk.http.get(f"/api/jobs/{job}{what}"), 404, "node.not_found")
    for job in ("..", "a%2Fb"):
        refusal(await desk.http.get(f"/api/jobs/{job}/x{what}"), 404, "http.not_found")


PARAMETERS = [
    ("/api/agents?capabilty=text", "did you mean 'capability'?"),
    ("/api/agents?capability=TEXT", "'TEXT' is not a capability name"),
    ("/api/agents?capability=a&capability=b", "occurs twice"),
    ("/api/node?x=1", "no parameter 'x'"),
    ("/api/jobs?limit=-1", "limit should be a number"),
    ("/api/jobs?limit=" + "9" * 5_000, "limit should be a number"),
    ("/api/jobs/00/events?since=x", "since should be a number"),
    ("/api/jobs/00/events?follow=maybe", "follow should be 1 or 0"),
]


async def test_a_parameter_that_is_unknown_or_wrong_is_refused(
    autojump_clock: MockClock, desk: Desk
) -> None:
    for path, says in PARAMETERS:
        assert says in refusal(await desk.http.get(path), 400, "request.invalid")


@pytest.mark.parametrize(
    ("headers", "status"), [({"authorization": "Bearer x"}, 401), ({"host": "evil.test"}, 421)]
)
async def test_nothing_is_served_without_the_token_or_under_a_strange_name(
    autojump_clock: MockClock, desk: Desk, headers: dict[str, str], status: int
) -> None:
    for path in ("/api/node", "/api/events", "/api/nothing"):
        assert (await desk.http.get(path, headers=headers)).status_code == status
    answer = await desk.http.post("/api/jobs", json=changed(), headers=headers)
    assert answer.status_code == status


async def test_an_unknown_path_or_method_is_refused_as_json(
    autojump_clock: MockClock, desk: Desk
) -> None:
    refusal(await desk.http.get("/api/nothing"), 404, "http.not_found")
    refusal(await desk.http.delete("/api/jobs"), 405, "http.method_not_allowed")


async def test_a_node_that_closes_takes_no_more_jobs(
    autojump_clock: MockClock, desk: Desk
) -> None:
    desk.node.broker.drain()
    answer = await desk.http.post("/api/jobs", json=changed())
    assert "closing" in refusal(answer, 503, "node.unavailable")


RAISED = [
    (Malformed("a journal with a hole"), 502, "protocol.broken"),
    (StoreError("the disk is full"), 503, "store.failed"),
    (ExceptionGroup("g", [StoreError("the disk is full")]), 503, "store.failed"),
    (ZeroDivisionError("a bug"), 500, "http.internal"),
]


async def test_what_the_node_raises_is_told_by_whose_fault_it_is(
    autojump_clock: MockClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for raised, status, code in RAISED:

        async def broken(_self: Broker, *, begins: str, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr(Broker, "jobs", broken)
        told = refusal(await desk.http.get("/api/jobs"), status, code)
        assert "Traceback" not in told
        assert "a bug" not in told, "what a bug says is for the log"
