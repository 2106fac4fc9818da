"""A job that ended early is resumed over HTTP."""

import json
from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import Desk, open_desk
from tests.meshnode.gateway.test_api import refusal


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_a_job_that_failed_is_resumed_as_another_one(
    autojump_clock: MockClock, desk: Desk
) -> None:
    call = {"capability": "test.fail@1", "inputs": {"text": {"value": "it"}}}
    job = await desk.submit({"subtasks": {"bad": call}, "outputs": {"x": "bad"}}, {})
    going = (await desk.http.post(f"/api/jobs/{job}/resume")).json()
    assert going == {"job": job, "resumes": ""}, "it goes on by itself"
    await desk.ended(job)
    terms = {"budget_mc": 5, "deadline_s": 30}
    told = (await desk.http.post(f"/api/jobs/{job}/resume", json=terms)).json()
    assert told["resumes"] == job
    events = (await desk.http.get(f"/api/jobs/{told['job']}/events")).text.splitlines()
    assert json.loads(events[0])["resumes"] == job
    assert (await desk.ended(told["job"]))["budget_mc"] == 5
    done = await desk.submit()
    await desk.ended(done)
    answer = await desk.http.post(f"/api/jobs/{done}/resume")
    assert "is completed" in refusal(answer, 409, "job.ended")
    for body, says in ((b'{"budget": 1}', "did you mean"), (b"[]", "not a JSON object")):
        wrong = await desk.http.post(f"/api/jobs/{job}/resume", content=body)
        assert says in refusal(wrong, 400, "request.invalid")


async def test_what_was_accepted_of_a_job_that_failed_is_told_when_it_is_asked_for(
    autojump_clock: MockClock, desk: Desk
) -> None:
    good = {"capability": "text.upper@1", "inputs": {"text": {"value": "it"}}}
    bad = {"capability": "test.fail@1", "inputs": {"text": "good"}}
    graph = {"subtasks": {"good": good, "bad": bad}, "outputs": {"x": "bad"}}
    job = await desk.submit(graph, {})
    path = f"/api/jobs/{job}/outputs"
    early = await desk.http.get(path, params={"partial": "1"})
    assert "has not ended" in refusal(early, 409, "job.state")
    assert (await desk.ended(job))["kept"] == 1
    plain = await desk.http.get(path)
    assert "no luck" in refusal(plain, 409, "job.state")
    assert "?partial=1" in plain.json()["error"]["hint"]
    made = (await desk.http.get(path, params={"partial": "1"})).json()
    assert (made["job"], made["state"], made["kept"]) == (job, "failed", 1)
    (row,) = made["subtasks"][0]["kept"]
    assert row == {"unit": "good/0", "start": None, "items": None, "value": "IT"}
    assert not made["subtasks"][1]["kept"]
    wrong = await desk.http.get(path, params={"partial": "some"})
    assert "partial" in refusal(wrong, 400, "request.invalid")
