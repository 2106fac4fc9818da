"""A job is followed event after event, each once, through a node that comes and goes."""

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.cli import ask
from meshnode.cli.asking import Where
from meshnode.cli.failure import CommandFailed
from meshnode.cli.following import PATIENCE_S, Following

JOB = "ab12"
EVENTS = [
    {"seq": seq, "at_ms": seq, "kind": "done" if seq == 9 else "charged", "state": "completed"}
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
        self.called: list[tuple[str, str]] = []

    @asynccontextmanager
    async def open_client(self, *_: Any, **__: Any) -> AsyncIterator["FakeNode"]:
        await trio.lowlevel.checkpoint()
        if self.shares and self.shares[0] is None:
            self.shares.pop(0)
            raise GONE
        yield self

    async def call(self, method: str, path: str, **_: Any) -> Any:
        self.called.append((method, path))
        await trio.lowlevel.checkpoint()
        assert path.removesuffix("/cancel") == f"/api/jobs/{JOB}"
        return {"state": self.state}

    async def content(self, _path: str) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"journal"

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
    told = {"show": lambda line: shown.append(line["seq"]), **options}
    return Following(Where(), JOB, **told), shown


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
    follow, shown = following(monkeypatch, FakeNode(None), follow=False)
    with pytest.raises(CommandFailed, match="no node runs"):
        await follow.run()


async def test_ask_waits_for_its_node_too_and_goes_on_where_it_was(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode(3, None, 0, 9, clean=True)
    monkeypatch.setattr("meshnode.cli.client.open_client", node.open_client)
    await ask._followed(Where(), JOB, show=False)
    ended = await ask._ended(Where(), JOB)
    assert [asked.get("last_seq") for asked in node.asked] == [None, "2", "2"]
    assert (ended.job["state"], ended.provenance) == ("running", b"journal")


async def test_ask_says_how_to_hear_of_a_job_whose_node_stays_away(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = FakeNode(3, *[None] * 1_000)
    monkeypatch.setattr("meshnode.cli.client.open_client", node.open_client)
    with pytest.raises(CommandFailed) as refused:
        await ask._followed(Where(), JOB, show=False)
    assert f"job {JOB} is with its node" in str(refused.value)
    assert f"meshnode jobs events {JOB} --follow" in refused.value.hint


async def test_who_is_interrupted_before_the_job_is_known_cancels_it_once_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode(3)
    monkeypatch.setattr("meshnode.cli.client.open_client", node.open_client)
    with trio.fail_after(10):
        async with ask._cancelling_on_interrupt(Where()) as begun:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep(0.1)
            assert not node.called
            begun(JOB)
            await trio.sleep(0.5)
            assert node.called == [("POST", f"/api/jobs/{JOB}/cancel")]
