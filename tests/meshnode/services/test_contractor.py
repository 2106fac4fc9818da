"""The contractor, asked by hand: calls and awards that a broker's own code would not send.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio

from meshnode.domain.values import canonical
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.bodies import (
    AWARD,
    CFP,
    OFFERS,
    OFFERS_BODY,
    OffersBody,
)
from meshnode.services.sessions import RequestFailed
from meshnode.services.signer import Topic
from protocol.codec import decode_as, encode
from protocol.errors import ErrorCode
from protocol.keys import digest
from protocol.messages import (
    Binding,
    Part,
    Progress,
    Proposal,
    Refuse,
    StandingOffer,
    read_message,
)
from simulations.mesh import CONFIG, NETWORK, SimMesh
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
    until,
)

# --- proposing -----------------------------------------------------------------------


def test_a_call_is_answered_with_a_proposal_that_an_award_may_bind() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        cfp = hand.cfp()
        raw = await hand.request(CFP, cfp)
        proposal = read_message(raw, Proposal, network=NETWORK)
        assert (proposal.cfp, proposal.price_mc) == (digest(cfp), 2)
        answer = await hand.send(hand.award(raw, cfp=digest(cfp)))
        assert result_of(answer).inline == canonical({"text": "HELLO"})

    play(story)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"capability": "text.whisper"}, "not_offered"),
        ({"price_max_mc": 1}, "price"),
        ({"input_bytes": 10**9}, "size"),
    ],
)
def test_a_call_that_does_not_suit_is_refused_with_its_reason(
    fields: dict[str, Any], reason: str
) -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        raw = await hand.request(CFP, hand.cfp(**fields))
        assert read_message(raw, Refuse, network=NETWORK).reason == reason

    play(story)


def test_a_call_that_comes_twice_is_a_replay() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        cfp = hand.cfp()
        await hand.request(CFP, cfp)
        with pytest.raises(RequestFailed) as caught:
            await hand.request(CFP, cfp)
        assert caught.value.failure == ErrorCode.STALE

    play(story)


def test_a_full_contractor_says_busy() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(never))
        limit = CONFIG.host.per_peer_max
        async with trio.open_nursery() as nursery:
            offer = await hand.offer()
            for _ in range(limit):
                nursery.start_soon(hand.send, hand.award(offer))
            await until(lambda: mesh.node("b").contractor.active == limit)
            assert refusal_of(await hand.send(hand.award(offer))).reason == "busy"
            raw = await hand.request(CFP, hand.cfp())
            assert read_message(raw, Refuse, network=NETWORK).reason == "busy"
            nursery.cancel_scope.cancel()

    play(story)


# --- awards --------------------------------------------------------------------------


def test_an_award_that_comes_again_is_answered_the_same_and_done_once() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3))
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)  # twice at the same time,
            nursery.start_soon(send)
            await trio.sleep(1)
            nursery.start_soon(send)  # while it runs,
        await send()  # and when it is over
        mesh.crash("b")
        await mesh.restart("b")
        answers.append(await insist(hand, body))  # and by another process
        assert len(answers) == 5
        assert len(set(answers)) == 1
        assert len(agent.calls) == 1

    play(story)


def test_the_same_award_twice_at_once_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = MemoryStore.read
    pauses = iter([0.0, 0.0, 1.0])  # the second copy reads, and waits: the first is done

    async def slow(self: MemoryStore, table: str, key: str) -> bytes | None:
        found = await honest(self, table, key)
        if table in {"result", "epoch"}:
            await trio.sleep(next(pauses, 1.0))
        return found

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        body = hand.award(await hand.offer())
        monkeypatch.setattr(MemoryStore, "read", slow)
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(body))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
        assert answers[0] == answers[1]
        assert len(agent.calls) == 1

    play(story)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"proposal": digest(b"another")}, "terms"),
        ({"agent": "whisper"}, "terms"),
        ({"capability": "text.shout@2"}, "terms"),
        ({"price_cap_mc": 1}, "price"),
        ({"items": 2, "price_cap_mc": 4}, "terms"),
        ({"cfp": digest(b"never sent")}, "terms"),
        ({"items": 1_001, "each": ["text"], "price_cap_mc": 3_000}, "terms"),
    ],
)
def test_an_award_outside_the_offer_is_refused_and_not_done(
    fields: dict[str, Any], reason: str
) -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        answer = await hand.send(hand.award(await hand.offer(), **fields))
        assert refusal_of(answer).reason == reason
        assert agent.calls == []

    play(story)


def test_an_award_of_more_items_than_were_called_for_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        cfp = hand.cfp()
        proposal = await hand.request(CFP, cfp)
        fields: dict[str, Any] = {
            "cfp": digest(cfp),
            "items": 2,
            "each": ["text"],
            "price_cap_mc": 9,
        }
        answer = await hand.send(hand.award(proposal, **fields))
        assert refusal_of(answer).text == "2 items are more than were called for"
        assert agent.calls == []

    play(story)


def test_an_offer_made_to_somebody_else_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        other = await third(mesh, hand)
        raw = await other.sessions.request(
            hand.peer, OFFERS, encode(OffersBody([b"text"])), timeout_s=10
        )
        stolen = decode_as(raw, OFFERS_BODY).items[0]
        assert refusal_of(await hand.send(hand.award(stolen))).reason == "terms"

    play(story)


def test_an_offer_of_the_brokers_own_making_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        forged = hand.signer.sign(
            StandingOffer(
                h=hand.signer.header(hand.node.peer, Topic()),
                agent="shout",
                capability="text.shout@1",
                price_mc=0,
                items_max=9,
                awards_max=9,
                latency_ms=0,
            )
        )
        answer = await hand.send(hand.award(forged, price_cap_mc=0))
        assert refusal_of(answer).reason == "terms"

    play(story)


def test_an_award_after_the_offer_lapsed_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        offer = await hand.offer()
        await trio.sleep(601)
        assert refusal_of(await hand.send(hand.award(offer))).reason == "offer_expired"

    play(story)


def test_an_award_past_its_deadline_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        answer = await hand.send(hand.award(await hand.offer(), deadline_s=-1))
        assert refusal_of(answer).reason == "deadline"

    play(story)


def test_an_award_that_another_signed_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        other = await third(mesh, hand)
        body = hand.award(await hand.offer())
        with pytest.raises(RequestFailed) as caught:
            await other.sessions.request(hand.peer, AWARD, encode(body), timeout_s=10)
        assert caught.value.failure == ErrorCode.MALFORMED
        assert agent.calls == []

    play(story)


def test_a_lower_epoch_than_seen_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        offer = await hand.offer()
        later = hand.award(offer)
        header = msgspec.structs.replace(
            hand.signer.header(hand.peer, replace(hand.topic(), epoch=2))
        )
        await hand.send(hand.award(offer, h=header))
        with pytest.raises(RequestFailed) as caught:
            await hand.send(later)
        assert caught.value.failure == ErrorCode.STALE

    play(story)


@pytest.mark.parametrize("ahead_s", [-45, 45])
def test_a_deadline_counts_by_the_clock_of_who_set_it(ahead_s: int) -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a")
        agent = TextAgent(answers_after(25))
        await mesh.start("b", agents=lambda: [agent], skew_ms=ahead_s * 1000)
        hand = Hand(mesh)
        await trio.sleep(1)
        await hand.node.sessions.connect(hand.peer)
        await trio.sleep(1)
        offer = await hand.offer()
        assert result_of(await hand.send(hand.award(offer, deadline_s=30))).state == "completed"
        late = result_of(await hand.send(hand.award(offer, deadline_s=20)))
        assert (late.state, late.error_code) == ("failed", "agent.timeout")

    play(story)


def test_progress_is_streamed_while_it_runs() -> None:
    async def talks(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        for piece in ("one ", "two ", "three"):
            yield Chunk(piece)
            await trio.sleep(1)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(talks))
        seen: list[bytes] = []
        await hand.send(hand.award(await hand.offer()), on_item=seen.append)
        read = [read_message(raw, Progress, network=NETWORK) for raw in seen]
        assert "".join(progress.text for progress in read) == "one two three"
        assert [progress.seq for progress in read] == sorted({p.seq for p in read})

    play(story)


def test_what_the_result_says_itself_is_no_progress_to_tell() -> None:
    """Given a call that says nothing on its way, and a batch of three, one after another."""

    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(1.0), concurrency_max=1))
        seen: list[bytes] = []
        await hand.send(hand.award(await hand.offer()), on_item=seen.append)
        assert seen == []
        words = Part(inline=canonical(["a", "b", "c"]))
        inputs = {"text": Binding(parts=[words])}
        three = hand.award(
            await hand.offer(), items=3, each=["text"], inputs=inputs, price_cap_mc=6
        )
        await hand.send(three, on_item=seen.append)
        read = [read_message(raw, Progress, network=NETWORK) for raw in seen]
        assert [progress.items_done for progress in read] == [1, 2]

    play(story)
