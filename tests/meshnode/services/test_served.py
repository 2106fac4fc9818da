"""What a node counts of what it did for whom: it survives crashes, and is bounded.

A broker is worked by hand, in virtual time (a MockClock's).
"""

import pytest
import trio

from meshnode.domain.admission import DAY_HOURS, HOUR_MS
from meshnode.domain.tallies import LAPSED
from meshnode.errors import StoreError
from meshnode.services.bodies import CFP, DECLINE
from meshnode.services.served import KEPT_HOURS, OTHERS, ROWS_MAX, SERVED, Served
from protocol.declines import Decline
from protocol.keys import digest
from protocol.messages import Proposal, read_message
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.broker_by_hand import (
    Hand,
    insist,
    meet,
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
    told,
    until,
)


def test_what_was_asked_done_and_earned_is_counted_and_survives_a_crash() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await start(mesh, a=[], b=[TextAgent(answers_after(2))])
        job = await desk.submit(shouting(3), inputs("one", "two", "three"))
        await desk.wait(job)
        await until(lambda: not desk.receipts._sending)
        mesh.crash("b")  # nothing was written down but with what it counts
        await mesh.restart("b")
        found = await tally(mesh)
        assert (found.calls, found.failed) == (3, 0)
        assert found.awarded == found.finished > 0
        assert found.earned_mc == 6
        assert 6_000 <= found.run_ms < 6_100
        assert worker.peer not in {who for who, _ in await mesh.node("b").tallies.tallies(0)}

    play(story)


def test_what_was_taken_on_counts_in_the_commit_that_takes_it_on() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent(never))
        offer = await hand.offer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(insist, hand, hand.award(offer))
            await until(lambda: len(told(mesh.node("b"), "award.begun")) == 1)
            mesh.crash("b")
            nursery.cancel_scope.cancel()
        await mesh.restart("b")
        found = await tally(mesh)
        assert (found.awarded, found.calls, found.finished) == (1, 1, 0)

    play(story)


def test_what_was_finished_counts_in_the_commit_of_its_result() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        await hand.send(hand.award(await hand.offer()))
        mesh.crash("b")
        await mesh.restart("b")
        assert (await tally(mesh)).finished == 1

    play(story)


def test_a_proposal_that_no_award_binds_is_lost_once_it_lapses() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        raw = await hand.request(CFP, cfp := hand.cfp())
        await hand.send(hand.award(raw, cfp=digest(cfp)))
        lapsing = read_message(await hand.request(CFP, hand.cfp()), Proposal, network=NETWORK)
        counted = await tally(mesh)
        assert (counted.asked, counted.proposed, counted.awarded) == (2, 2, 1)
        assert counted.lost == {}
        assert mesh.node("b").tallies.outstanding() == 1
        left_ms = lapsing.h.expires_ms - mesh.members["b"].clock.now_ms()
        await trio.sleep(left_ms / 1000)
        assert (await tally(mesh)).lost == {LAPSED: 1}

    play(story)


@pytest.mark.parametrize(
    ("reason", "counted"), [("price", "price"), ("tie", "tie"), ("your hat", "other")]
)
def test_a_declined_proposal_is_lost_for_the_reason_that_its_broker_gives(
    reason: str, counted: str
) -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        raw = await hand.request(CFP, cfp := hand.cfp())
        other = Hand(mesh, name="c")
        await third(mesh, hand)
        for broker in (other, hand, hand):  # another's proposal isn't declined; one is once
            await broker.request(DECLINE, declined(broker, raw, reason))
        assert (await tally(mesh)).lost == {counted: 1}
        assert (await tally(mesh, "c")).lost == {}
        answer = await hand.send(hand.award(raw, cfp=digest(cfp)))
        assert result_of(answer).state == "completed", "it stands until it lapses"

    play(story)


def declined(broker: Hand, proposal: bytes, reason: str) -> bytes:
    return broker.signer.sign(
        Decline(
            h=broker.signer.header(broker.peer, broker.topic()),
            proposal=digest(proposal),
            reason=reason,
        )
    )


def test_refusals_are_counted_by_reason() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        await refused_call(hand, price_max_mc=1)
        await refused_call(hand, price_max_mc=1)
        await refused_call(hand, capability="text.whisper")
        await mesh.node("b").pause()
        await refused_call(hand)
        assert (await tally(mesh)).refused == {"price": 2, "paused": 1}
        found = await mesh.node("b").tallies.tallies(0)
        assert found[mesh.peer("a"), ""].refused == {"not_offered": 1}

    play(story)


def test_callers_beyond_the_bound_are_counted_together_and_share_their_quota() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, b=[TextAgent()])
        served = mesh.node("b").tallies
        for number in range(ROWS_MAX + 2):
            served.count(f"peer{number:04}", "text.shout@1", asked=1, calls=1)
        found = await served.tallies(0)
        assert len(found) == ROWS_MAX + 1
        assert found[OTHERS, ""].asked == 2
        assert sum(served.use(f"peer{ROWS_MAX:04}").calls.values()) == 2
        assert sum(served.use("peer0000").calls.values()) == 1
        assert sum(served.everyone.calls.values()) == ROWS_MAX + 2

    play(story)


def test_no_second_capability_gets_round_a_callers_quota() -> None:
    """In a crowded hour its calls were counted among the others', and not as its own."""

    async def story(mesh: SimMesh) -> None:
        await start(mesh, b=[TextAgent()])
        served = mesh.node("b").tallies
        for number in range(ROWS_MAX):
            served.count(f"peer{number:04}", "text.shout@1", asked=1, calls=1)
        served.count("peer0000", "text.whisper@1", calls=5)
        served.count("peer0000", "text.whistle@1", calls=7)
        served.count("newcomer", "text.whisper@1", calls=9)
        assert sum(served.use("peer0000").calls.values()) == 13
        assert sum(served.use("newcomer").calls.values()) == 9
        assert (await served.tallies(0))["peer0000", ""].calls == 12

    play(story)


def test_what_is_older_than_the_history_is_forgotten() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, b=[TextAgent()])
        served, store = mesh.node("b").tallies, mesh.node("b").tallies._store
        served.count("old", "text.shout@1", asked=1, calls=1)
        await served.flush()

        async def later(hours: int) -> None:
            served._clock = mesh.world.clock(skew_ms=hours * HOUR_MS)
            await trio.sleep(60)

        await later(DAY_HOURS)
        assert served.everyone.calls == {}
        await later(KEPT_HOURS - 1)
        served.count("new", "text.shout@1", asked=1)
        assert len(await served.tallies(0)) == 2
        await later(KEPT_HOURS + 1)
        rows = [name for name, _ in await store.scan(SERVED)]
        assert [name.split("/")[1] for name in rows] == ["new"]

    play(story)


def test_a_count_that_the_disk_refuses_is_written_later() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, b=[TextAgent()])
        served = mesh.node("b").tallies
        served.count("who", "text.shout@1", asked=1)
        mesh.fill_disk("b")
        with pytest.raises(StoreError):
            await served.flush()
        await served.flush()
        assert len(await served._store.scan(SERVED)) == 1

    play(story)


def test_a_clock_that_is_set_back_adds_to_what_was_counted_then() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, b=[TextAgent()])
        served = mesh.node("b").tallies

        async def at(hours: int) -> None:
            served._clock = mesh.world.clock(skew_ms=hours * HOUR_MS)
            served.count("who", "text.shout@1", asked=1, calls=1)
            await trio.sleep(60)

        await at(0)
        await at(5)
        assert len(served._rows) == 1, "what is long past lies packed"
        await served.flush()
        again = Served(mesh.node("b")._context())
        again._clock = served._clock
        await again.load()
        assert [key[0] for key in again._past] == [min(key[0] for key in served._past)]
        assert len(again._rows) == 1, "after a restart, too"
        await at(0)
        counts = await served.tallies(0)
        assert counts[("who", "text.shout@1")].asked == 2
        assert sorted(served.use("who").calls.values()) == [1, 2]

    play(story)
