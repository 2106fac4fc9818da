"""Brokers that don't see each other, at the agent that each of them would take.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio

from meshnode.domain.admission import No
from meshnode.domain.attempts import BUSY_PAUSE_MS
from meshnode.domain.crowding import SUBSET, Need
from meshnode.domain.job import JobState
from meshnode.domain.matching import LATENCY_GUESS_MS
from meshnode.errors import AgentError
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Measures, Output
from meshnode.services.bodies import CFP, OFFERS, OFFERS_BODY, AwardBody, OffersBody
from meshnode.services.workbench import Workbench
from protocol.codec import decode_as, encode
from protocol.messages import Award, Proposal, StandingOffer, read_message
from simulations.agents import ECHO, UPPER, Act, Temper
from simulations.mesh import CONFIG, NETWORK, SimMesh
from simulations.stage import Stage
from simulations.world import World, run
from tests.meshnode.services.broker_by_hand import Hand, meet, refusal_of, result_of
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    until,
)

# --- the contractor -------------------------------------------------------------------------


async def busy(mesh: SimMesh) -> tuple[Hand, TextAgent, bytes]:
    """Return a broker by hand, an agent that takes two seconds a call, and its offer."""
    agent = TextAgent(answers_after(2), concurrency_max=1)
    hand = await meet(mesh, agent)
    offer = await hand.offer()
    await hand.send(hand.award(offer))  # so that it was measured
    return hand, agent, offer


@pytest.mark.parametrize(("limit_ms", "taken"), [(0, True), (1_900, False), (2_100, True)])
def test_an_award_is_taken_if_it_can_begin_in_time(limit_ms: int, taken: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        hand, agent, offer = await busy(mesh)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.send, hand.award(offer))
            await until(lambda: agent.running == 1)
            begin_s = trio.current_time()
            raw = await hand.send(hand.award(offer, wait_max_ms=limit_ms))
            if taken:
                assert result_of(raw).metering.queue_ms > 1_500
                return
            refuse = refusal_of(raw)
            assert refuse.reason == "crowded"
            assert 1_999 <= refuse.retry_after_ms <= 2_000
            assert f"{refuse.retry_after_ms} ms" in refuse.text
            assert trio.current_time() - begin_s < 0.1, "at once"
        assert len(agent.calls) == 2

    play(story)


def test_an_idle_agent_takes_whatever_comes() -> None:
    async def story(mesh: SimMesh) -> None:
        hand, agent, offer = await busy(mesh)
        raw = await hand.send(hand.award(offer, wait_max_ms=1))
        assert result_of(raw).state == "completed"
        assert len(agent.calls) == 2

    play(story)


def test_a_proposal_counts_in_what_waits() -> None:
    async def story(mesh: SimMesh) -> None:
        hand, agent, offer = await busy(mesh)

        async def eta_ms() -> int:
            raw = await hand.request(CFP, hand.cfp())
            return read_message(raw, Proposal, network=NETWORK).eta_ms

        idle_ms = await eta_ms()
        assert 1_999 <= idle_ms <= 2_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.send, hand.award(offer))
            await until(lambda: agent.running == 1)
            assert await eta_ms() == 2 * idle_ms
            nursery.cancel_scope.cancel()

    play(story)


# --- the broker -----------------------------------------------------------------------------

#: Whoever comes first is done in a second; behind it one waits for longer than the other takes.
FAST = Temper(latency_s=(1.0, 1.0), concurrency_max=1, declared_ms=1_000)
SLOW = Temper(latency_s=(1.4, 1.4), concurrency_max=1, declared_ms=1_400)


def test_who_is_refused_for_the_wait_goes_to_the_next_best_at_once() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add([Act(ECHO, FAST)], name="fast")
        mesh.add([Act(ECHO, SLOW)], name="slow")
        one, two = mesh.add(n=2, name="broker")
        await mesh.ready()
        for by in (one, two):  # so that both have offers of both
            mesh.node(by).market.candidates(ECHO.capability)
        await trio.sleep(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, mesh, one)
            await trio.sleep(0.3)
            end = await mesh.submit(ECHO.capability, {"text": "x"}, by=two)
        state = await ended(mesh, two, end.job)
        first, second = state.units["call/0"].attempts
        fast, slow = mesh.mesh.peer("fast0"), mesh.mesh.peer("slow0")
        assert [first.peer, second.peer] == [fast, slow]
        assert first.turned
        assert 400 <= first.wait_max_ms <= 1_000, "what the fast one is better by, and a way"
        assert second.delivered is not None
        assert end.took_s < 1.4 + 0.5, "without a pause"
        learned_ms = mesh.node(two).market.wait_ms(f"{fast}/echo")
        assert 500 < learned_ms <= 1_000

    run(story, seed=1)


async def ask(mesh: Stage, by: str) -> None:
    await mesh.submit(ECHO.capability, {"text": by}, by=by)


async def ended(mesh: Stage, by: str, job: str) -> JobState:
    return (await mesh.node(by).journal(job)).state


# --- whom a broker looks at -----------------------------------------------------------------

MANY = SUBSET + 8
NAME = UPPER.capability


async def large(world: World) -> Stage:
    mesh = Stage(world)
    mesh.add([Act(UPPER, Temper(latency_s=(0.1, 0.1)))], n=MANY, name="maker")
    mesh.add(n=2, name="broker")
    await mesh.ready()
    for by in ("broker0", "broker1"):
        await until(lambda by=by: len(mesh.node(by).known()) > MANY)  # type: ignore[misc]
    return mesh


def seen(node: Node, **need: Any) -> set[str]:
    """Return whom ``node`` looks at."""
    needs = {NAME: Need(**{"units": 1, "whole": False, **need})}
    return {one.peer for one in node.market.view([NAME], needs).candidates[NAME]}


def test_a_broker_looks_at_a_part_of_a_large_mesh_and_at_the_same_each_time() -> None:
    async def story(world: World) -> None:
        mesh = await large(world)
        one, two = mesh.node("broker0"), mesh.node("broker1")
        near = seen(one)
        assert len(near) == SUBSET
        assert seen(one) == near != seen(two)
        assert len(one.market.candidates(NAME)) == MANY, "who wants to see all does"
        assert len(seen(one, whole=True)) == MANY
        assert near < seen(one, units=SUBSET + 3), "as many as there is work for"
        workers = set()
        for number in range(30):
            end = await mesh.submit(NAME, {"text": f"{number}"}, by="broker0")
            (attempt,) = (await ended(mesh, "broker0", end.job)).units["call/0"].attempts
            workers.add(attempt.peer)
        assert workers <= near

    run(story, seed=1)


def test_a_job_looks_beyond_those_who_are_too_dear_for_it() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add([Act(UPPER, Temper(price_mc=60))], n=MANY, name="dear")
        mesh.add([Act(UPPER, Temper(price_mc=2))], n=2, name="cheap")
        mesh.add(name="broker")
        await mesh.ready()
        await until(lambda: len(mesh.node("broker0").known()) > MANY + 2)
        end = await mesh.submit(NAME, {"text": "x"}, by="broker0", budget_mc=50)
        assert (end.state, end.cost_mc) == ("completed", 2)

    run(story, seed=1)


# --- several agents of one node ---------------------------------------------------------------


async def beside(mesh: SimMesh, other: TextAgent, **host: int) -> tuple[Hand, dict[str, bytes]]:
    """Return a broker by hand, and what a node offers that hosts ``other`` and a shouter."""
    config = msgspec.structs.replace(CONFIG, host=msgspec.structs.replace(CONFIG.host, **host))
    await start(mesh, config, a=[], b=[TextAgent(), other])
    hand = Hand(mesh)
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)
    raw = await hand.request(OFFERS, encode(OffersBody([b"text"])))
    offers = decode_as(raw, OFFERS_BODY).items
    return hand, {read_message(o, StandingOffer, network=NETWORK).agent: o for o in offers}


def order(hand: Hand, offers: dict[str, bytes], **fields: Any) -> AwardBody:
    """Return an award to the agent beside the shouter."""
    return hand.award(offers["beside"], agent="beside", capability="text.beside@1", **fields)


def test_what_waits_at_another_agent_keeps_nobody_waiting() -> None:
    async def story(mesh: SimMesh) -> None:
        slow = TextAgent(never, name="beside", capability="text.beside@1", concurrency_max=1)
        hand, offers = await beside(mesh, slow)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(hand.send, order(hand, offers))
            await until(lambda: mesh.node("b").contractor.active == 8)
            raw = await hand.send(hand.award(offers["shout"], wait_max_ms=1))
            assert result_of(raw).state == "completed"
            raw = await hand.send(order(hand, offers, wait_max_ms=3_999))
            assert refusal_of(raw).retry_after_ms == 8 * LATENCY_GUESS_MS
            nursery.cancel_scope.cancel()

    play(story)


def test_a_node_whose_calls_are_all_taken_lets_every_agent_wait() -> None:
    async def story(mesh: SimMesh) -> None:
        crowd = TextAgent(
            never,
            name="beside",
            capability="text.beside@1",
            concurrency_max=9,
            measures=Measures(samples=9, latency_ms=2_000),
        )
        hand, offers = await beside(mesh, crowd, calls_max=2)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hand.send, order(hand, offers))
            await until(lambda: mesh.node("b").contractor.active == 3)
            raw = await hand.send(hand.award(offers["shout"], wait_max_ms=1))
            assert refusal_of(raw).retry_after_ms == 2 * 2_000 // 2, "by what is before it"
            nursery.cancel_scope.cancel()

    play(story)


# --- who says so where it isn't so ------------------------------------------------------------


def test_who_says_that_it_would_wait_no_longer_than_it_may_is_as_any_that_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add([Act(ECHO, FAST)], name="fast")
        mesh.add([Act(ECHO, SLOW)], name="slow")
        mesh.add(name="broker")
        await mesh.ready()
        mesh.node("broker0").market.candidates(ECHO.capability)
        await trio.sleep(3)
        honest = Workbench.busy
        bench = mesh.node("fast0").contractor._bench

        def busy(self: Workbench, peer: str, award: Award) -> No | None:
            no = No("crowded", "or so", retry_ms=1)
            return no if self is bench else honest(self, peer, award)

        monkeypatch.setattr(Workbench, "busy", busy)
        end = await mesh.submit(ECHO.capability, {"text": "x"}, by="broker0")
        first, second = (await ended(mesh, "broker0", end.job)).units["call/0"].attempts
        assert first.error is not None
        assert (first.error.code, first.turned) == ("node.busy", False)
        assert second.at_ms - first.at_ms >= BUSY_PAUSE_MS
        assert second.peer == mesh.mesh.peer("slow0")

    run(story, seed=1)


@pytest.mark.parametrize("code", ["node.crowded", "node.busy"])
def test_an_agent_that_fails_as_crowded_has_failed(code: str) -> None:
    class Feigned(AgentError):
        pass

    Feigned.code = code

    async def feign(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.lowlevel.checkpoint()
        raise Feigned("no time")
        yield Output(None)

    async def story(mesh: SimMesh) -> None:
        liar = TextAgent(feign)
        a, _ = await start(mesh, a=[], b=[liar])
        job = await a.submit(shouting(), inputs("x"))
        state = await a.wait(job)
        assert state.done is not None
        assert state.done.state == "failed"
        assert len(liar.calls) <= 4, "each is a try"

    play(story)
