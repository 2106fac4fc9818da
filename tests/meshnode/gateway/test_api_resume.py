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
