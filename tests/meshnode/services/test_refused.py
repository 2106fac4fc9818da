"""Brokers and owners who say no: work goes elsewhere, waits, or ends with what they say.

Real nodes in virtual time (a MockClock's).
"""

import msgspec
import pytest
import trio

from meshnode.config import NodeConfig, QuotaConfig
from meshnode.domain.circuits import CircuitState
from meshnode.domain.job import JobState
from meshnode.node import Node, Terms
from meshnode.services.bodies import AWARD, CFP, DECLINE, OFFERS, OffersBody
from meshnode.services.sessions import Incoming
from protocol.codec import encode
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, told


def opening(*hours: str) -> NodeConfig:
    """A node that is open then only; the world begins on a Thursday at midnight."""
    access = msgspec.structs.replace(CONFIG.access, hours=hours)
    return msgspec.structs.replace(CONFIG, access=access)


async def ended(node: Node, *words: str, deadline_s: float = 600.0) -> JobState:
    """Shout on ``node``'s account; return the job's end."""
    terms = Terms(deadline_s=deadline_s)
    job = await node.submit(shouting(len(words)), inputs(*words), terms)
    return await node.wait(job)


def outcome(state: JobState) -> tuple[str, str]:
    assert state.done is not None
    return state.done.state, state.done.code


def test_a_job_that_only_a_paused_node_could_do_ends_soon_and_says_why() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        await b.pause()
        with trio.fail_after(15):
            state = await ended(a, "hello")
        assert outcome(state) == ("failed", "access.paused")
        assert state.done is not None
        assert "its owner has paused this node" in state.done.text
        assert a.market.circuit(b.peer) is CircuitState.CLOSED, "to refuse is no fault"
        await b.resume()
        await trio.sleep(3)  # it is told at once
        assert outcome(await ended(a, "hello")) == ("completed", "")

    play(story)


def test_another_takes_what_a_paused_node_held_offers_for() -> None:
    async def story(mesh: SimMesh) -> None:
        cheap, dear = TextAgent(price_mc=1), TextAgent(price_mc=9)
        a, b, _ = await start(mesh, a=[], b=[cheap], c=[dear])
        assert outcome(await ended(a, "one"))[0] == "completed"
        await b.pause(3_600)
        assert outcome(await ended(a, "two"))[0] == "completed"
        assert (cheap.calls, dear.calls) == (["one"], ["two"])

    play(story)


def test_a_job_waits_for_a_node_that_opens_before_its_deadline() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a")
        b = await mesh.start("b", agents=lambda: [TextAgent()], config=opening("00:30-01:00"))
        a = mesh.node("a")
        await trio.sleep(10)
        assert outcome(await ended(a, "hello", deadline_s=3_600)) == ("completed", "")
        assert trio.current_time() == pytest.approx(1_800, abs=60)
        asked = [event for event in told(b, "contract.refused") if event["reason"] == "closed"]
        assert 1 <= len(asked) < 12, "it is left alone meanwhile"

    play(story)


def test_a_job_does_not_wait_for_a_node_that_opens_too_late() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a")
        await mesh.start("b", agents=lambda: [TextAgent()], config=opening("00:30-01:00"))
        await trio.sleep(10)
        with trio.fail_after(15):
            state = await ended(mesh.node("a"), "hello", deadline_s=600)
        assert outcome(state) == ("failed", "access.closed")
        assert state.done is not None
        assert "from 00:30 on" in state.done.text

    play(story)


def test_more_items_than_a_quota_ever_holds_are_not_asked_for_again_and_again() -> None:
    async def story(mesh: SimMesh) -> None:
        config = msgspec.structs.replace(CONFIG, quota=QuotaConfig(caller_calls_per_day=2))
        await mesh.start("a")
        b = await mesh.start("b", agents=lambda: [TextAgent(concurrency_max=1)], config=config)
        await trio.sleep(10)
        with trio.fail_after(60):
            state = await ended(mesh.node("a"), *[f"word {n}" for n in range(30)])
        assert outcome(state)[0] == "failed"
        assert state.done is not None
        assert "this node does 2 calls a day for one caller" in state.done.text
        assert len(told(b, "contract.refused")) < 20

    play(story)


def test_whoever_is_put_off_for_asking_too_often_comes_again() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        for method in (CFP, OFFERS, AWARD):
            allowance = b.door._allowances[method]
            allowance.take(a.peer, 2 * allowance.burst, now_s=trio.current_time())
        assert outcome(await ended(a, "hello")) == ("completed", "")

    play(story)


async def no_offer(_: Incoming) -> bytes:
    """Offer nothing standing: whoever wants something has to call."""
    await trio.lowlevel.checkpoint()
    return encode(OffersBody([]))


def test_who_was_called_and_not_chosen_is_told_why() -> None:
    async def story(mesh: SimMesh) -> None:
        cheap, dear = TextAgent(price_mc=1), TextAgent(price_mc=90)
        a, b, c = await start(mesh, a=[], b=[cheap], c=[dear])
        for node in (b, c):
            node.sessions.handle(OFFERS, no_offer)
        assert outcome(await ended(a, "hello"))[0] == "completed"
        won = (await b.tallies.tallies(0))[a.peer, "text.shout@1"]
        lost = (await c.tallies.tallies(0))[a.peer, "text.shout@1"]
        assert (won.proposed, won.awarded, won.lost) == (1, 1, {})
        assert (lost.proposed, lost.awarded, lost.lost) == (1, 0, {"price": 1})

    play(story)


def test_a_loser_that_has_gone_holds_nobody_up() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[TextAgent(price_mc=1)], c=[TextAgent(price_mc=90)])

        async def mute(incoming: Incoming) -> bytes:
            await trio.sleep_forever()
            return b""

        for node in (b, c):
            node.sessions.handle(OFFERS, no_offer)
        c.sessions.handle(DECLINE, mute)
        with trio.fail_after(5):
            assert outcome(await ended(a, "hello"))[0] == "completed"
        assert len(told(b, "contract.awarded")) == 1

    play(story)
