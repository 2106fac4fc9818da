"""A job's events over HTTP are taken up where they were left, and its texts too."""

import json
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import Desk, open_desk, stream
from tests.meshnode.gateway.test_api import refusal


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_a_place_that_a_journal_has_not_reached_is_refused(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    await desk.ended(job)
    count = len((await desk.node.journal(job)).events())
    answer = await desk.http.get(f"/api/jobs/{job}/events", params={"last_seq": str(count)})
    assert f"has {count} events" in refusal(answer, 409, "stream.beyond_end")
    assert (
        await desk.http.get(f"/api/jobs/{job}/events", params={"since": str(count)})
    ).is_success, "the next one, if it comes"
    both = await desk.http.get(
        f"/api/jobs/{job}/events", params={"since": "0", "last_seq": "0"}
    )
    assert "say the same" in refusal(both, 400, "request.invalid")
    header = await desk.http.get(f"/api/jobs/{job}/events", headers={"last-event-id": "x"})
    assert "Last-Event-ID should be a number" in refusal(header, 400, "request.invalid")


def messages(text: str) -> list[dict[str, str]]:
    """Server-sent events as their fields, comments left out."""
    parts = (part for part in text.split("\n\n") if part and not part.startswith(":"))
    return [dict(row.split(": ", 1) for row in part.splitlines()) for part in parts]


async def test_server_sent_events_are_taken_up_where_they_were_left(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    await desk.ended(job)
    lines = (await desk.http.get(f"/api/jobs/{job}/events")).text.splitlines()
    accept = {"accept": "text/event-stream"}
    whole = await desk.http.get(f"/api/jobs/{job}/events", headers=accept)
    assert whole.headers["content-type"].startswith("text/event-stream")
    told = [one for one in messages(whole.text) if "id" in one]
    assert [json.loads(one["data"]) for one in told] == [json.loads(line) for line in lines]
    assert [(int(one["id"]), one["event"]) for one in told] == [
        (event["seq"], event["kind"]) for event in map(json.loads, lines)
    ]
    seen = {**accept, "last-event-id": "6"}  # it stands beside the address of the first time
    rest = await desk.http.get(f"/api/jobs/{job}/events", params={"since": "2"}, headers=seen)
    assert [one["id"] for one in messages(rest.text)] == [one["id"] for one in told[7:]]
    all_seen = {**accept, "last-event-id": told[-1]["id"]}
    over = await desk.http.get(f"/api/jobs/{job}/events", headers=all_seen)
    assert (over.status_code, over.content) == (204, b""), "so that it isn't asked again"


async def test_who_comes_later_is_told_what_was_streamed_so_far_once(
    autojump_clock: MockClock, desk: Desk
) -> None:
    call = {"capability": "test.tell@1", "inputs": {"text": {"value": "a b c d e f g h"}}}
    job = await desk.submit({"subtasks": {"say": call}, "outputs": {"x": "say"}}, {})
    await trio.sleep(4.5)
    text, places = "", []
    async with stream(desk.app, f"/api/jobs/{job}/events", "follow=1") as (lines, _):
        async for line in lines:
            if not line.strip() or "progress" not in (told := json.loads(line)):
                continue
            fields = told["progress"]["fields"]
            assert fields["offset"] == len(text), "nothing twice, and nothing missing"
            text += fields["text"]
            places.append((fields["unit"], fields["attempt"], fields["restarted"]))
    assert text.split() == list("abcdefgh")
    assert set(places) == {("say/0", 0, False)}
