"""A later broker of a job gets from contractors what was awarded before it, and may pay.

In virtual time (a MockClock's); the brokers are worked by hand.
"""

from dataclasses import replace

import pytest
import trio

from meshnode.errors import ArtifactError
from meshnode.services.artifacts import Wanted
from meshnode.services.bodies import ACCEPTANCE, RECEIPTS, RESULT_BODY, SUCCEED, AwardBody
from meshnode.services.fencing import FENCES
from meshnode.services.sessions import RequestFailed
from protocol.codec import decode_as
from protocol.errors import ErrorCode
from protocol.keys import digest
from protocol.receipts import Acceptance
from simulations.mesh import SimMesh
from tests.meshnode.services.broker_by_hand import Hand, meet, refusal_of, result_of, third
from tests.meshnode.services.test_fencing import DONE, Job, award
from tests.meshnode.services.worlds import TextAgent, answers_after, never, play


async def two_brokers(mesh: SimMesh, agent: TextAgent) -> tuple[Hand, Hand, Job]:
    """The hands of a job's owner and of its first standby, both with a session to b."""
    hand = await meet(mesh, agent)
    await third(mesh, hand)
    return hand, Hand(mesh, "c"), Job(mesh, hand)


def shown(job: Job, body: AwardBody, epoch: int = 2) -> AwardBody:
    """``body`` as the standby sends it."""
    return AwardBody(body.award, body.proposal, job.certificate(epoch, broker=1))


def accepting(hand: Hand, job: Job, body: AwardBody, raw: bytes, epoch: int) -> bytes:
    """The hand's acceptance, in ``epoch``, of what b answered."""
    result = decode_as(raw, RESULT_BODY)
    topic = replace(hand.topic(), epoch=epoch, charter=job.read.name)
    return hand.signer.sign(
        Acceptance(
            h=hand.signer.header(hand.peer, topic),
            award=digest(body.award),
            receipt=digest(result.receipt),
            verdict="unverified",
            check="",
            paid_mc=result_of(raw).price_mc,
        )
    )


async def refused(hand: Hand, method: str, body: bytes) -> int:
    with pytest.raises(RequestFailed) as caught:
        await hand.request(method, body)
    return caught.value.failure


def test_work_in_hand_is_answered_to_the_later_broker_and_done_once() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3.0))
        hand, other, job = await two_brokers(mesh, agent)
        body = await award(hand, job, 1, job.certificate(1))
        answers: list[bytes] = []

        async def ask_and_die() -> None:
            with trio.move_on_after(1.0):
                await hand.send(body)

        await ask_and_die()
        answers.append(await other.send(shown(job, body)))
        answers.append(await other.send(shown(job, body)))  # and again what was
        assert [result_of(raw).inline for raw in answers] == [DONE, DONE]
        assert answers[0] == answers[1]
        assert len(agent.calls) == 1

    play(story)


def test_a_later_broker_begins_nothing_under_an_old_award() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand, other, job = await two_brokers(mesh, agent)
        await hand.send(await award(hand, job, 1, job.certificate(1)))
        never_sent = await award(hand, job, 1)
        no = refusal_of(await other.send(shown(job, never_sent)))
        assert (no.reason, no.h.audience) == ("not_taken", other.signer.peer)
        assert len(agent.calls) == 1
        late = await award(hand, job, 1)
        with pytest.raises(RequestFailed):  # and the old one begins nothing more either
            await hand.send(late)
        assert len(agent.calls) == 1

    play(story)


def test_who_was_not_elected_gets_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        hand, other, job = await two_brokers(mesh, TextAgent())
        body = await award(hand, job, 1, job.certificate(1))
        await hand.send(body)
        of_owner = job.certificate(2)
        for wrong in (b"", of_owner, job.certificate(1), b"certificate"):
            with pytest.raises(RequestFailed) as caught:
                await other.send(AwardBody(body.award, body.proposal, wrong))
            assert caught.value.failure == ErrorCode.MALFORMED
        assert await refused(other, SUCCEED, of_owner) == ErrorCode.MALFORMED
        own = await award(hand, Job(mesh, hand, job="job-2"), 1)  # never shown here
        with pytest.raises(RequestFailed):
            await other.send(own)

    play(story)


def test_a_later_broker_stops_what_an_earlier_one_awarded() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(never)
        hand, other, job = await two_brokers(mesh, agent)
        body = await award(hand, job, 1, job.certificate(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.send, body)
            await trio.sleep(1)
            with pytest.raises(RequestFailed, match="neither"):
                await other.cancel(body)
            await other.request(SUCCEED, job.certificate(2, broker=1))
            await other.cancel(body)
            assert mesh.node("b").contractor.active == 0
            nursery.cancel_scope.cancel()

    play(story)


def test_the_newest_broker_or_the_awards_own_pays_and_that_once() -> None:
    async def story(mesh: SimMesh) -> None:
        hand, other, job = await two_brokers(mesh, TextAgent())
        body = await award(hand, job, 1, job.certificate(1))
        raw = await hand.send(body)
        early = accepting(other, job, body, raw, 2)
        assert await refused(other, ACCEPTANCE, early) == ErrorCode.STALE
        await other.request(SUCCEED, job.certificate(2, broker=1))
        await other.request(ACCEPTANCE, accepting(other, job, body, raw, 2))
        late = accepting(hand, job, body, raw, 1)
        assert await refused(hand, ACCEPTANCE, late) == ErrorCode.STALE
        (row,) = await mesh.node("b").receipts.rows()
        assert row.award == body.award
        balances = mesh.node("b").ledger.balances
        owing = [balances.due_mc(one.signer.peer) for one in (hand, other)]
        assert owing == [0, result_of(raw).price_mc]

    play(story)


@pytest.mark.parametrize("shown", [True, False])
def test_who_lost_the_job_still_pays_for_what_it_accepted(shown: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        hand, other, job = await two_brokers(mesh, TextAgent())
        body = await award(hand, job, 1, job.certificate(1))
        raw = await hand.send(body)
        if shown:
            await other.request(SUCCEED, job.certificate(2, broker=1))
        await hand.request(SUCCEED, job.certificate(3))
        late = accepting(other, job, body, raw, 2)
        if not shown:
            assert await refused(other, ACCEPTANCE, late) == ErrorCode.STALE
            code = await refused(other, SUCCEED, job.certificate(2, broker=1))
            assert code == ErrorCode.STALE, "it is not the broker any more"
        await other.request(ACCEPTANCE, late)
        (row,) = await mesh.node("b").receipts.rows()
        assert row.acceptance == late

    play(story)


def test_a_stranger_to_the_job_is_not_told_of_it_and_nothing_is_written() -> None:
    async def story(mesh: SimMesh) -> None:
        _, other, job = await two_brokers(mesh, TextAgent())
        code = await refused(other, SUCCEED, job.certificate(2, broker=1))
        assert code == ErrorCode.MALFORMED
        assert await mesh.node("b").contractor._store.scan(FENCES) == []
        assert await mesh.node("b").contractor._store.scan(RECEIPTS) == []

    play(story)


def test_outputs_are_served_to_whom_the_newest_broker_gives_a_ticket() -> None:
    async def story(mesh: SimMesh) -> None:
        hand, other, job = await two_brokers(mesh, TextAgent())
        body = await award(hand, job, 1, job.certificate(1))
        made = result_of(await hand.send(body))
        artifacts = other.node.artifacts

        def wanted(epoch: int) -> Wanted:
            topic = replace(other.topic(), epoch=epoch, charter=job.read.name)
            ticket = artifacts.ticket(
                made.output, holder=hand.peer, reader=other.signer.peer, topic=topic
            )
            return Wanted(made.output, made.size, hand.peer, ticket)

        with pytest.raises(ArtifactError, match="not from the broker"):
            await artifacts.fetch(wanted(2), timeout_s=5)
        await other.request(SUCCEED, job.certificate(2, broker=1))
        with pytest.raises(ArtifactError, match="not from the broker"):
            await artifacts.fetch(wanted(1), timeout_s=5)
        assert await artifacts.fetch(wanted(2), timeout_s=5) == DONE

    play(story)
