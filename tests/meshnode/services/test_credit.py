"""Limits to what is owed: a contractor refuses who owes enough, a broker asks somebody else.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import trio

from meshnode.config import LedgerConfig, NodeConfig
from meshnode.domain.job import JobState
from meshnode.domain.ledger import Posting
from meshnode.node import Node
from meshnode.services.bodies import OFFERS, OFFERS_BODY, RESULT_BODY, OffersBody
from protocol.codec import decode_as, encode
from simulations.mesh import CONFIG, SimMesh
from simulations.money import check_money
from tests.meshnode.services.broker_by_hand import (
    meet,
    refusal_of,
    refused_call,
    result_of,
)
from tests.meshnode.services.test_retention import days_later
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    until,
)


def credit(**limits: Any) -> NodeConfig:
    config: NodeConfig = msgspec.structs.replace(CONFIG, ledger=LedgerConfig(**limits))
    return config


async def ended(node: Node, *words: str) -> JobState:
    state = await node.wait(await node.submit(shouting(len(words)), inputs(*words)))
    await until(lambda: not node.receipts._sending)
    return state


def outcome(state: JobState) -> str:
    assert state.done is not None
    return state.done.code or state.done.state


# --- the contractor ---------------------------------------------------------------------


def test_who_owes_enough_is_refused_and_told_what_to_do() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await start(mesh, credit(owed_max_mc=5), a=[], b=[TextAgent()])
        assert [outcome(await ended(desk, word)) for word in ("one", "two")] == [
            "completed"
        ] * 2
        await until(lambda: worker.ledger.balances.due_mc(desk.peer) == 4)
        state = await ended(desk, "three")
        assert outcome(state) == "credit.exhausted"
        assert state.done is not None
        assert "lets one peer owe it 5 mc: yours owes 4 mc, and 2 mc more" in state.done.text
        assert f"meshnode ledger settle {worker.peer}" in state.done.text
        assert list(check_money(mesh)) == []

    play(story)


def test_work_that_is_not_accepted_uses_credit_up_through_a_crash_until_it_is_lost() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(), credit(owed_max_mc=5))
        offer = await hand.offer()
        for _ in range(2):
            assert result_of(await hand.send(hand.award(offer))).state == "completed"
        worker = mesh.node("b")
        assert worker.ledger.waiting_mc(hand.node.peer) == 4
        assert refusal_of(await hand.send(hand.award(offer))).reason == "credit"
        mesh.crash("b")
        await mesh.restart("b")
        worker = mesh.node("b")
        await hand.node.sessions.connect(hand.peer)
        await trio.sleep(1)
        refused = await refused_call(hand)
        assert (refused.reason, refused.retry_after_ms) == ("credit", 0)
        assert "has 4 mc of work that it hasn't accepted" in refused.text
        raw = await hand.request(OFFERS, encode(OffersBody([b"text.shout"])))
        assert decode_as(raw, OFFERS_BODY).items == [], "what is offered would be refused"
        days_later(mesh, worker, 8)
        assert await worker.contractor._records.forget_old() == 2
        assert worker.ledger.waiting_mc(hand.node.peer) == 0
        assert mesh.members["b"].disk.tables["unaccepted"] == {}

    play(story)


def test_what_is_in_work_counts() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(answers_after(5)), credit(owed_max_mc=5))
        offer = await hand.offer()
        answers: list[bytes] = []

        async def send() -> None:
            answers.append(await hand.send(hand.award(offer)))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(send)
        refused = [answer for answer in answers if decode_as(answer, RESULT_BODY).refuse]
        assert len(refused) == 2
        assert {refusal_of(answer).reason for answer in refused} == {"credit"}

    play(story)


def test_free_work_is_never_refused_for_credit() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await start(mesh, credit(owed_max_mc=1), a=[], b=[TextAgent(price_mc=0)])
        await worker.ledger.commit(
            Posting(key="00", peer=desk.peer, kind="earned", amount_mc=7, at_ms=0)
        )
        assert outcome(await ended(desk, "one")) == "completed"

    play(story)


# --- the broker --------------------------------------------------------------------------


def test_whom_this_node_owes_enough_is_passed_over() -> None:
    async def story(mesh: SimMesh) -> None:
        cheap, dear = TextAgent(price_mc=2), TextAgent(price_mc=3)
        desk, b, c = await start(mesh, credit(owing_max_mc=5), a=[], b=[cheap], c=[dear])
        for word in ("one", "two", "three"):
            assert outcome(await ended(desk, word)) == "completed"
        assert (cheap.calls, dear.calls) == (["one", "two"], ["three"])
        state = await ended(desk, "four")
        assert outcome(state) == "credit.exhausted"
        assert state.done is not None
        assert "raise that" in state.done.text
        assert all(peer in state.done.text for peer in (b.peer, c.peer))
        due = [desk.ledger.balances.due_mc(peer) for peer in (b.peer, c.peer)]
        assert due == [-4, -3]

    play(story)


def test_jobs_at_once_hold_the_limit_together() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3), concurrency_max=8)
        desk, worker = await start(mesh, credit(owing_max_mc=7), a=[], b=[agent])
        ends: list[str] = []

        async def one(word: str) -> None:
            ends.append(outcome(await ended(desk, word)))

        async with trio.open_nursery() as nursery:
            for word in ("one", "two", "three", "four", "five"):
                nursery.start_soon(one, word)
        assert sorted(ends) == ["completed"] * 3 + ["credit.exhausted"] * 2
        assert desk.ledger.balances.due_mc(worker.peer) == -6
        assert desk.ledger._promises == {}

    play(story)


def test_one_job_holds_the_limit_with_all_its_units() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(1), concurrency_max=4)
        desk, worker = await start(mesh, credit(owing_max_mc=7), a=[], b=[agent])
        state = await ended(desk, *(f"word {n}" for n in range(8)))
        assert outcome(state) == "credit.exhausted"
        assert -7 <= desk.ledger.balances.due_mc(worker.peer) <= -6

    play(story)
