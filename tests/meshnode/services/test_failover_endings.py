"""A job with standbys ends once, for everyone, and for whoever was away; none hangs for ever.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import pytest
import trio

from meshnode.domain.facts import Done
from meshnode.errors import StoreError
from meshnode.node import Node, Terms
from meshnode.ports import Put
from meshnode.services import shipping
from meshnode.services.crash_points import read_crash_point
from meshnode.services.handovers import Handovers
from meshnode.services.seats import _ROW, SEATS, Seats, _nobody
from meshnode.services.sessions import Incoming
from protocol.charter import Answer
from protocol.codec import decode_as, encode
from simulations.mesh import SimMesh
from tests.meshnode.services.test_failover import WITH, WORDS, broker_of, mesh_of, terms
from tests.meshnode.services.test_failover_safety import begun, seat_of
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    until,
)

SHOUTED = {"said": [word.upper() for word in WORDS]}


def cut_off(mesh: SimMesh, name: str) -> None:
    rest = [mesh.peer(one) for one in mesh.members if one != name]
    mesh.world.network.partition([mesh.peer(name)], rest)


def mend(mesh: SimMesh) -> None:
    mesh.world.network.partition()


async def completes(node: Node, job: str, *, within_s: float = 100.0) -> Done:
    with trio.fail_after(within_s):
        state = await node.wait(job)
    assert state.done is not None
    assert state.done.state == "completed", state.done
    return state.done


def test_the_owner_is_told_the_end_by_whoever_has_it() -> None:
    async def story(mesh: SimMesh) -> None:
        _, job = await begun(mesh)
        mesh.crash("a")
        heir = await broker_of(mesh, job, "c", "d")
        other = "d" if heir == "c" else "c"
        await completes(mesh.node(heir), job)
        await until(lambda: seat_of(mesh, other).over)
        mesh.crash(heir)  # for good
        owner = await mesh.restart("a")
        await completes(owner, job)
        assert await owner.outputs(job) == SHOUTED
        await until(lambda: all(seat_of(mesh, name).over for name in ("a", other)))
        mesh.crash("a")
        again = await mesh.restart("a")
        await completes(again, job)

    play(story)


async def has_them_at_once(node: Node, job: str) -> None:
    """Ask as whoever heard that the job is completed does: nothing is waited for."""
    assert (await node.journal(job)).done is not None, "it was told, and is taken back"
    assert await node.outputs(job) == SHOUTED


@pytest.mark.parametrize("seed", range(4))
def test_an_end_that_was_told_is_told_after_a_restart_too(seed: int) -> None:
    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        await completes(owner, job)
        for name in ("a", "c", "d"):  # at once: nobody is left who could be asked
            mesh.crash(name)
        await has_them_at_once(await mesh.restart("a"), job)

    play(story, seed=seed)


def test_an_end_that_was_told_stays_while_a_member_that_was_away_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        mesh.crash("c")
        await completes(owner, job)
        mesh.crash("a")
        mesh.crash("d")
        owner = await mesh.restart("a")
        await mesh.restart("c")
        # It stands for the end of a job of which it has none: the owner stands again.
        await until(lambda: seat_of(mesh, "a").telling, within_s=60)
        await has_them_at_once(owner, job)
        mesh.crash("a")
        mesh.crash("c")
        await has_them_at_once(await mesh.restart("a"), job)

    play(story)


def test_an_end_is_told_when_the_disk_has_that_it_is_safe() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        context, seat = owner.broker._context, seat_of(mesh, "a")
        commit, full = context.store.commit, [True]

        async def refuses(*writes: Any) -> None:
            rows = [one for one in writes if isinstance(one, Put) and one.table == SEATS]
            if full[0] and any(decode_as(row.value, _ROW).over for row in rows):
                raise StoreError("the disk is full")  # its leases it can prolong
            await commit(*writes)

        context.store.commit = refuses  # type: ignore[method-assign]
        journal = await owner.journal(job)
        await until(lambda: journal.state.done is not None, within_s=60)
        await trio.sleep(1)
        assert (journal.done, seat.over) == (None, False)
        full[0] = False
        await completes(owner, job)
        assert seat.over

    play(story)


def test_no_member_alone_can_say_that_a_job_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Seats._on_epoch

    async def lying(self: Seats, incoming: Incoming) -> bytes:
        said = await answer(self, incoming)
        if self._context.peer == liar[0] and any(s.position.events > 3 for s in self.all()):
            return encode(Answer(b"", 0, "", over=True))
        return said

    liar: list[str] = []
    monkeypatch.setattr(Seats, "_on_epoch", lying)

    async def story(mesh: SimMesh) -> None:
        liar.append(mesh.identity("d").peer)
        owner, job = await begun(mesh)
        await completes(owner, job)
        assert await owner.outputs(job) == SHOUTED

    play(story)


def test_an_end_that_no_majority_has_is_not_told_by_who_lost_the_job() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(4.0))
        owner, *_ = await mesh_of(mesh, agent)
        job = await owner.submit(shouting(), inputs("one"), terms(mesh, deadline_s=300.0))
        await until(lambda: bool(agent.calls))
        await trio.sleep(3.0)
        # Its worker it hears, and its heirs not.
        mesh.world.network.partition([mesh.peer("a")], [mesh.peer("c"), mesh.peer("d")])
        journal = await owner.journal(job)
        await until(lambda: journal.state.done is not None)
        assert journal.done is None
        ended: list[int] = []

        async def wait() -> None:
            await owner.wait(job)
            ended.append(len(journal.segments))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await broker_of(mesh, job, "c", "d")
            mend(mesh)
        assert ended == [2], "the end is the heir's"

    play(story)


@pytest.mark.parametrize(("dies", "seed"), [("a", 1), ("a", 8), ("c", 1)])
def test_an_end_that_two_of_five_have_is_not_told(
    dies: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_TIMEOUT_S", 2.0)

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(4.0))
        owner, *_ = await mesh_of(mesh, agent)
        await start(mesh, WITH, e=[], f=[])
        names = ("c", "d", "e", "f")
        standbys = tuple(mesh.peer(name) for name in names)
        job = await owner.submit(
            shouting(), inputs("one"), Terms(standbys=standbys, deadline_s=300.0)
        )
        await until(lambda: bool(agent.calls))
        await trio.sleep(3.0)
        others = [mesh.peer(name) for name in ("d", "e", "f")]
        mesh.world.network.partition([mesh.peer("a"), mesh.peer("c")], others)
        journal = await owner.journal(job)
        await until(lambda: journal.state.done is not None)
        await until(lambda: seat_of(mesh, "c").ended)
        await trio.sleep(1)
        assert journal.done is None
        assert not any(seat_of(mesh, name).over for name in ("a", *names))
        await trio.sleep(20)  # the three go on
        mend(mesh)
        if dies == "c":
            mesh.crash("c")
        else:
            mesh.crash("a")
            await mesh.restart("a")
        await completes(mesh.node("a"), job)
        segments = (await mesh.node("a").journal(job)).segments
        assert len(segments) > 1, "the end is that of those three"
        await until(
            lambda: all(seat_of(mesh, n).over for n in ("a", "d", "e", "f")), within_s=60
        )

    play(story, seed=seed)


def test_an_end_outlives_a_fork_that_nobody_else_has() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(4.0))
        owner, *_ = await mesh_of(mesh, agent)
        job = await owner.submit(shouting(), inputs("one"), terms(mesh, deadline_s=300.0))
        await until(lambda: bool(agent.calls))
        await trio.sleep(3.0)
        mesh.world.network.partition([mesh.peer("a")], [mesh.peer("c"), mesh.peer("d")])
        journal = await owner.journal(job)
        await until(lambda: journal.state.done is not None)
        # An heir begins a segment of its own, and dies before anybody has it.
        fallen: list[str] = []
        for name in ("c", "d"):
            at = read_crash_point("after:job.elected")
            mesh.crash_at(name, at, lambda name=name: fallen.append(name))  # type: ignore[misc]
        await until(lambda: bool(fallen), within_s=60)
        other = "d" if fallen == ["c"] else "c"
        mesh.spare(other)
        mend(mesh)
        await completes(owner, job)
        (segment,) = (await owner.journal(job)).segments
        assert seat_of(mesh, other).held > 2, "it has the end by a broker after the fork's"
        mesh.crash("a")
        heir = await mesh.restart(fallen[0])
        await until(lambda: seat_of(mesh, fallen[0]).ended, within_s=100)
        copies = await heir.successions._standbys.segments(
            seat_of(mesh, fallen[0]).chartered.name
        )
        assert copies == [segment]
        again = await mesh.restart("a")
        await completes(again, job)

    play(story)


def test_whoever_is_left_of_five_that_know_the_end_tells_it() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(4.0))
        owner, *_ = await mesh_of(mesh, agent)
        await start(mesh, WITH, e=[], f=[])
        names = ("c", "d", "e", "f")
        standbys = tuple(mesh.peer(name) for name in names)
        job = await owner.submit(
            shouting(), inputs("one"), Terms(standbys=standbys, deadline_s=300.0)
        )
        await until(lambda: bool(agent.calls))
        mesh.crash("c")
        await completes(owner, job)
        await until(lambda: all(seat_of(mesh, name).over for name in names[1:]), within_s=60)
        mesh.crash("a")  # for good, before it told c
        await mesh.restart("c")
        await until(lambda: seat_of(mesh, "c").over, within_s=100)
        assert seat_of(mesh, "c").ended

    play(story)


def test_who_is_over_grants_to_who_has_the_same_end_and_knows_less_of_it() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        await completes(owner, job)
        await until(lambda: all(seat_of(mesh, name).over for name in ("a", "c", "d")))
        # One wins a later epoch with the end, and has heard that all is over.
        seats, knows = mesh.node("d").successions._seats, seat_of(mesh, "d")
        seats.won = _nobody
        seats._reopen(knows)
        await until(lambda: knows.newest == (2, mesh.peer("d")), within_s=60)
        await seats.end(knows)
        mesh.crash("a")
        asks = seat_of(mesh, "c")
        assert asks.here == knows.here
        assert asks.position < knows.position
        mesh.node("c").successions._seats._reopen(asks)
        await until(lambda: asks.over and knows.newest == (3, mesh.peer("c")), within_s=60)
        await until(lambda: knows.held == 3)

    play(story)


def test_the_disk_of_an_heir_may_refuse_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    take_over, refused = Handovers.take_over, [3]

    async def full(self: Handovers, *args: Any) -> Any:
        if refused[0]:
            refused[0] -= 1
            raise StoreError("the disk is full")
        return await take_over(self, *args)

    monkeypatch.setattr(Handovers, "take_over", full)

    async def story(mesh: SimMesh) -> None:
        _, job = await begun(mesh)
        mesh.crash("a")
        heir = await broker_of(mesh, job, "c", "d")
        await completes(mesh.node(heir), job)
        assert refused == [0]

    play(story)


def test_an_owner_that_dies_while_it_takes_its_job_back_can_still() -> None:
    async def story(mesh: SimMesh) -> None:
        _, job = await begun(mesh)
        cut_off(mesh, "a")
        heir = await broker_of(mesh, job, "c", "d")
        mend(mesh)
        other = "d" if heir == "c" else "c"
        await until(lambda: seat_of(mesh, "a").newest[0] == 2)
        # What the heir has, since that may be on its way to the other.
        await until(lambda: seat_of(mesh, "a").position >= seat_of(mesh, heir).position)
        mesh.crash(heir)
        cut_off(mesh, other)
        # It wins a later epoch as soon as the other is back.
        mesh.crash_at("a", read_crash_point("before:job.elected"), lambda: None)
        mend(mesh)
        seat = seat_of(mesh, other)
        seat.view = seat.view._replace(quiet_until_ms=1 << 60)  # and this one doesn't stand
        await until(lambda: not mesh.up("a"), within_s=60)
        assert not mesh.members["a"].disk.logs.get(f"job/{job}")
        await mesh.restart("a")
        await broker_of(mesh, job, "a", other)
        await until(lambda: mesh.node("a").broker._journals.get(job) is not None, within_s=60)
        await completes(mesh.node("a"), job)

    play(story)


def test_what_was_never_begun_is_given_up() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent())
        with trio.move_on_after(0.02) as scope:
            await owner.submit(shouting(), inputs("one"), terms(mesh))
        assert scope.cancelled_caught
        context = owner.broker._context
        commit = context.store.commit

        async def refuses(*writes: Any) -> None:
            if any(getattr(write, "table", "") == "job" for write in writes):
                raise StoreError("the disk is full")
            await commit(*writes)

        context.store.commit = refuses  # type: ignore[method-assign]
        with pytest.raises(StoreError):
            await owner.submit(shouting(), inputs("one"), terms(mesh))
        context.store.commit = commit  # type: ignore[method-assign]
        await until(lambda: mesh.node("c").successions._seats.held == 0)
        await until(lambda: mesh.node("d").successions._seats.held == 0)
        mesh.crash_at("a", read_crash_point("before:job.planned"), lambda: None)
        with pytest.raises(StoreError, match="crashed"):
            await owner.submit(shouting(), inputs("one"), terms(mesh))
        assert mesh.node("c").successions._seats.held == 1
        owner = await mesh.restart("a")
        for name in ("a", "c", "d"):
            await until(lambda name=name: mesh.node(name).successions._seats.held == 0)  # type: ignore[misc]

    play(story)


def test_a_job_whose_standbys_are_gone_for_good_ends_when_its_charter_has() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0))]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(
            shouting(8, batch_items_max=1), inputs(*WORDS), terms(mesh, deadline_s=30.0)
        )
        await trio.sleep(1.5)
        mesh.crash("c")
        mesh.crash("d")
        with trio.fail_after(5_000):
            state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state != "completed"

    play(story)
