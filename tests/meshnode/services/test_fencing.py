"""Of a job with a charter, a contractor works for the newest broker it was shown."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from meshnode.domain.values import canonical
from meshnode.services.bodies import AwardBody
from meshnode.services.fencing import CHARTERS, FENCES
from meshnode.services.sessions import RequestFailed
from protocol.charter import (
    Charter,
    Chartered,
    Grant,
    read_charter,
    sign_charter,
    sign_grant,
    write_certificate,
)
from protocol.errors import ErrorCode
from protocol.keys import Identity
from protocol.messages import Budget
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.broker_by_hand import Hand, meet, refusal_of, result_of, third
from tests.meshnode.services.worlds import TextAgent, play


class Job:
    """A job that node a owns, with nodes c and d as its standbys."""

    def __init__(self, mesh: SimMesh, hand: Hand, **fields: Any) -> None:
        self.members: list[Identity] = [hand.signer.identity, _identity(1), _identity(2)]
        if "c" in mesh.members:
            self.members[1] = mesh.node("c").artifacts._signer.identity
        self.now_ms = mesh.node("b").contractor._clock.now_ms()
        valid = Charter(
            job="job",
            owner=self.members[0].peer,
            standbys=[one.peer for one in self.members[1:]],
            budget=Budget(cost_mc=100),
            first_epoch=1,
            lease_ms=30_000,
            skew_ms=5_000,
            issued_ms=self.now_ms,
            expires_ms=self.now_ms + 3_600_000,
        )
        charter = msgspec.structs.replace(valid, **fields)
        self.charter = sign_charter(self.members[0], NETWORK, charter)

    @property
    def read(self) -> Chartered:
        return read_charter(self.charter, network=NETWORK, now_ms=self.now_ms)

    def certificate(self, epoch: int, broker: int = 0) -> bytes:
        """The first two members grant it."""
        grant = Grant(
            charter=self.read.name,
            epoch=epoch,
            broker=self.members[broker].peer,
            asked_ms=self.now_ms,
            until_ms=self.now_ms + 30_000,
        )
        grants = [sign_grant(one, self.read, grant) for one in self.members[:2]]
        return write_certificate(self.charter, grants)


def _identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32, bytes([number]) * 32)


async def award(
    hand: Hand, job: Job, epoch: int, certificate: bytes = b"", *, name: str = "job"
) -> AwardBody:
    """An award by the hand's node."""
    topic = replace(hand.topic(), job=name, epoch=epoch, charter=job.read.name)
    header = hand.signer.header(hand.peer, topic, lifetime_ms=600_000)
    body = hand.award(await hand.offer(), h=header)
    return AwardBody(body.award, body.proposal, certificate)


async def refused(hand: Hand, body: AwardBody) -> int:
    """The code with which it is."""
    with pytest.raises(RequestFailed) as caught:
        await hand.send(body)
    return caught.value.failure


async def done(hand: Hand, job: Job, epoch: int) -> None:
    """The owner's node has an award done, with its certificate."""
    body = await award(hand, job, epoch, job.certificate(epoch))
    assert result_of(await hand.send(body)).inline == DONE


DONE = canonical({"text": "HELLO"})


def test_an_award_with_its_certificate_is_done_and_the_next_needs_none() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        job = Job(mesh, hand)
        first = await award(hand, job, 1, job.certificate(1))
        assert result_of(await hand.send(first)).inline == DONE
        again = await award(hand, job, 1)
        assert result_of(await hand.send(again)).inline == DONE

    play(story)


def test_an_award_of_a_charter_never_shown_is_refused_and_nothing_is_written() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        job = Job(mesh, hand)
        assert refusal_of(await hand.send(await award(hand, job, 7))).reason == "uncertified"
        store = mesh.node("b").contractor._store
        assert [await store.scan(table) for table in (FENCES, CHARTERS, "epoch")] == [[]] * 3
        assert agent.calls == []

    play(story)


def test_a_broker_whose_job_has_passed_on_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        hand = await meet(mesh, agent)
        await third(mesh, hand)
        other = Hand(mesh, "c")
        job = Job(mesh, hand)
        await done(hand, job, 1)
        taken_over = await award(other, job, 2, job.certificate(2, broker=1))
        assert result_of(await other.send(taken_over)).inline == DONE
        for old in (
            await award(hand, job, 1),
            await award(hand, job, 1, job.certificate(1)),
            await award(hand, job, 2),
            await award(hand, job, 2, job.certificate(2)),
            await award(hand, job, 3),
        ):
            assert await refused(hand, old) == ErrorCode.STALE
        assert len(agent.calls) == 2

    play(story)


def test_a_restart_forgets_no_epoch() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        job = Job(mesh, hand)
        await done(hand, job, 2)
        mesh.crash("b")
        await mesh.restart("b")
        await hand.node.sessions.connect(hand.peer)
        late = await award(hand, job, 1, job.certificate(1))
        assert await refused(hand, late) == ErrorCode.STALE

    play(story)


def test_a_second_charter_of_the_owner_does_not_go_back() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        job, other = Job(mesh, hand), Job(mesh, hand, lease_ms=31_000)
        await done(hand, job, 2)
        same = await award(hand, other, 2, other.certificate(2))
        assert await refused(hand, same) == ErrorCode.STALE
        later = await award(hand, other, 3, other.certificate(3))
        assert result_of(await hand.send(later)).inline == DONE
        old = await award(hand, job, 2, job.certificate(2))
        assert await refused(hand, old) == ErrorCode.STALE
        assert len(await mesh.node("b").contractor._store.scan(CHARTERS)) == 1

    play(story)


def test_a_certificate_of_another_job_or_charter_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        job, other = Job(mesh, hand), Job(mesh, hand, lease_ms=31_000)
        for body in (
            await award(hand, job, 1, other.certificate(1)),
            await award(hand, job, 1, job.certificate(1), name="other"),
            await award(hand, job, 1, b"certificate"),
        ):
            assert await refused(hand, body) == ErrorCode.MALFORMED

    play(story)


def test_it_is_forgotten_when_the_charter_has_expired() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        job = Job(mesh, hand)
        await done(hand, job, 1)
        node = mesh.node("b")
        records, store = node.contractor._records, node.contractor._store
        await records.forget_old()
        assert len(await store.scan(FENCES)) == len(await store.scan(CHARTERS)) == 1
        records._clock = records.fences._clock = mesh.world.clock(skew_ms=2 * 3_600_000)
        await records.forget_old()
        assert await store.scan(FENCES) == await store.scan(CHARTERS) == []

    play(story)
