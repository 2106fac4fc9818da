"""The contractor, asked by hand: calls and awards that a broker's own code would not send.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
import trio

from meshnode.domain.values import canonical
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.bodies import (
    AWARD,
    CANCEL,
    CFP,
    OFFERS,
    OFFERS_BODY,
    RESULT_BODY,
    AwardBody,
    OffersBody,
)
from meshnode.services.sessions import RequestFailed
from meshnode.services.signer import Signer, Topic
from protocol.codec import decode_as, encode
from protocol.errors import ErrorCode
from protocol.keys import digest
from protocol.messages import (
    Award,
    Binding,
    Cancel,
    Cfp,
    Part,
    Progress,
    Proposal,
    Refuse,
    Result,
    StandingOffer,
    Ticket,
    read_message,
)
from protocol.signing import peek
from simulations.clock import EPOCH_MS
from simulations.mesh import CONFIG, NETWORK, SimMesh
from simulations.store import MemoryStore
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    never,
    play,
    start,
    told,
    until,
)


@dataclass
class Hand:
    """A broker worked by hand, on node a, towards node b."""

    mesh: SimMesh

    @property
    def node(self) -> Node:
        return self.mesh.node("a")

    @property
    def signer(self) -> Signer:
        return self.node.artifacts._signer

    @property
    def peer(self) -> str:
        return self.mesh.peer("b")

    def topic(self, deadline_s: float = 60.0) -> Topic:
        now_ms = self.mesh.members["a"].clock.now_ms()
        return Topic(
            job="job",
            subtask="say/0",
            deadline_ms=now_ms + int(deadline_s * 1000),
            idempotency_key="job/say/0",
        )

    async def request(self, method: str, body: bytes, **options: Any) -> bytes:
        return await self.node.sessions.request(
            self.peer, method, body, timeout_s=options.pop("timeout_s", 100.0), **options
        )

    def cfp(self, **fields: Any) -> bytes:
        message = Cfp(
            h=self.signer.header(self.peer, self.topic()),
            capability="text.shout@1",
            items=1,
            input_bytes=10,
            timeout_ms=30_000,
            price_max_mc=100,
        )
        return self.signer.sign(msgspec.structs.replace(message, **fields))

    async def offer(self) -> bytes:
        """Return b's standing offer."""
        raw = await self.request(OFFERS, encode(OffersBody([b"text.shout"])))
        return decode_as(raw, OFFERS_BODY).items[0]

    def award(self, terms: bytes, *, deadline_s: float = 60.0, **fields: Any) -> AwardBody:
        part = Part(inline=canonical("hello"))
        message = Award(
            h=self.signer.header(self.peer, self.topic(deadline_s), lifetime_ms=600_000),
            cfp=b"",
            proposal=digest(terms),
            agent="shout",
            capability="text.shout@1",
            inputs={"text": Binding(parts=[part])},
            each=[],
            items=1,
            price_cap_mc=2,
            timeout_ms=50_000,
            lease_ms=10_000,
        )
        return AwardBody(self.signer.sign(msgspec.structs.replace(message, **fields)), terms)

    async def send(self, body: AwardBody, **options: Any) -> bytes:
        return await self.request(AWARD, encode(body), **options)

    async def cancel(self, body: AwardBody) -> None:
        message = Cancel(
            h=self.signer.header(self.peer, self.topic()),
            award=digest(body.award),
            reason="owner",
        )
        await self.request(CANCEL, self.signer.sign(message))


def result_of(raw: bytes) -> Result:
    return read_message(decode_as(raw, RESULT_BODY).result, Result, network=NETWORK)


def refusal_of(raw: bytes) -> Refuse:
    return read_message(decode_as(raw, RESULT_BODY).refuse, Refuse, network=NETWORK)


async def meet(mesh: SimMesh, agent: TextAgent) -> Hand:
    await start(mesh, a=[], b=[agent])
    hand = Hand(mesh)
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)
    return hand


async def third(mesh: SimMesh, hand: Hand) -> Node:
    """Start another node that has a session with b."""
    other = await mesh.start("c")
    await until(lambda: bool(other.addresses_of(hand.peer)))
    await other.sessions.connect(hand.peer)
    return other


async def insist(hand: Hand, body: AwardBody) -> bytes:
    """Send an award until it is answered."""
    while True:
        try:
            return await hand.send(body)
        except MeshError:
            await trio.sleep(0.05)


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
        await trio.sleep(3 if table == "award" else 0)
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
                assert result_of(await hand.send(body)).error_code == "store.failed"

            nursery.start_soon(send)
            await until(lambda: agent.running == 1)
            mesh.fill_disk("b", count=4)  # the output, and the result three times
        assert told(mesh.node("b"), "award.unsaved")
        assert mesh.up("b")

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
            await mesh.node("b").contractor.drained()

    play(story)


def test_the_story_above_begins_when_the_clock_says_so() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        offer = read_message(await hand.offer(), StandingOffer, network=NETWORK)
        assert peek(await hand.offer()).t == StandingOffer.TYPE
        assert EPOCH_MS <= offer.h.issued_ms < EPOCH_MS + 60_000

    play(story)
