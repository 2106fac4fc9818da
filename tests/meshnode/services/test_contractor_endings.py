"""How a contractor's work ends: leases, cancels, restarts, and trouble of its own.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from meshnode.domain.values import canonical
from meshnode.errors import AgentError, Busy, MeshError
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.bodies import (
    CANCEL,
    OFFERS,
    OFFERS_BODY,
    AwardBody,
    OffersBody,
)
from meshnode.services.sessions import RequestFailed
from protocol.codec import decode_as, encode
from protocol.keys import digest
from protocol.messages import (
    Binding,
    Cancel,
    Part,
    Ticket,
)
from simulations.mesh import SimMesh
from simulations.store import MemoryStore
from tests.meshnode.services.broker_by_hand import (
    Hand,
    insist,
    meet,
    refusal_of,
    result_of,
    third,
)
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    never,
    play,
    shout,
    told,
    until,
)

# --- ending --------------------------------------------------------------------------


def test_the_work_stops_when_its_broker_has_been_gone_for_the_lease() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(never)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        mesh.world.nursery.start_soon(ignore, hand, body)
        await until(lambda: agent.running == 1)
        await trio.sleep(20)
        assert agent.running == 1, "the lease holds while the broker is there"
        mesh.crash("a")
        gone_s = trio.current_time()
        await until(lambda: agent.running == 0)
        assert 9.9 <= agent.stopped_s[0] - gone_s < 10.5
        await mesh.restart("a")
        await trio.sleep(1)
        assert result_of(await hand.send(body)).error_code == "lease.lapsed"

    async def ignore(hand: Hand, body: AwardBody) -> None:
        with pytest.raises(MeshError):
            await hand.send(body)

    play(story)


def test_an_agent_that_is_removed_finishes_what_it_does_at_its_price() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5), price_mc=3)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer(), price_cap_mc=10)

        async def remove() -> None:
            await until(lambda: agent.running == 1)
            await mesh.node("b").remove_agent(agent.spec.name)

        mesh.world.nursery.start_soon(remove)
        result = result_of(await hand.send(body))
        assert (result.state, result.price_mc) == ("completed", 3)
        assert not told(mesh.node("b"), "award.bug")

    play(story)


def test_a_broker_that_is_back_within_the_lease_finds_the_work_going_on() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(15))
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        with trio.move_on_after(2):
            await hand.send(body)
        await trio.sleep(8)
        assert result_of(await hand.send(body)).state == "completed"
        assert len(agent.calls) == 1

    play(story)


def test_a_cancel_is_acknowledged_once_the_agent_has_stopped_and_not_before() -> None:
    async def stubborn(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
        yield Output(None)

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(stubborn)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                result = result_of(await hand.send(body))
                assert (result.state, result.error_code) == ("cancelled", "cancelled")

            nursery.start_soon(send)
            await until(lambda: agent.running == 1)
            begun_s = trio.current_time()
            await hand.cancel(body)
            assert trio.current_time() - begun_s >= 2
            assert agent.running == 0

    play(story)


def test_a_cancel_that_overtakes_its_award_still_stops_it() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        await hand.cancel(body)
        assert refusal_of(await hand.send(body)).reason == "cancelled"
        assert agent.calls == []

    play(story)


def test_another_brokers_award_can_not_be_cancelled() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        hand = await meet(mesh, agent)
        other = await third(mesh, hand)
        body = hand.award(await hand.offer())
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                assert result_of(await hand.send(body)).state == "completed"

            nursery.start_soon(send)
            await until(lambda: agent.running == 1)
            signer = other.artifacts._signer
            forged = Cancel(
                h=signer.header(hand.peer, hand.topic()),
                award=digest(body.award),
                reason="owner",
            )
            with pytest.raises(RequestFailed):
                await other.sessions.request(
                    hand.peer, CANCEL, signer.sign(forged), timeout_s=10
                )

    play(story)


# --- trouble of its own --------------------------------------------------------------


def test_after_a_restart_unfinished_work_is_begun_again_once() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist, hand, body)  # from the very first moment on
            await until(lambda: agent.running == 1)
            mesh.crash("b")
            agent.calls.clear()
            await mesh.restart("b")
        assert result_of(await hand.send(body)).state == "completed"
        assert len(agent.calls) == 1

    play(story)


def test_what_comes_while_a_restart_looks_for_unfinished_work_waits_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = MemoryStore.scan

    async def slow(self: MemoryStore, table: str, *args: Any, **options: Any) -> Any:
        found = await honest(self, table, *args, **options)
        await trio.sleep(3 / 16 if table == "award" else 0)  # in sixteen parts
        return found

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        hand = await meet(mesh, agent)
        offer = await hand.offer()
        kept, dropped = hand.award(offer), hand.award(offer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist, hand, kept)
            with trio.move_on_after(1):
                await hand.send(dropped)
            mesh.crash("b")
            agent.calls.clear()
            monkeypatch.setattr(MemoryStore, "scan", slow)
            await mesh.restart("b")
            await until(lambda: bool(hand.node.sessions.connected()), within_s=2.9)
            await hand.cancel(dropped)
            assert agent.running <= 1, "what was cancelled has stopped"
            await trio.sleep(1)
            assert agent.running == 1
        assert len(agent.calls) <= 2, "each at most once"

    play(story)


def test_a_result_that_the_disk_refuses_is_kept_until_it_takes_it() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3))
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                assert result_of(await hand.send(body)).state == "completed"

            nursery.start_soon(send)
            await until(lambda: agent.running == 1)
            await trio.sleep(1)  # the award is written down
            mesh.fill_disk("b", count=3)
        assert told(mesh.node("b"), "award.unsaved")
        assert mesh.up("b")
        assert len(agent.calls) == 1

    play(story)


@pytest.mark.parametrize("seconds", [0, 3], ids=["done at once", "done later"])
def test_an_award_that_the_disk_refuses_is_not_taken(seconds: float) -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(seconds) if seconds else shout)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        mesh.fill_disk("b", count=1)
        with pytest.raises(Busy, match=r"^this node can't write$"):
            await hand.send(body)
        assert not agent.calls
        assert result_of(await hand.send(body)).state == "completed"  # asked again later

    play(story)


def test_nothing_is_answered_before_it_is_on_the_disk() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(shout)
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        name = digest(body.award).hex()
        answer = await hand.send(body)
        mesh.crash("b")  # what isn't durable is gone now
        await mesh.restart("b")
        store = mesh.node("b")._ports.store
        assert await store.read("result", name) == answer
        assert await store.read("award", name) == encode(body)
        assert await insist(hand, body) == answer
        assert len(agent.calls) == 1

    play(story)


def test_a_malformed_ticket_fails_its_award_and_nothing_else() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        offer = await hand.offer()
        result = result_of(await hand.send(hand.award(offer, tickets=[b"\x80"])))
        assert (result.state, result.error_code) == ("failed", "award.malformed")
        assert result_of(await hand.send(hand.award(offer))).state == "completed"

    play(story)


def test_an_input_that_nobody_holds_fails_as_an_artifact() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        name = digest(b"nowhere")
        ticket = Ticket(
            h=hand.signer.header(hand.peer, hand.topic()), artifact=name, holder=hand.node.peer
        )
        part = Part(artifact=name, size=7, holder=hand.node.peer)
        body = hand.award(
            await hand.offer(),
            inputs={"text": Binding(parts=[part])},
            tickets=[hand.signer.sign(ticket)],
        )
        assert result_of(await hand.send(body)).error_code == "artifact.unavailable"

    play(story)


@pytest.mark.parametrize("forget", [False, True], ids=["in memory", "on disk"])
def test_what_is_held_for_another_broker_is_no_input_for_who_knows_its_hash(
    *, forget: bool
) -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        artifacts = mesh.node("b").artifacts
        secret = canonical("the other broker's")
        owner = mesh.identity("c").peer
        ref = await artifacts.put(secret, job="job", broker=owner)
        if forget:
            artifacts._memory.clear()
            artifacts._granted.clear()
        offer = await hand.offer()
        ticket = hand.node.artifacts.ticket(
            ref.artifact, holder=hand.peer, reader=hand.peer, topic=hand.topic()
        )
        part = Part(artifact=ref.artifact, size=ref.size, holder=hand.peer)
        for tickets in ([], [ticket]):
            body = hand.award(offer, inputs={"text": Binding(parts=[part])}, tickets=tickets)
            result = result_of(await hand.send(body))
            assert (result.state, result.error_code) == ("failed", "artifact.unavailable")
            assert "no longer held here" in result.error_text, "nor is it told that it is"
        assert agent.calls == []
        await artifacts.put(secret, job="job", broker=hand.node.peer)  # its job made it too
        body = hand.award(offer, inputs={"text": Binding(parts=[part])})
        assert result_of(await hand.send(body)).state == "completed"

    play(story)


def test_a_hint_is_for_the_owners_log_and_not_for_the_broker() -> None:
    async def far(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
        raise AgentError("nothing answers", hint="http://10.0.0.7:8000: refused")
        yield

    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(far))
        answer = await hand.send(hand.award(await hand.offer()))
        assert result_of(answer).error_text == "nothing answers"
        assert b"10.0.0.7" not in answer
        (failed,) = told(mesh.node("b"), "award.failed")
        assert failed["hint"] == "http://10.0.0.7:8000: refused"

    play(story)


def test_a_draining_contractor_finishes_what_it_has_and_takes_no_more() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(5)))
        offer = await hand.offer()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                assert result_of(await hand.send(hand.award(offer))).state == "completed"

            nursery.start_soon(send)
            await until(lambda: mesh.node("b").contractor.active == 1)
            mesh.node("b").contractor.drain()
            assert refusal_of(await hand.send(hand.award(offer))).reason == "busy"
            raw = await hand.request(OFFERS, encode(OffersBody([b"text.shout"])))
            assert decode_as(raw, OFFERS_BODY).items == []
            await mesh.node("b").contractor.drained()

    play(story)
