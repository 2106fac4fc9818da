"""``jobs events`` tells every event once, through a node that comes and goes."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.cli.failure import CommandFailed
from meshnode.cli.job_events import PATIENCE_S, Following, Reached
from meshnode.cli.job_lines import _TOLD, event_line
from meshnode.domain.facts import KINDS
from tests.meshnode.gateway.api_nodes import open_desk

JOB = "ab12"
EVENTS = [
    {"seq": seq, "at_ms": seq, "kind": "done" if seq == 9 else "charged", "paid_mc": 1}
    for seq in range(10)
]
GONE = CommandFailed("no node runs", told="cli.no_node")


class FakeNode:
    """What a command finds: a node that tells ``shares`` of the events, and is cut off."""

    def __init__(
        self, *shares: int | None, clean: bool = False, state: str = "running"
    ) -> None:
        self.shares = list(shares)  # None: nobody is there
        self.clean = clean  # a stream that is cut off ends as if that was all
        self.state = state
        self.asked: list[dict[str, str]] = []

    @asynccontextmanager
    async def open_client(self, *_: Any, **__: Any) -> AsyncIterator["FakeNode"]:
        await trio.lowlevel.checkpoint()
        if self.shares and self.shares[0] is None:
            self.shares.pop(0)
            raise GONE
        yield self

    async def call(self, _method: str, path: str, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"jobs": [{"job": JOB}]} if path == "/api/jobs" else {"state": self.state}

    async def lines(self, path: str, **query: str) -> AsyncGenerator[dict[str, Any], None]:
        assert path == f"/api/jobs/{JOB}/events"
        self.asked.append(query)
        start = int(query.get("last_seq", "-1")) + 1
        share = self.shares.pop(0)
        assert share is not None
        for event in EVENTS[start : start + share]:
            await trio.lowlevel.checkpoint()
            yield event
        if start + share < len(EVENTS) and not self.clean:
            raise CommandFailed("broke off", told="http.cut")


def following(
    monkeypatch: pytest.MonkeyPatch, node: FakeNode, **options: Any
) -> tuple[Following, list[int]]:
    monkeypatch.setattr("meshnode.cli.client.open_client", node.open_client)
    shown: list[int] = []
    told = {"after": None, "follow": True, "show": lambda line: shown.append(line["seq"])}
    return Following(Reached("", "", ""), "ab", **{**told, **options}), shown


async def test_a_node_that_comes_and_goes_is_followed_event_after_event(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = FakeNode(3, None, None, 4, 0, 2, 9)
    follow, shown = following(monkeypatch, node)
    await follow.run()
    assert shown == [*range(10)]
    assert node.asked[0] == {"follow": "1"}
    assert [asked["last_seq"] for asked in node.asked[1:]] == ["2", "6", "6", "8"]
    said = capsys.readouterr().err
    assert said.count("the node is gone; looking for it for 60 s") == 4
    assert "the node is back; going on after event 2" in said


async def test_a_stream_that_ends_before_the_job_is_taken_up_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode(3, 0, 4, None, 9, clean=True)
    follow, shown = following(monkeypatch, node)
    await follow.run()
    assert shown == [*range(10)]
    assert [asked.get("last_seq") for asked in node.asked] == [None, "2", "2", "6"]


async def test_a_job_that_ended_meanwhile_is_told_to_its_last_event(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode(3, 9, clean=True, state="completed")
    follow, shown = following(monkeypatch, node)
    await follow.run()
    assert shown == [*range(10)], "though it had ended when the first stream did"
    node = FakeNode(0, clean=True, state="completed")
    follow, shown = following(monkeypatch, node, after=9)
    await follow.run()
    assert (shown, len(node.asked)) == ([], 1), "there is nothing after the last"


async def test_a_node_that_stays_away_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode(3, *[None] * 1_000)
    follow, shown = following(monkeypatch, node)
    began_s = trio.current_time()
    with pytest.raises(CommandFailed, match="no node runs"):
        await follow.run()
    assert shown == [0, 1, 2]
    assert PATIENCE_S <= trio.current_time() - began_s < PATIENCE_S + 5


async def test_who_does_not_follow_is_told_at_once_that_it_broke_off(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow, shown = following(monkeypatch, FakeNode(4), after=1, follow=False)
    with pytest.raises(CommandFailed, match="broke off"):
        await follow.run()
    assert shown == [2, 3, 4, 5]
    follow, shown = following(monkeypatch, FakeNode(None))
    with pytest.raises(CommandFailed, match="no node runs"):  # it was never there
        await follow.run()


def test_every_kind_of_event_is_a_line_of_its_own() -> None:
    assert set(_TOLD) == set(KINDS)


async def test_a_real_job_is_told_in_lines(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        job = await desk.submit()
        await desk.ended(job)
        told = (await desk.http.get(f"/api/jobs/{job}/events")).text.splitlines()
        who: dict[tuple[str, int], str] = {}
        lines = [event_line(json.loads(line), who) for line in told]
        explained = (await desk.http.get(f"/api/jobs/{job}/explain")).json()
    assert "planned: shout: 2 sub-tasks, at most 1000000 mc" in lines[0]
    assert lines[-1].endswith("the job completed")
    assert [int(line.split()[1]) for line in lines] == [*range(len(lines))]
    text = "\n".join(lines)
    assert f"upper/0            {desk.worker.peer[-8:]} is given it, for at most" in text
    assert f"upper/0            {desk.worker.peer[-8:]} paid " in text
    assert "ready: one call" in text
    assert explained["state"] == "completed"
    assert explained["spent_mc"] == 7
    words = " ".join(line for section in explained["words"] for line in section["lines"])
    assert f"Job {job} (shout) completed" in words
    assert f"done by {desk.worker.peer[-8:]}'s upper for" in words


def test_what_peers_wrote_obeys_nobody_and_telemetry_has_no_number() -> None:
    failed = {
        "seq": 3, "at_ms": 1_000, "kind": "failed", "unit": "a/0", "attempt": 1,
        "peer": "x" * 20, "code": "agent.failed", "text": "\x1b[2Jgone\nfor good",
        "blame": "peer",
    }  # fmt: skip
    line = event_line(failed)
    assert "\x1b" not in line
    assert "\n" not in line
    assert line.startswith("00:00:01.000     3  a/0 ")
    assert line.endswith("another node is taken (attempt 2)")
    held = {"progress": {"at_ms": 0, "event": "job.held_up", "fields": {"why": "disk full"}}}
    assert event_line(held).split() == ["00:00:00.000", "job.held_up:", "disk", "full"]


def test_of_two_that_do_the_same_each_event_names_its_own() -> None:
    base = {"seq": 1, "at_ms": 0, "unit": "a/0", "agent": "x", "price_cap_mc": 5}
    who: dict[tuple[str, int], str] = {}
    for attempt, peer in enumerate(("quick", "slow")):
        event_line({**base, "kind": "awarded", "attempt": attempt, "peer": peer}, who)
    line = {**base, "kind": "delivered", "size": 1, "price_mc": 5, "run_ms": 1}
    assert "quick" in event_line({**line, "attempt": 0}, who)
    assert "slow" in event_line({**line, "attempt": 1}, who)
