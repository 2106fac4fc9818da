"""A journal that goes on where another broker left it, and one that only follows.

In virtual time (a MockClock's).
"""

from collections.abc import Sequence

import pytest

from meshnode.domain.elections import CHANGED
from meshnode.domain.facts import Called, Cancelled, Done, Elected, Expanded, Fact, Failed
from meshnode.domain.job import JobState, fold
from meshnode.errors import Superseded
from meshnode.ports import Write
from meshnode.services.journal_copies import drop, grow, key_of, read_copies, replace
from meshnode.services.journal_openings import open_journal
from meshnode.services.journals import JobJournal
from protocol.errors import OutOfTurn
from protocol.journal import SegmentExport, decode_segment, read_export
from simulations.mesh import SimMesh
from tests.meshnode.services.test_journals import JOB, planned
from tests.meshnode.services.worlds import play

CHARTER = b"c" * 32


def elected(epoch: int, broker: str) -> Elected:
    return Elected(epoch=epoch, broker=broker, charter=CHARTER, certificate=b"shown")


async def first_of(mesh: SimMesh) -> JobJournal:
    """The journal of a job that a begins under a charter, and has called for something in."""
    node = await mesh.start("a")
    plan = planned(node)
    context = node.broker._context
    journal = await JobJournal.create(context, JOB, plan, elected=elected(0, node.peer))
    await journal.record(
        Expanded(subtask="say", sizes=[-1]),
        Called(unit="say/0", attempt=0, cfps={"p": b"cfp"}),
    )
    return journal


async def copied(mesh: SimMesh, name: str, segments: list[SegmentExport]) -> None:
    """Let ``name`` have copies of ``segments``."""
    context = mesh.node(name).broker._context
    for segment in segments:
        key = key_of(CHARTER, decode_segment(segment.header).epoch)
        some = SegmentExport(segment.header, segment.events[:1], segment.head)
        await context.store.commit(*grow(key, some, first=0))
        await context.store.commit(*grow(key, segment, first=1))


async def second_of(mesh: SimMesh) -> tuple[JobJournal, JobJournal]:
    """The journals of a and of b, which goes on with the job."""
    first = await first_of(mesh)
    node = await mesh.start("b")
    await copied(mesh, "b", first.segments)
    context = node.broker._context
    before = await read_copies(context, CHARTER)
    assert before == first.segments
    return first, await JobJournal.succeed(context, JOB, before, elected(1, node.peer))


def test_a_successor_goes_on_and_closes_what_it_can_not_award() -> None:
    async def story(mesh: SimMesh) -> None:
        first, second = await second_of(mesh)
        added = second.events()[len(first.events()) :]
        assert [event.kind for event in added] == ["elected", "failed"]
        assert added[1].data["code"] == CHANGED
        await second.record(Cancelled(reason="owner"), Done(state="cancelled"))
        assert second.state == fold(JOB, second.events())
        parts = read_export(await second.export())
        assert [part.header.writer for part in parts] == [mesh.peer("a"), mesh.peer("b")]
        assert [len(part.events) for part in parts] == [4, 4]

    play(story)


def test_a_restart_of_a_successor_forgets_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        _, second = await second_of(mesh)
        mesh.crash("b")
        node = await mesh.restart("b")
        again = await JobJournal.open(node.broker._context, JOB)
        assert (again.state, again.segments) == (second.state, second.segments)
        await again.record(Cancelled(reason="owner"), Done(state="cancelled"))
        read_export(await again.export())

    play(story)


def test_a_successor_without_what_went_before_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        await second_of(mesh)
        await drop(mesh.node("b").broker._context, key_of(CHARTER, 0))
        mesh.crash("b")
        node = await mesh.restart("b")
        with pytest.raises(OutOfTurn):
            await JobJournal.open(node.broker._context, JOB)

    play(story)


def test_whose_job_has_passed_on_writes_nothing_and_follows() -> None:
    async def story(mesh: SimMesh) -> None:
        first, second = await second_of(mesh)
        own = Failed(unit="say/0", attempt=0, peer="", code="late", text="", blame="broker")
        await first.record(own)  # which the successor never got
        first.retire()
        before = first.events()
        with pytest.raises(Superseded):
            await first.record(Cancelled(reason="owner"))
        with pytest.raises(Superseded):
            await first.extend(never)
        assert first.events() == before
        first.adopt(second.segments)
        assert (first.state, first.segments) == (second.state, second.segments)
        await second.record(Cancelled(reason="owner"))
        first.adopt(second.segments)
        await second.record(Done(state="cancelled"))
        first.adopt(second.segments)
        assert first.done == Done(state="cancelled")
        assert await first.export() == await second.export()
        third = JobJournal.of_others(first._context, JOB, second.segments)
        assert third.state == second.state

    play(story)


@pytest.mark.parametrize("retired", [False, True])
def test_another_story_of_the_same_segment_takes_the_place_of_what_is_here(
    retired: bool,
) -> None:
    async def story(mesh: SimMesh) -> None:
        first = await first_of(mesh)
        (whole,) = first.segments
        own = Failed(unit="say/0", attempt=0, peer="", code="late", text="", blame="broker")
        await first.record(own)  # which no heir ever got
        if retired:
            first.retire()
        first.adopt([whole])
        assert first.segments == [whole]
        assert first.state == fold(JOB, first.events())
        other = JobJournal.of_others(first._context, JOB, [whole])
        assert first.state == other.state

    play(story)


async def never(_: JobState) -> tuple[Sequence[Fact], Sequence[Write]]:
    raise AssertionError("nobody is to decide any more")


def test_who_lost_a_job_twice_can_still_read_it() -> None:
    async def story(mesh: SimMesh) -> None:
        first, second = await second_of(mesh)
        await second.record(Cancelled(reason="owner"))
        node = await mesh.start("c")
        context = node.broker._context
        # c went on from less of a's segment than b did.
        whole = first.segments[0]
        less = SegmentExport(whole.header, whole.events[:2], whole.head)
        later = await JobJournal.succeed(context, JOB, [less], elected(2, node.peer))
        heir = mesh.node("b").broker._context
        await replace(heir, CHARTER, [less, later.segments[-1]], since=0)
        mesh.crash("b")
        node = await mesh.restart("b")
        again = await open_journal(node.broker._context, JOB)
        assert again.following
        assert len(again.segments) == 2

    play(story)
