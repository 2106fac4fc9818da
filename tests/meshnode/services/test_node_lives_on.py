"""What an agent, a broker or a store may do to a node without ending it.

`play` fails when anything escapes from a node.  In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio
from typing_extensions import override

from meshnode.domain.job import JobState
from meshnode.domain.verification import Finding
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Output, Write
from meshnode.services.checking import Checking
from meshnode.services.job_terms import Terms
from protocol.graph import Check
from protocol.keys import digest
from protocol.messages import Binding, Part
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.broker_by_hand import Hand, meet, result_of, third
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    told,
    until,
)

HALF = "\udc80"  # half of a surrogate pair, as in the name of a file that is not UTF-8


async def meters_oddly(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    odd: Any = {"tokens_in": 1.5, "tokens_out": -1}
    yield Output({"text": text}, usage=odd)


async def fails_in_no_text(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    raise FileNotFoundError(f"no file {HALF}")
    yield


async def talks_no_text(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    yield Chunk(HALF)
    await trio.sleep(1)
    yield Output({"text": text})


async def exits(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    raise SystemExit(2)
    yield


async def says_nothing_for_ever(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    while True:
        yield Chunk("")


@pytest.mark.parametrize("own", [False, True], ids=["peers", "own"])
@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (meters_oddly, "agent.output_invalid"),
        (fails_in_no_text, "agent.failed"),
        (talks_no_text, ""),
        (exits, "agent.failed"),
        (says_nothing_for_ever, "agent.output_invalid"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_odd_agent_ends_its_own_call_only(behave: Any, code: str, *, own: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(behave)
        hosts: dict[str, list[TextAgent]] = {"a": [agent]} if own else {"a": [], "b": [agent]}
        a, *_ = await start(mesh, **hosts)
        job = await a.submit(shouting(), inputs("x"), Terms(deadline_s=100))
        with trio.fail_after(200):
            state = await a.wait(job)
        assert state.done is not None
        assert (state.done.code, len(agent.calls)) == (code, 1)

    play(story)


def test_an_agent_that_breaks_while_it_opens_ends_no_check() -> None:
    class Broken(TextAgent):
        @override
        async def open(self) -> None:
            await trio.lowlevel.checkpoint()
            raise ImportError("no such library")

    async def story(mesh: SimMesh) -> None:
        mine = Broken(deterministic=True, price_mc=500)
        a, _ = await start(mesh, a=[mine], b=[TextAgent(deterministic=True)])
        job = await a.submit(shouting(checks=[Check(kind="recompute")]), inputs("x"))
        with trio.fail_after(100):
            state = await a.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        verdict = state.units["say/0"].attempts[-1].verdict
        assert verdict is not None
        assert verdict.verdict == "unverified"
        assert told(a, "check.recompute_failed")

    play(story)


def test_an_agent_that_breaks_while_it_closes_is_told() -> None:
    class Broken(TextAgent):
        @override
        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("stuck")

    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, Broken())
        await hand.send(hand.award(await hand.offer()))
        node = mesh.node("b")
        await node.host.aclose()
        assert [event["agent"] for event in told(node, "agent.close_failed")] == ["shout"]

    play(story)


def test_a_home_of_another_mesh_starts_and_leaves_what_it_can_not_read() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(never)
        a, _ = await start(mesh, a=[], b=[agent])
        await a.submit(shouting(), inputs("x"))
        await until(lambda: agent.running == 1)
        for name in ("a", "b"):
            mesh.crash(name)
        for name in ("a", "b"):
            mesh.members[name].config = msgspec.structs.replace(CONFIG, network="other")
            await mesh.restart(name)
        await trio.sleep(30)
        assert told(mesh.node("b"), "award.unreadable")

    play(story)


def test_receipts_of_another_mesh_are_told_and_stand_in_nobodys_way() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        await a.submit(shouting(), inputs("x"))
        await until(lambda: bool(mesh.members["a"].disk.tables.get("acceptance_due")))
        mesh.crash("b")
        mesh.crash("a")
        mesh.members["a"].config = msgspec.structs.replace(CONFIG, network="other")
        await mesh.restart("a")
        await trio.sleep(30)
        assert told(mesh.node("a"), "acceptance.unreadable")
        assert not mesh.members["a"].disk.tables["acceptance_due"]

    play(story)


def test_a_node_says_goodbye_although_its_disk_is_full() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        mesh.fill_disk("a", count=10)
        await a.drain()
        await until(lambda: not b.sessions.connected(), within_s=5)

    play(story)


# --- what a broker may make it do ------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts what the scheduler does."""

    def __init__(self) -> None:
        self.count = 0

    @override
    def before_task_step(self, task: object) -> None:
        self.count += 1


def test_a_tiny_lease_does_not_keep_the_node_busy() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(20)))
        body = hand.award(await hand.offer(), lease_ms=1)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        assert result_of(await hand.send(body)).state == "completed"
        trio.lowlevel.remove_instrument(steps)
        assert steps.count < 5_000

    play(story)


def test_no_lease_is_longer_than_the_machines_owner_allows() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(never)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer(), lease_ms=10**9, deadline_s=50)
        with pytest.raises(MeshError):
            await hand.send(body, timeout_s=2.0)
        gone_s = trio.current_time()
        await until(lambda: agent.running == 0, within_s=45)
        assert trio.current_time() - gone_s <= CONFIG.host.lease_s + 1

    play(story)


def test_a_broker_can_not_fence_off_another_ones_job() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        thief = Thief(mesh)
        await third(mesh, hand)
        high = replace(hand.topic(), epoch=10**6)  # the job's id is no secret
        header = thief.signer.header(hand.peer, high, lifetime_ms=600_000)
        taken = await thief.send(thief.award(await thief.offer(), h=header))
        assert result_of(taken).state == "completed"
        assert result_of(await hand.send(hand.award(await hand.offer()))).state == "completed"

    play(story)


class Thief(Hand):
    """A broker on node c."""

    @property
    @override
    def node(self) -> Node:
        return self.mesh.node("c")


def test_settled_work_is_forgotten_and_unsettled_work_waits_for_its_receipt() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        tables = mesh.members["b"].disk.tables
        a = mesh.node("a")
        await a.wait(await a.submit(shouting(), inputs("x")))
        body = hand.award(await hand.offer())
        await hand.send(body)  # and never accept what comes
        await trio.sleep(300)
        assert len(tables["award"]) == len(tables["result"]) == 2
        await trio.sleep(3_600)
        unsettled = digest(body.award).hex()
        assert [*tables["award"]] == [*tables["result"]] == [unsettled]

    play(story)


def test_a_bug_in_one_job_ends_neither_the_node_nor_other_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Checking.check

    async def check(self: Checking, state: JobState, *args: Any) -> tuple[Finding, list[Write]]:
        if state.required_plan.idempotency_key == "poison":
            raise ZeroDivisionError
        return await honest(self, state, *args)

    monkeypatch.setattr(Checking, "check", check)

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        terms = Terms(deadline_s=60, idempotency_key="poison")
        bad = await a.submit(shouting(), inputs("x"), terms)
        await until(lambda: bool(told(a, "job.bug")))
        good = await a.submit(shouting(), inputs("x"))
        ends = [(await a.wait(job)).done for job in (good, bad)]
        assert [end and (end.state, end.code) for end in ends] == [
            ("completed", ""),
            ("failed", "deadline"),
        ]

    play(story)


def test_inputs_that_do_not_fit_in_memory_are_not_fetched() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        parts = [
            Part(artifact=bytes([n]) * 32, size=10**8, holder=hand.node.peer) for n in range(3)
        ]
        body = hand.award(
            await hand.offer(), inputs={"text": Binding(parts=parts, gather=True)}
        )
        result = result_of(await hand.send(body))
        assert (result.error_code, agent.calls) == ("input.invalid", [])

    play(story)


def test_jobs_that_have_ended_leave_memory_and_are_still_answered_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshnode.services.broker._ENDED_MAX", 2)

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        jobs = [await a.submit(shouting(), inputs(word)) for word in "abcde"]
        for job in jobs:
            await a.wait(job)
        await until(lambda: len(a.broker._journals) <= 2)
        for word, job in zip("abcde", jobs, strict=True):
            assert await a.outputs(job) == {"said": word.upper()}
            await a.cancel(job)
        assert len(a.broker._journals) <= 2

    play(story)
