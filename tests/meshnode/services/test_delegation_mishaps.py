"""What disks and damage do to work that is handed on: it is bounded, ended and accounted for.

``a`` has a job done whose agent at ``b`` hands on to ``c``.  Real nodes in virtual time
(a MockClock's).
"""

from collections.abc import AsyncIterator

import pytest
import trio

from meshnode.domain.bounds import spent
from meshnode.errors import StoreError
from meshnode.ports import AgentCall, Chunk, Left, Output, Put
from meshnode.services import delegation
from meshnode.services.job_keys import KEYS
from protocol.keys import digest
from protocol.limits import NUMBER_MAX
from protocol.receipts import Spent
from simulations.mesh import SimMesh
from tests.meshnode.services.test_delegation import TERMS, asking, calling, ended, three
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    start,
    until,
)


def test_a_job_below_that_cannot_be_read_counts_as_all_and_hurts_nothing_else() -> None:
    begun, goes_on = trio.Event(), trio.Event()

    async def waits(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        begun.set()
        await goes_on.wait()
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(waits, name="wait", capability="text.wait@1", price_mc=20)
        a, b = await start(mesh, a=[], b=[broker])
        job = await a.submit(asking("text.wait@1"), inputs("x"), TERMS)
        await begun.wait()
        journal = await a.journal(job)
        (attempt,) = journal.state.units["wait/0"].attempts
        under = f"award:{digest(attempt.award).hex()}/key"
        await b.broker._context.store.commit(Put(KEYS, under, b"lost/"))
        goes_on.set()
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert state.subtasks_used == 10

    play(story)


def test_what_was_done_below_and_cannot_be_signed_ends_one_award_and_no_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Spent(level=1, subtask="x", peer="", tokens=NUMBER_MAX + 1)
    monkeypatch.setattr(delegation, "rolled_up", lambda _: [told])

    async def story(mesh: SimMesh) -> None:
        b, _, (a, *_) = await three(mesh, TextAgent())
        state = await ended(a, await a.submit(asking("text.high@1"), inputs("x"), TERMS))
        assert state.done is not None
        assert state.done.code == "bounds.subtasks", "each attempt counts as all that it had"
        errors = [attempt.error for attempt in state.units["high/0"].attempts]
        assert errors[0] is not None
        assert (errors[0].code, errors[0].below) == ("node.internal", 10)
        assert len(b.left) > 1, "the node goes on"

    play(story)


def test_a_disk_that_is_full_when_a_job_is_given_up_ends_no_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaf = TextAgent(answers_after(5.0))

    async def refused(job: str, *, reason: str) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("the disk is full")

    async def impatient(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        with trio.move_on_after(1.0):
            await call.hand_on(calling("text.shout@1"), {"text": text})
        await until(lambda: not leaf.running)
        yield Output({"text": "by itself"})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(impatient, name="wait", capability="text.wait@1", price_mc=20)
        a, b, _ = await start(mesh, a=[], b=[broker], c=[leaf])
        monkeypatch.setattr(b.broker, "cancel", refused)
        job = await a.submit(asking("text.wait@1"), inputs("x"), TERMS)
        await ended(a, job)
        assert await a.outputs(job) == {"said": {"text": "by itself"}}

    play(story)


def test_a_full_disk_puts_the_answer_to_a_cancel_off_until_nothing_works_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaf = TextAgent(never)

    async def story(mesh: SimMesh) -> None:
        _, _, nodes = await three(mesh, leaf)
        a, b, *_ = nodes
        job = await a.submit(asking("text.high@1"), inputs("x"), TERMS)
        await until(lambda: leaf.running == 1)
        cancel, refusals = b.broker.cancel, 3

        async def full(job: str, *, reason: str) -> None:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                await trio.lowlevel.checkpoint()
                raise StoreError("the disk is full")
            await cancel(job, reason=reason)

        monkeypatch.setattr(b.broker, "cancel", full)
        await a.cancel(job)
        await ended(a, job)
        assert leaf.running == 0, "when it is told, nothing works on it any more"
        assert refusals < 0
        told = [one.name for one in b.events.recent]
        assert told.count("award.held_up") == 2, "the agent gave up once, its award twice"
        assert "award.unaccounted" not in told

    play(story)


def test_what_an_award_used_is_remembered_until_it_ends_however_short_history_is() -> None:
    begun, goes_on = trio.Event(), trio.Event()
    left: list[Left] = []

    async def waits(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        await call.hand_on(calling("text.shout@1"), {"text": text})
        begun.set()
        await goes_on.wait()
        left.append(await call.left())
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(waits, name="wait", capability="text.wait@1", price_mc=20)
        a, b, _ = await start(mesh, a=[], b=[broker], c=[TextAgent()])
        job = await a.submit(asking("text.wait@1"), inputs("x"), TERMS)
        await begun.wait()
        late_ms = mesh.world.clock().now_ms() + 10**9
        await trio.sleep(1.0)
        assert await b.broker.forget(late_ms) == 0
        goes_on.set()
        state = await ended(a, job)
        assert left == [Left(cost_mc=18, subtasks=9, hops=2)]
        assert state.subtasks_used == 1
        assert [row.level for row in spent(state)] == [1, 2]
        assert await b.broker.forget(late_ms) == 1, "now it is nobody's any more"
        assert await b.broker._context.store.scan(KEYS) == []

    play(story)
