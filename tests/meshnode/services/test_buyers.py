"""What a contractor lets a buyer have before it pays, and what it learns of it.

Real nodes in virtual time (a MockClock's); takers are worked by hand.
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import LedgerConfig, NodeConfig
from meshnode.domain.trust.buyers import UNPAID, Buyer
from meshnode.node import Node
from meshnode.services.bodies import ACCEPTANCE, OFFERS, OFFERS_BODY, RESULT_BODY, OffersBody
from meshnode.services.buyers import GRACE_MS
from protocol.codec import decode_as, encode
from protocol.keys import digest
from protocol.messages import Award, read_message
from protocol.receipts import Acceptance
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.broker_by_hand import (
    Hand,
    meet,
    refusal_of,
    refused_call,
    result_of,
)
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    until,
)


def capped(**limits: Any) -> NodeConfig:
    config: NodeConfig = msgspec.structs.replace(CONFIG, ledger=LedgerConfig(**limits))
    return config


def seen(mesh: SimMesh, buyer: str = "a") -> Buyer:
    """What b knows of a buyer."""
    node = mesh.node("b")
    return node.ledger.buyers.buyer(node.door.purchaser(mesh.peer(buyer)).keys)


async def restarted(hand: Hand) -> None:
    hand.mesh.crash("b")
    await hand.mesh.restart("b")
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)


def half(hand: Hand, award: bytes, answer: bytes, *, verdict: str = "unverified") -> bytes:
    """Return the broker's half of the receipt of an award."""
    body = decode_as(answer, RESULT_BODY)
    about = read_message(award, Award, network=CONFIG.network).h
    topic = msgspec.structs.asdict(hand.signer.header(hand.peer, hand.topic()))
    header = type(about)(**{**topic, "deadline_ms": about.deadline_ms})
    return hand.signer.sign(
        Acceptance(
            h=header,
            award=digest(award),
            receipt=digest(body.receipt),
            verdict=verdict,  # type: ignore[arg-type]  # as a test says it
            check="",
            paid_mc=0 if verdict == "rejected" else result_of(answer).price_mc,
        )
    )


async def take(hand: Hand, count: int) -> list[tuple[bytes, bytes]]:
    """Have so many calls done, one after another; return those awards with their results."""
    raw = await hand.request(OFFERS, encode(OffersBody([b"text.shout"])))
    taken: list[tuple[bytes, bytes]] = []
    for offer in decode_as(raw, OFFERS_BODY).items * count:
        body = hand.award(offer, price_cap_mc=100)
        answer = await hand.send(body)
        if decode_as(answer, RESULT_BODY).refuse:
            break
        taken.append((body.award, answer))
    return taken


async def overdue(mesh: SimMesh, seconds: float = 61.0 + GRACE_MS / 1000) -> None:
    """Let b's keepers see a clock that is so far ahead: past each award's time and grace."""
    node = mesh.node("b")
    clock = mesh.world.clock(skew_ms=round(seconds * 1000))
    node.ledger.buyers._clock = node.contractor._records._clock = clock
    await node.contractor._refuse_overdue()
    await node.contractor._records.forget_old()


# --- takers ------------------------------------------------------------------------------


def test_who_signs_nothing_gets_its_cap_and_no_more_through_restarts_and_for_good() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(price_mc=100)
        hand = await meet(mesh, agent, capped(stranger_first_mc=450))
        taken = await take(hand, 10)
        assert len(taken) == 4
        assert seen(mesh) == Buyer(open_mc=400)
        await restarted(hand)
        assert seen(mesh) == Buyer(open_mc=400)
        assert await take(hand, 1) == []
        await overdue(mesh)
        lost = Buyer(open_mc=400, lost_mc=400, unsupported=4)
        assert seen(mesh) == lost
        await restarted(hand)
        assert seen(mesh) == lost
        for days in (3, 8):
            await overdue(mesh, days * 24 * 3_600)
            refused = await refused_call(hand)
            assert (refused.reason, refused.retry_after_ms) == ("unsettled", 0)
            assert seen(mesh) == lost
        assert mesh.members["b"].disk.tables["unaccepted"] == {}
        await restarted(hand)
        assert seen(mesh) == lost, "what is lost stays lost when the awards are forgotten"
        raw = await hand.request(OFFERS, encode(OffersBody([b"text.shout"])))
        assert decode_as(raw, OFFERS_BODY).items == [], "what is offered would be refused"
        assert len(agent.calls) == 4

    play(story)


def test_what_is_in_work_counts_and_a_refusal_says_when_to_come_back() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(
            mesh,
            TextAgent(answers_after(9), price_mc=100),
            capped(stranger_first_mc=200),
        )
        offer = await hand.offer()
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(hand.award(offer, price_cap_mc=100)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
        (refused,) = [one for one in answers if decode_as(one, RESULT_BODY).refuse]
        refusal = refusal_of(refused)
        assert (refusal.reason, refusal.retry_after_ms) == ("unsettled", 1_000)
        assert "200 mc of work that it hasn't accepted: yours has 200 mc" in refusal.text

    play(story)


def test_an_award_waits_for_a_receipt_that_is_on_its_way() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=100), capped(stranger_first_mc=100))
        ((award, answer),) = await take(hand, 1)
        taken: list[tuple[bytes, bytes]] = []

        async def again() -> None:
            taken.extend(await take(hand, 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            await trio.sleep(1)
            await hand.request(ACCEPTANCE, half(hand, award, answer))
        assert len(taken) == 1
        assert seen(mesh) == Buyer(settled_mc=100, open_mc=100, accepted=1)

    play(story)


@pytest.mark.parametrize("crashes", [False, True])
def test_a_receipt_that_comes_late_takes_back_what_was_held_against_it(
    crashes: bool,
) -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=100), capped())
        first, second = await take(hand, 2)
        await overdue(mesh)
        assert seen(mesh) == Buyer(open_mc=200, lost_mc=200, unsupported=2)
        if crashes:
            await restarted(hand)
        signed = half(hand, *first)
        await hand.request(ACCEPTANCE, signed)
        await hand.request(ACCEPTANCE, signed)
        await hand.request(ACCEPTANCE, half(hand, *second, verdict="rejected"))
        came = Buyer(settled_mc=100, open_mc=100, lost_mc=100, accepted=1, unsupported=1)
        assert seen(mesh) == came
        if crashes:
            await restarted(hand)
            assert seen(mesh) == came

    play(story)


def test_who_rejects_all_that_it_gets_is_no_better_than_who_signs_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(price_mc=100)
        hand = await meet(mesh, agent, capped())
        for _ in range(20):
            for award, answer in await take(hand, 1):
                await hand.request(ACCEPTANCE, half(hand, award, answer, verdict="rejected"))
        assert len(agent.calls) == 3
        assert seen(mesh) == Buyer(open_mc=300, lost_mc=300, unsupported=3)

    play(story)


def test_free_calls_make_no_good_name() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=0), capped())
        for award, answer in await take(hand, 3):
            await hand.request(ACCEPTANCE, half(hand, award, answer))
        assert seen(mesh) == Buyer()
        assert mesh.members["b"].disk.tables.get("buyer", {}) == {}

    play(story)


# --- who has no cap ----------------------------------------------------------------------


def test_whose_word_is_believed_has_no_cap_nor_who_was_invited_by_name() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=100), capped())
        door = mesh.node("b").door
        assert door.purchaser(hand.node.peer).first_mc == 1_000
        door._ledger = LedgerConfig(believed=(hand.node.peer,))
        assert door.purchaser(hand.node.peer).first_mc == 0
        assert len(await take(hand, 12)) == 12
        door._ledger = LedgerConfig()
        door._is_public = False
        assert door.purchaser(hand.node.peer).first_mc == 1_000, "nobody knows it here"
        assert door.purchaser(mesh.peer("b")).first_mc == 0, "its business with itself"
        mesh.node("b").members.standing = lambda _: "member"  # type: ignore[method-assign,assignment]
        assert door.purchaser(hand.node.peer).first_mc == 0
        door._is_public = True
        assert door.purchaser(hand.node.peer).first_mc == 1_000, "membership costs nothing"

    play(story)


# --- honest brokers ----------------------------------------------------------------------


async def job(node: Node, count: int) -> tuple[float, int]:
    """Have a map of so many items done; return what it took, seconds, and refused awards."""
    begun_s = trio.current_time()
    words = [f"word {number}" for number in range(count)]
    state = await node.wait(await node.submit(shouting(count), inputs(*words)))
    took_s = trio.current_time() - begun_s
    assert state.done is not None
    assert state.done.state == "completed", state.done.text
    refused = [failure.code for unit in state.units.values() for failure in unit.failures()]
    assert set(refused) <= {UNPAID}
    return took_s, len(refused)


@pytest.mark.parametrize(("price_mc", "items"), [(2, 1_000), (25, 400), (300, 60)])
def test_a_long_job_of_one_honest_stranger_at_one_contractor_is_not_held_up(
    price_mc: int, items: int
) -> None:
    took_s: dict[int, float] = {}

    for first_mc in (0, 1_000):

        async def story(mesh: SimMesh, first_mc: int = first_mc) -> None:
            agent = TextAgent(answers_after(0.2), price_mc=price_mc, concurrency_max=8)
            desk, _ = await start(mesh, capped(stranger_first_mc=first_mc), a=[], b=[agent])
            took_s[first_mc], refused = await job(desk, items)
            assert refused <= (10 if first_mc else 0)
            assert len(agent.calls) == items
            await until(lambda: seen(mesh).open_mc == 0)
            assert seen(mesh).settled_mc == price_mc * items
            assert seen(mesh).fairness == 1.0

        play(story)
    assert took_s[1_000] < 1.2 * took_s[0]


def test_who_is_refused_for_good_asks_others_and_is_told_why_where_there_are_none() -> None:
    async def story(mesh: SimMesh) -> None:
        cheap, dear = TextAgent(price_mc=100), TextAgent(price_mc=101)
        desk, b, c = await start(mesh, capped(), a=[], b=[cheap], c=[dear])
        for node in (b, c):
            lost = {"lost_mc": 1_000, "open_mc": 1_000, "unsupported": 5}
            node.ledger.buyers._of(desk.peer).add(lost)
            if node is b:
                state = await desk.wait(await desk.submit(shouting(), inputs("so")))
                assert state.done is not None
                assert (state.done.state, cheap.calls, dear.calls) == ("completed", [], ["so"])
        state = await desk.wait(await desk.submit(shouting(), inputs("no")))
        assert state.done is not None
        assert state.done.code == UNPAID
        assert "1000 mc of it too late" in state.done.text

    play(story)


# --- stores of older versions -------------------------------------------------------------


async def downgraded(hand: Hand) -> None:
    """Restart b with a store as a version left it that kept a ledger and nothing of buyers."""
    hand.mesh.crash("b")
    tables = hand.mesh.members["b"].disk.tables
    for name in ("buyer", "buyer_taken_over"):
        tables.pop(name, None)
    await hand.mesh.restart("b")
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)


def test_who_was_a_customer_before_there_were_caps_is_no_stranger() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=100), capped(stranger_first_mc=100))
        for _ in range(6):
            for award, answer in await take(hand, 1):
                await hand.request(ACCEPTANCE, half(hand, award, answer))
        await take(hand, 1)  # it is out while the node is updated
        assert (seen(mesh).settled_mc, seen(mesh).open_mc) == (600, 100)
        await downgraded(hand)
        assert seen(mesh) == Buyer(settled_mc=600, open_mc=100)
        assert len(await take(hand, 1)) == 1, "it may have 250 out"
        await restarted(hand)
        assert seen(mesh) == Buyer(settled_mc=600, open_mc=200), "it counts once"

    play(story)


def test_what_is_earned_without_a_receipt_settles_nothing_later() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(price_mc=100), capped(stranger_first_mc=100))
        b = mesh.node("b")
        paid = b.ledger.advance("earned", mesh.peer("a"), bytes(32), 5_000, job="j", unit="u/0")
        await b.ledger.commit(paid)
        await restarted(hand)
        assert mesh.node("b").ledger.balances.standing(mesh.peer("a")).earned_mc == 5_000
        assert seen(mesh).settled_mc == 0, "an heir paid that, and its owner signed nothing"

    play(story)
