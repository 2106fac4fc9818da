"""What a majority of a job's members has is not lost, whoever is asked, cut off or restarted.

Real nodes in virtual time (a MockClock's); some members are worked by hand.
"""

from functools import partial

import msgspec
import pytest
import trio

from meshnode.domain.failover import Asked, Position, Turn
from meshnode.node import Node
from meshnode.services import shipping
from meshnode.services.journal_copies import read_copies
from meshnode.services.seat import Seat, SeatRow
from meshnode.services.seats import SEATS
from meshnode.services.standbys import position_of
from meshnode.services.successions import Successions
from simulations.mesh import SimMesh
from tests.meshnode.services.test_failover import WORDS, broker_of, mesh_of, terms
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    slow_disk,
)


def seat_of(mesh: SimMesh, name: str) -> Seat:
    (seat,) = mesh.node(name).successions._seats.all()
    return seat


async def ask(mesh: SimMesh, name: str, asked: Asked, *, after_ms: int = 0) -> Turn:
    """Let the member ``name`` answer who asks for an epoch, so much later by its clock."""
    seat, seats = seat_of(mesh, name), mesh.node(name).successions._seats
    async with seat.turn:
        now_ms = seats._clock.now_ms() + after_ms
        turn = seat.rules.asked(seat.view, asked, now_ms=now_ms)
        await seats._do(seat, turn)
    return turn


async def begun(mesh: SimMesh, *, after_s: float = 1.5) -> tuple[Node, str]:
    """A job of a with standbys c and d, under way."""
    agents = [TextAgent(answers_after(3.0), concurrency_max=1) for _ in range(2)]
    owner, *_ = await mesh_of(mesh, *agents)
    job = await owner.submit(
        shouting(8, batch_items_max=1), inputs(*WORDS), terms(mesh, deadline_s=300.0)
    )
    await trio.sleep(after_s)
    return owner, job


@pytest.mark.parametrize("restarts", [False, True])
def test_who_granted_a_later_epoch_takes_in_nothing_more_of_an_earlier_one(
    restarts: bool,
) -> None:
    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        mesh.crash("c")
        seat = seat_of(mesh, "d")
        had = seat.position
        later = Asked(2, mesh.peer("c"), 0, had)
        turn = await ask(mesh, "d", later, after_ms=seat.chartered.charter.lease_ms)
        assert turn.writes is not None, "it was granted"
        if restarts:
            mesh.crash("d")
            await mesh.restart("d")
            seat = seat_of(mesh, "d")
        while seat.newest[0] < 3:
            assert seat.position == had, "c may go on from there"
            await trio.sleep(0.05)
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"

    play(story)


def test_a_broker_that_restarts_counts_what_it_wrote_before_anybody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began: list[Position] = []
    run = Successions.run

    async def watched(self: Successions) -> None:
        began.extend(seat.position for seat in self._seats.all())
        await run(self)

    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        wrote = len((await owner.journal(job)).events())
        mesh.crash("a")
        monkeypatch.setattr(Successions, "run", watched)
        await mesh.restart("a")
        assert began[0].segment == 1
        assert began[0].events >= wrote > 0
        heir = await broker_of(mesh, job, "c", "d", "a")
        began.clear()
        at = (await mesh.node(heir).journal(job)).segments
        mesh.crash(heir)
        await mesh.restart(heir)
        assert began[0] >= position_of(at), "an heir counts what it wrote itself"

    play(story)


@pytest.mark.parametrize("part", [1, 256])
def test_who_is_told_another_story_never_counts_less_than_that(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_EVENTS_MAX", part)

    async def story(mesh: SimMesh) -> None:
        owner, job = await begun(mesh)
        await trio.sleep(1.3)
        mesh.world.network.partition([mesh.peer("a")], [mesh.peer("c"), mesh.peer("d")])
        heir = await broker_of(mesh, job, "c", "d")
        began = (await mesh.node(heir).journal(job)).segments[0]
        assert len(began.events) < len((await owner.journal(job)).events()), "it has another"
        seat, seen = seat_of(mesh, "a"), list[Position]()
        moved = Seat.moved

        def watched(self: Seat, position: Position, *, ended: bool) -> None:
            moved(self, position, ended=ended)
            if self is seat:
                seen.append(position)

        monkeypatch.setattr(Seat, "moved", watched)
        mesh.world.network.partition()
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert min(seen) >= Position(1, len(began.events)), "a majority has so much"
        assert seen[-1].segment == 2
        assert (await owner.journal(job)).segments == (
            await mesh.node(heir).journal(job)
        ).segments
        context = mesh.node("a").broker._context
        on_disk = await read_copies(context, seat.chartered.name)
        assert on_disk == (await owner.journal(job)).segments
        logs = [name for name in mesh.members["a"].disk.logs if name.startswith("copy/")]
        assert len(logs) == len(on_disk), "the story before is forgotten"

    play(story)


@pytest.mark.parametrize("granted_first", [True, False])
def test_what_is_granted_while_a_job_ends_is_kept(granted_first: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        await begun(mesh)
        mesh.crash("c")
        slow_disk(mesh, "d", 0.1)
        seat, seats = seat_of(mesh, "d"), mesh.node("d").successions._seats
        asked = Asked(2, mesh.peer("c"), 0, seat.position)
        lease_ms = seat.chartered.charter.lease_ms
        async with trio.open_nursery() as nursery:
            if not granted_first:
                nursery.start_soon(seats.end, seat)
                await trio.sleep(0.01)
            nursery.start_soon(partial(ask, mesh, "d", asked, after_ms=lease_ms))
            await trio.sleep(0.01)
            nursery.start_soon(seats.end, seat)
        ((_, raw),) = await mesh.node("d").broker._context.store.scan(SEATS)
        row = msgspec.msgpack.decode(raw, type=SeatRow)
        assert (row.epoch, row.broker, row.over) == (2, mesh.peer("c"), True)

    play(story)
