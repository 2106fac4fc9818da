"""Journals on a disk that is crashed, filled up and tampered with (a MockClock's time)."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from meshnode.domain.facts import Cancelled, Done, Expanded, Fact, Failed, Planned
from meshnode.domain.job import JobState, fold
from meshnode.errors import NotFound, StoreError
from meshnode.node import Node
from meshnode.ports import Append, Put, Write
from meshnode.services.journals import JobJournal
from protocol.errors import OutOfTurn, ProtocolError
from protocol.graph import encode_graph
from protocol.journal import read_export
from simulations.mesh import SimMesh
from simulations.store import MemoryDisk
from tests.meshnode.services.worlds import play, shouting, slow_disk

JOB = "0123456789"
LOG = f"job/{JOB}"


def planned(node: Node) -> Planned:
    return Planned(
        owner=node.peer,
        graph=encode_graph(shouting()),
        inputs={},
        budget_mc=10,
        deadline_ms=10**13,
        idempotency_key="",
        epoch=0,
    )


async def journal_on(mesh: SimMesh) -> JobJournal:
    """Return a journal with three facts, on the disk of a new node."""
    node = await mesh.start("a")
    journal = await JobJournal.create(node.broker._context, JOB, planned(node))
    await journal.record(Expanded(subtask="say", sizes=[-1]))
    await journal.record(Cancelled(reason="owner"))
    return journal


async def reopened(mesh: SimMesh) -> JobJournal:
    """Crash the node and open its journal in another life."""
    mesh.crash("a")
    node = await mesh.restart("a")
    return await JobJournal.open(node.broker._context, JOB)


def test_a_restart_folds_to_the_same_state() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        again = await reopened(mesh)
        assert again.state == journal.state
        assert again.state == fold(JOB, journal.events())
        assert again.events() == journal.events()
        await again.record(Done(state="cancelled"))
        assert (await reopened(mesh)).done == Done(state="cancelled")

    play(story)


def _drop_last(disk: MemoryDisk) -> None:
    disk.logs[LOG].pop()


def _drop_first(disk: MemoryDisk) -> None:
    del disk.logs[LOG][1]


def _swap(disk: MemoryDisk) -> None:
    log = disk.logs[LOG]
    log[2], log[3] = log[3], log[2]


def _repeat(disk: MemoryDisk) -> None:
    disk.logs[LOG].append(disk.logs[LOG][-1])


def _flip(entry: int, at: int) -> Callable[[MemoryDisk], None]:
    def tamper(disk: MemoryDisk) -> None:
        body = bytearray(disk.logs[LOG][entry])
        body[at] ^= 1
        disk.logs[LOG][entry] = bytes(body)

    return tamper


def _lose_head(disk: MemoryDisk) -> None:
    del disk.tables["journal_head"][JOB]


def _flip_head(disk: MemoryDisk) -> None:
    raw = bytearray(disk.tables["journal_head"][JOB])
    raw[-1] ^= 1
    disk.tables["journal_head"][JOB] = bytes(raw)


@pytest.mark.parametrize(
    "tamper",
    [
        _drop_last,
        _drop_first,
        _swap,
        _repeat,
        _flip(0, -1),
        _flip(0, 5),
        _flip(1, -1),
        _flip(2, -1),
        _flip(3, 3),
        _lose_head,
        _flip_head,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_a_tampered_store_is_refused(tamper: Callable[[MemoryDisk], None]) -> None:
    async def story(mesh: SimMesh) -> None:
        await journal_on(mesh)
        mesh.crash("a")
        tamper(mesh.members["a"].disk)
        node = await mesh.restart("a")
        with pytest.raises((StoreError, ProtocolError)):
            await JobJournal.open(node.broker._context, JOB)

    play(story)


def test_a_job_that_is_not_there_is_not_found() -> None:
    async def story(mesh: SimMesh) -> None:
        node = await mesh.start("a")
        with pytest.raises(NotFound):
            await JobJournal.open(node.broker._context, "nobody")

    play(story)


def test_what_the_disk_refuses_never_happened() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        before = journal.events()
        mesh.fill_disk("a")
        with pytest.raises(StoreError):
            await journal.record(Done(state="cancelled"))
        assert journal.done is None
        assert journal.state.done is None
        assert journal.events() == before
        await journal.record(Done(state="cancelled"))
        assert (await reopened(mesh)).events() == journal.events()

    play(story)


def test_what_can_not_follow_is_refused_with_all_that_came_with_it() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        before = journal.events()
        lost = Failed(unit="none", attempt=0, peer="", code="x", text="", blame="peer")
        store = journal._context.store
        with pytest.raises(OutOfTurn):
            await journal.record(
                Done(state="failed"), lost, writes=[Put("extra", "key", b"value")]
            )
        assert journal.events() == before
        assert journal.done is None
        assert await store.read("extra", "key") is None
        await journal.record(Done(state="cancelled"), writes=[Put("extra", "key", b"value")])
        assert await store.read("extra", "key") == b"value"

    play(story)


def test_nothing_is_told_before_it_is_durable() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        slow_disk(mesh, "a", 1.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(record, journal)
            await trio.sleep(0.5)
            assert journal.state.done is not None, "it is folded"
            assert journal.done is None
            assert len(journal.events()) == 3
            journal.poke()
            with trio.move_on_after(0.3) as scope:
                await journal.follow(3)
            assert scope.cancelled_caught, "a follower isn't told either"
            assert (await journal.settled()).done is not None
        assert journal.done is not None
        assert [event.kind for event in await journal.follow(3)] == ["done"]

    async def record(journal: JobJournal) -> None:
        await journal.record(Done(state="cancelled"))

    play(story)


def test_a_caller_that_goes_away_leaves_a_whole_journal() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        slow_disk(mesh, "a", 1.0)
        with trio.move_on_after(0.5):
            await journal.record(Done(state="cancelled"))
        assert journal.done == Done(state="cancelled")
        assert (await reopened(mesh)).events() == journal.events()

    play(story)


def test_facts_that_no_longer_apply_are_dropped_in_turn() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        added: list[bool] = []

        async def end(state: Any) -> None:
            added.append(
                await journal.record(
                    Done(state=state), still=lambda: journal.state.done is None
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, "failed")
            nursery.start_soon(end, "cancelled")
        assert sorted(added) == [False, True]

    play(story)


# --- groups --------------------------------------------------------------------------


class Counting:
    """A journal's store that counts its commits, each of them slow."""

    def __init__(
        self, mesh: SimMesh, journal: JobJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.commits: list[tuple[Write, ...]] = []
        slow_disk(mesh, "a", 1.0)
        store = journal._context.store
        honest = store.commit

        async def commit(*writes: Write) -> None:
            if any(isinstance(write, Append) for write in writes):
                self.commits.append(writes)
            await honest(*writes)

        monkeypatch.setattr(store, "commit", commit)


def test_what_comes_while_the_disk_writes_is_one_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        counting = Counting(mesh, journal, monkeypatch)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(journal.record, Cancelled(reason=f"{number}"))
        assert len(counting.commits) <= 2, "the first, and all that came meanwhile"
        assert sorted(e.data["reason"] for e in journal.events(3)) == [*"0123456789"]
        assert (await reopened(mesh)).events() == journal.events()

    play(story)


def test_a_fact_that_can_not_follow_takes_none_along_that_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = Failed(unit="none", attempt=0, peer="", code="x", text="", blame="peer")

    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        Counting(mesh, journal, monkeypatch)
        told: list[str] = []

        async def record(reason: str) -> None:
            fact = lost if reason == "2" else Cancelled(reason=reason)
            try:
                await journal.record(fact, writes=[Put("extra", reason, b"")])
            except OutOfTurn:
                reason += " refused"
            told.append(reason)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(record, str(number))
        assert sorted(told) == ["0", "1", "2 refused", "3", "4"]
        assert sorted(e.data["reason"] for e in journal.events(3)) == [*"0134"]
        rows = await journal._context.store.scan("extra")
        assert [key for key, _ in rows] == [*"0134"]
        assert (await reopened(mesh)).events() == journal.events()

    play(story)


def test_a_fact_whose_caller_went_away_before_its_turn_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        Counting(mesh, journal, monkeypatch)

        async def hasty() -> None:
            with trio.move_on_after(0.5):
                await journal.record(Cancelled(reason="hasty"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.record, Cancelled(reason="first"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(hasty)
            nursery.start_soon(journal.record, Cancelled(reason="last"))
        assert [event.data["reason"] for event in journal.events(3)] == ["first", "last"]

    play(story)


def test_what_follows_from_what_follows_is_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        counting = Counting(mesh, journal, monkeypatch)
        durable: list[int] = []

        async def decide(state: JobState) -> tuple[list[Fact], list[Write]]:
            await trio.lowlevel.checkpoint()
            durable.append(len(journal.events()))
            more = state.seq < 6
            return [Cancelled(reason="more")] if more else [], [Put("extra", "a", b"")]

        added = await journal.extend(decide)
        assert len(added) == len(journal.events(3)) == 3
        assert durable == [3, 3, 3, 3], "nothing was told before the end"
        assert len(counting.commits) == 1
        assert await journal.extend(decide) == []
        assert len(counting.commits) == 1

    play(story)


def test_what_followed_is_undone_when_the_disk_refuses() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)

        async def decide(state: JobState) -> tuple[list[Fact], list[Write]]:
            await trio.lowlevel.checkpoint()
            return [Cancelled(reason="more")] if state.seq < 5 else [], []

        mesh.fill_disk("a", count=1)
        with pytest.raises(StoreError):
            await journal.extend(decide)
        assert journal.state.seq == len(journal.events()) == 3
        await journal.extend(decide)
        assert journal.state.seq == len(journal.events()) == 5

    play(story)


def test_only_a_finished_journal_is_exported_and_then_it_reads() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        with pytest.raises(NotFound):
            await journal.export()
        await journal.record(Done(state="cancelled"))
        (segment,) = read_export(await journal.export())
        assert list(segment.events) == journal.events()

    play(story)


def test_a_follower_is_told_of_the_end() -> None:
    async def story(mesh: SimMesh) -> None:
        journal = await journal_on(mesh)
        await journal.record(Done(state="cancelled"))
        assert await journal.follow(4) == []

    play(story)
