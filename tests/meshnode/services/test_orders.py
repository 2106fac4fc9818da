"""Work is ordered by letter of a node that is away, and comes back to one that was.

Time passes on a MockClock.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio

from meshnode.domain.explaining import explain
from meshnode.domain.explaining_words import in_words
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import InputInvalid
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.crash_points import read_crash_point
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.correspondence import keeping
from tests.meshnode.services.ordering import (
    TERMS,
    TIME_S,
    deposited,
    ended,
    ordered,
    taking,
    three,
)
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    told,
    until,
)

#: From the order's deadline until another may have the work.
SKEW_S = 60


async def settled(mesh: SimMesh, mc: int, receipts: int = 1) -> None:
    """Let Ada's half of each receipt reach Bob, who is alone at last; he is owed ``mc``."""
    await deposited(mesh, receipts)
    mesh.crash("ada")
    bob = await mesh.restart("bob")
    await until(lambda: bob.ledger.balances.due_mc(mesh.peer("ada")) == mc, within_s=60)
    assert len(await bob.contractor.receipts()) == receipts


@pytest.mark.parametrize("words", [["x"], ["a", "b", "c"]], ids=["a call", "a map"])
def test_a_broker_and_a_contractor_that_are_never_up_at_once_finish_a_job(
    words: list[str],
) -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, *words)
        mesh.crash("ada")
        await trio.sleep(300)
        await mesh.restart("bob")
        await deposited(mesh, len(words), for_="ada")
        assert sorted(agent.calls) == words
        mesh.crash("bob")
        await trio.sleep(300)
        ada = await mesh.restart("ada")
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        shouted = [word.upper() for word in words]
        assert await ada.outputs(job) == {"said": shouted if len(words) > 1 else shouted[0]}
        assert state.spent_mc == 2 * len(words)
        await settled(mesh, 2 * len(words), len(words))
        assert sorted(agent.calls) == words, "each once"
        assert await mesh.node("bob").inbox.rows() == [], "no letter for its owner"
        journal = await ada.journal(job)
        explained = in_words(explain(job, journal.events(), now_ms=ada.clock.now_ms()))
        assert "ordered by letter" in str(explained)
        assert verify_provenance(await journal.export()).state == "completed"

    play(story)


def test_inputs_and_outputs_that_are_no_part_of_a_message_go_along() -> None:
    agent = TextAgent()
    text = "word " * 8_000  # more than a message holds, less than a letter

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, text)
        mesh.crash("ada")
        await mesh.restart("bob")
        await deposited(mesh, for_="ada")
        mesh.crash("bob")
        ada = await mesh.restart("ada")
        await ended(ada, job)
        assert await ada.outputs(job) == {"said": text.upper()}

    play(story)


def test_what_no_letter_holds_ends_the_job_and_says_so() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [TextAgent()])
        mesh.crash("bob")
        job = await ada.submit(shouting(), inputs("word " * 20_000), TERMS)
        state = await ended(ada, job)
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "order.too_large")
        assert "a letter holds" in state.done.text

    play(story)


def test_an_output_that_no_letter_holds_is_a_failure_and_not_paid() -> None:
    async def talks(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.lowlevel.checkpoint()
        yield Output({"text": "w" * 60_000})

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [TextAgent(talks)])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        await mesh.restart("bob")
        await until(lambda: bool(told(ada, "order.answered")), within_s=600)
        unit = (await ada.journal(job)).state.units["say/0"]
        await until(lambda: "artifact.too_large" in {f.code for f in unit.failures()})
        assert (await ada.journal(job)).state.spent_mc == 0

    play(story)


def test_who_has_left_and_is_no_longer_known_is_written_to_all_the_same() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        await mesh.leave("bob")
        mesh.crash("ada")
        ada = await mesh.restart("ada")
        await trio.sleep(10)
        assert mesh.peer("bob") not in {record.peer for record in ada.known()}
        job = await ordered(mesh, "x")
        await mesh.restart("bob")
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done

    play(story)


# --- time instead of a lease ---


def test_nobody_else_has_the_work_before_the_time_of_the_order_is_over() -> None:
    other = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [TextAgent()])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        award_s = trio.current_time()
        await mesh.start("eve", agents=lambda: (other,), config=CONFIG)
        await trio.sleep(TIME_S - 60)
        assert other.calls == [], "Bob may be at it"
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert other.calls == ["x"]
        failure = state.units["say/0"].failures()[-1]
        assert (failure.code, failure.peer) == ("order.unanswered", mesh.peer("bob"))
        late_s = trio.current_time() - award_s
        assert TIME_S + SKEW_S - 60 <= late_s < TIME_S + SKEW_S + 120
        # He comes when it is too late, and doesn't begin it.
        bob = await mesh.restart("bob")
        await trio.sleep(600)
        assert bob.contractor.active == 0

    play(story)


def test_an_order_is_not_begun_when_it_has_expired() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent], taking())
        mesh.crash("bob")
        await ordered(mesh, "x")
        mesh.crash("ada")
        # It has expired, and is not past its letter's skew yet: a mailbox may have it.
        await trio.sleep(TIME_S - 90)
        bob = await mesh.restart("bob")
        await trio.sleep(600)
        assert agent.calls == []
        assert bob.contractor.active == 0

    play(story)


def test_an_order_that_was_kept_in_time_is_not_begun_later_either() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        await ordered(mesh, "x")
        begun_s = trio.current_time()
        died = trio.Event()
        mesh.crash_at("bob", read_crash_point("after:order.kept"), died.set)
        await mesh.restart("bob")
        await died.wait()
        mesh.crash("ada")
        # Its agent has 60 s, and half a minute more: until then it could have been done.
        await trio.sleep(begun_s + TIME_S - 60 - trio.current_time())
        bob = await mesh.restart("bob")
        await until(lambda: bool(told(bob, "contract.refused")), within_s=30)
        assert told(bob, "contract.refused")[0]["reason"] == "deadline"
        assert agent.calls == []

    play(story)


def test_work_that_is_begun_ends_with_the_time_of_the_order() -> None:
    agent = TextAgent(never, timeout_s=800.0)

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        await ordered(mesh, "x")
        begun_s = trio.current_time()
        mesh.crash("ada")
        await mesh.restart("bob")
        await until(lambda: agent.running == 1, within_s=60)
        await trio.sleep(TIME_S - 120)
        assert agent.running == 1, "no lease ends it"
        await trio.sleep(120)
        assert agent.running == 0
        assert agent.stopped_s[0] - begun_s <= TIME_S

    play(story)


def test_a_broker_that_comes_back_late_takes_what_was_done_in_time() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        mesh.crash("ada")
        await mesh.restart("bob")
        await deposited(mesh, for_="ada")
        mesh.crash("bob")
        await trio.sleep(1.5 * TIME_S)
        ada = await mesh.restart("ada")
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert sum(attempt.by_letter for attempt in state.units["say/0"].attempts) == 1

    play(story)


def test_who_is_there_comes_first() -> None:
    there, away = TextAgent(answers_after(30)), TextAgent(price_mc=0)

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [away])
        await mesh.start("eve", agents=lambda: (there,), config=CONFIG)
        await until(lambda: len(ada.known()) == 4)
        mesh.crash("bob")
        job = await ada.submit(shouting(), inputs("x"), TERMS)
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert there.calls == ["x"]
        assert told(ada, "order.sent") == []

    play(story)


def test_nothing_goes_by_letter_unless_it_was_said() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [TextAgent()])
        mesh.crash("bob")
        job = await ada.submit(shouting(), inputs("x"), replace(TERMS, by_letter_s=0))
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.code == "cfp.unanswered"
        assert told(ada, "order.sent") == []

    play(story)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"standbys": 2}, "standbys"),
        ({"by_letter_s": 3 * TIME_S + 1}, "by letter"),
        ({"by_letter_s": -1}, "by letter"),
    ],
)
def test_terms_that_make_no_sense_are_refused(terms: dict[str, float], says: str) -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [TextAgent()])
        with pytest.raises(InputInvalid, match=says):
            await ada.submit(shouting(), inputs("x"), replace(TERMS, **terms))  # type: ignore[arg-type]

    play(story)


# --- crashes ---


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("ada", "before:job.awarded"),
        ("ada", "before:letter.written"),
        ("ada", "after:letter.written"),
        ("ada", "before:job.charged"),
        ("ada", "before:acceptance.settled"),
        ("bob", "before:order.kept"),
        ("bob", "after:order.kept"),
        ("bob", "after:award.taken"),
        ("bob", "before:result.kept"),
        ("bob", "after:result.kept"),
        ("bob", "after:order.answered"),
        ("bob", "before:receipt.kept"),
        ("box", "after:letter.collected"),
    ],
)
def test_wherever_one_dies_the_job_is_done_and_paid_once(name: str, point: str) -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        died = trio.Event()
        mesh.crash_at(name, read_crash_point(point), died.set)
        mesh.crash("bob")
        job = await ada.submit(shouting(), inputs("x"), TERMS)

        async def again() -> None:
            await died.wait()
            await trio.sleep(30)
            await mesh.restart(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(again)
            await trio.sleep(120)
            await mesh.restart("bob")
            with trio.fail_after(3 * TIME_S):
                while True:  # Ada may be the one that dies
                    await trio.sleep(5)
                    if mesh.up("ada") and (await mesh.node("ada").journal(job)).done:
                        break
            await died.wait()
        await trio.sleep(60)
        state = (await mesh.node("ada").journal(job)).state
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert state.spent_mc == 2
        due_mc = mesh.node("bob").ledger.balances.due_mc(mesh.peer("ada"))
        assert due_mc == 2
        assert mesh.node("ada").ledger.balances.due_mc(mesh.peer("bob")) == -2
        assert len([a for a in state.units["say/0"].attempts if a.by_letter]) == 1
        # It crashed before its result was written down: then an agent is called again.
        assert agent.calls == ["x"] * (1 + (point == "before:result.kept"))

    play(story)


def test_two_mailboxes_bring_an_order_twice_and_it_is_done_once() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await mesh.start("bag", config=keeping())
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        await until(
            lambda: bool(mesh.members["bag"].disk.tables.get("mailbox_sealed")), within_s=300
        )
        bob = await mesh.restart("bob")
        state = await ended(mesh.node("ada"), job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert agent.calls == ["x"]
        assert len(told(bob, "order.kept")) == 1

    play(story)
