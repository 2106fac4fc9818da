"""The owner of a machine stays its master: pauses, hours, quotas and limits.

A broker is worked by hand, in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import AccessConfig, HostConfig, NodeConfig, QuotaConfig
from meshnode.domain.admission import HOUR_MS
from meshnode.domain.values import canonical
from meshnode.errors import Busy, StoreError
from meshnode.node import Node
from meshnode.services.admission import _RATES
from meshnode.services.bodies import (
    ACCEPTANCE,
    AWARD,
    CANCEL,
    CFP,
    DECLINE,
    OFFERS,
    OFFERS_BODY,
    OffersBody,
)
from protocol.codec import decode_as, encode
from protocol.errors import RemoteProtocolError
from protocol.messages import Binding, Part
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.broker_by_hand import (
    Hand,
    meet,
    refusal_of,
    refused_call,
    result_of,
    tally,
    third,
)
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


def told(config: NodeConfig = CONFIG, **tables: Any) -> NodeConfig:
    """The tests' settings with other tables."""
    changed: NodeConfig = msgspec.structs.replace(config, **tables)
    return changed


def quota(**limits: float) -> NodeConfig:
    return told(quota=QuotaConfig(**limits))  # type: ignore[arg-type]  # its fields


async def offers(hand: Hand) -> list[bytes]:
    raw = await hand.request(OFFERS, encode(OffersBody([b"text.shout"])))
    return decode_as(raw, OFFERS_BODY).items


# --- pauses --------------------------------------------------------------------------


def test_a_paused_node_takes_nothing_on_says_until_when_and_finishes_what_it_has() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(20)))
        offer = await hand.offer()
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(hand.award(offer)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(lambda: mesh.node("b").contractor.active == 1)
            await mesh.node("b").pause(7_200)
            refuse = await refused_call(hand)
            assert refuse.reason == "paused"
            assert 7_100_000 < refuse.retry_after_ms <= 7_200_000
            assert "paused this node until 02:00" in refuse.text
            assert await offers(hand) == []
            late = refusal_of(await hand.send(hand.award(offer)))
            assert (late.reason, late.text) == ("paused", refuse.text)
        assert result_of(answers[0]).state == "completed"

    play(story)


def test_a_pause_holds_through_a_restart_and_ends_by_itself() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        await mesh.node("b").pause(100)
        mesh.crash("b")
        again = await mesh.restart("b")
        assert again.door.paused is not None
        await trio.sleep(5)
        assert (await refused_call(hand)).reason == "paused"
        await trio.sleep(100)
        assert again.door.paused is None
        assert len(await offers(hand)) == 1

    play(story)


def test_a_resumed_node_works_again_also_after_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        node = mesh.node("b")
        await node.pause()
        refuse = await refused_call(hand)
        assert (refuse.reason, refuse.retry_after_ms) == ("paused", 0)
        assert await node.resume()
        assert not await node.resume()
        mesh.crash("b")
        await mesh.restart("b")
        await trio.sleep(5)
        assert len(await offers(hand)) == 1

    play(story)


def test_a_pause_that_can_not_be_written_down_is_none() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        mesh.fill_disk("b")
        with pytest.raises(StoreError):
            await mesh.node("b").pause()
        assert mesh.node("b").door.paused is None
        assert len(await offers(hand)) == 1

    play(story)


def test_the_owners_own_jobs_know_no_pause_hours_or_quota() -> None:
    async def story(mesh: SimMesh) -> None:
        config = told(
            quota=QuotaConfig(calls_per_hour=1), access=AccessConfig(hours="fri 10:00-11:00")
        )
        (node,) = await start(mesh, config, a=[TextAgent()])
        await node.pause()
        for _ in range(3):
            job = await node.submit(shouting(), inputs("hi"))
            assert (await node.wait(job)).done is not None
            assert await node.outputs(job) == {"said": "HI"}
        assert await node.tallies.tallies(0) == {}, "and they are not counted"

    play(story)


# --- hours ---------------------------------------------------------------------------


def test_outside_its_hours_a_node_says_when_it_opens_and_then_it_does() -> None:
    async def story(mesh: SimMesh) -> None:
        # The world begins on a Thursday at midnight.
        access = msgspec.structs.replace(CONFIG.access, hours=("thu 00:10-12:00",))
        hand = await meet(mesh, TextAgent(), told(access=access))
        refuse = await refused_call(hand)
        assert refuse.reason == "closed"
        assert "from 00:10 on" in refuse.text
        assert await offers(hand) == []
        await trio.sleep(refuse.retry_after_ms / 1000)
        assert len(await offers(hand)) == 1

    play(story)


# --- quotas --------------------------------------------------------------------------


def test_a_callers_quota_is_taken_to_the_last_call_and_holds_through_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(), quota(caller_calls_per_hour=3))
        offer = await hand.offer()
        for _ in range(3):
            assert result_of(await hand.send(hand.award(offer))).state == "completed"
        refuse = refusal_of(await hand.send(hand.award(offer)))
        assert refuse.reason == "quota"
        assert 0 < refuse.retry_after_ms <= HOUR_MS
        assert await offers(hand) == []
        mesh.crash("b")
        await mesh.restart("b")
        await trio.sleep(5)
        assert (await refused_call(hand)).reason == "quota"
        other = await third(mesh, hand)
        raw = await other.sessions.request(
            hand.peer, OFFERS, encode(OffersBody([b"text.shout"])), timeout_s=10
        )
        assert len(decode_as(raw, OFFERS_BODY).items) == 1, "another caller has its own"
        await trio.sleep(refuse.retry_after_ms / 1000)
        assert result_of(await hand.send(hand.award(await hand.offer()))).state == "completed"

    play(story)


def test_all_callers_together_have_a_quota_too() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(), quota(calls_per_day=2))
        offer = await hand.offer()
        other = Hand(mesh, name="c")
        await third(mesh, hand)
        assert result_of(await hand.send(hand.award(offer))).state == "completed"
        assert result_of(await other.send(other.award(await other.offer()))).inline
        assert refusal_of(await hand.send(hand.award(offer))).reason == "quota"
        assert (await refused_call(other)).reason == "quota"

    play(story)


def test_awards_at_once_share_what_is_left_of_a_quota() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        hand = await meet(mesh, agent, quota(calls_per_day=2))
        offer = await hand.offer()
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(hand.award(offer)))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
        assert len(agent.calls) == 2

    play(story)


def test_an_award_that_the_disk_refuses_uses_up_no_quota() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(), quota(calls_per_day=1))
        offer = await hand.offer()
        mesh.fill_disk("b", count=1)
        with pytest.raises(Busy):
            await hand.send(hand.award(offer))
        assert result_of(await hand.send(hand.award(offer))).state == "completed"

    play(story)


def test_a_call_of_more_items_than_a_quota_ever_has_is_told_so() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(), quota(calls_per_day=2))
        refuse = await refused_call(hand, items=3)
        assert (refuse.reason, refuse.retry_after_ms) == ("items", 0)
        assert "3 calls at once: this node does 2 calls a day" in refuse.text

    play(story)


def test_the_time_that_agents_ran_is_a_quota_too() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(6)), quota(caller_run_s_per_day=10.0))
        offer = await hand.offer()
        for _ in range(2):
            assert result_of(await hand.send(hand.award(offer))).state == "completed"
        assert "10 s of work a day" in refusal_of(await hand.send(hand.award(offer))).text
        assert 12_000 <= (await tally(mesh)).run_ms < 12_100

    play(story)


# --- limits --------------------------------------------------------------------------


def test_the_owners_limits_hold_whatever_an_agent_says() -> None:
    async def story(mesh: SimMesh) -> None:
        config = told(host=HostConfig(input_bytes_max=100, run_s_max=5.0))
        hand = await meet(mesh, TextAgent(never, timeout_s=60.0), config)
        (told_,) = mesh.node("b").host.capabilities()
        assert (told_.limits.input_bytes, told_.limits.timeout_ms) == (100, 5_000)
        assert (await refused_call(hand, input_bytes=101)).reason == "size"
        offer = await hand.offer()
        begun_s = trio.current_time()
        late = result_of(await hand.send(hand.award(offer)))
        assert late.error_code == "agent.timeout"
        assert trio.current_time() - begun_s < 6
        large = Binding(parts=[Part(inline=canonical("x" * 101))])
        big = result_of(await hand.send(hand.award(offer, inputs={"text": large})))
        assert big.error_code == "input.invalid"

    play(story)


@pytest.mark.parametrize("method", [CFP, OFFERS, AWARD, DECLINE, CANCEL, ACCEPTANCE])
def test_who_asks_too_often_is_put_off_and_others_are_not(method: str) -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        other = await third(mesh, hand)
        await trio.sleep(60)
        burst, per_s = _RATES[method]
        node = mesh.node("b")
        handle = node.sessions.handler(method)
        assert handle is not None

        async def ask(peer: str) -> str:
            try:
                await handle(incoming(node, peer, method))
            except Busy as exc:
                return f"busy {exc.retry_after_ms}"
            except RemoteProtocolError:
                return "nonsense"
            return ""

        answers = [await ask(hand.node.peer) for _ in range(burst)]
        assert "busy" not in " ".join(answers)
        assert (await ask(hand.node.peer)).startswith("busy")
        assert not (await ask(other.peer)).startswith("busy")
        await trio.sleep(1 / per_s)
        assert not (await ask(hand.node.peer)).startswith("busy")

    play(story)


def incoming(node: Node, peer: str, method: str) -> Any:
    from meshnode.services.sessions import Incoming

    async def send(_: bytes) -> None:
        raise AssertionError

    return Incoming(peer, method, b"nonsense", trio.current_time() + 5, "", send)


def test_a_broker_whose_outputs_fill_its_room_is_told_before_the_work_is_done() -> None:
    async def story(mesh: SimMesh) -> None:
        host = HostConfig(artifact_peer_bytes_max=50, artifact_lifetime_s=300.0)
        agent = TextAgent()
        hand = await meet(mesh, agent, told(host=host))
        offer = await hand.offer()

        async def shouted(text: str) -> bytes:
            part = Part(inline=canonical(text))
            return await hand.send(hand.award(offer, inputs={"text": Binding(parts=[part])}))

        exact = "x" * (50 - len(canonical({"text": ""})))
        assert result_of(await shouted(exact)).state == "completed"
        refuse = refusal_of(await shouted("y"))
        assert (refuse.reason, agent.calls) == ("quota", [exact])
        assert "some must lapse" in (await refused_call(hand)).text
        await trio.sleep(300 + 61)
        offer = await hand.offer()
        assert result_of(await shouted("y")).state == "completed"

    play(story)
