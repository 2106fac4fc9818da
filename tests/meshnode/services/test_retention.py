"""What is past its time is forgotten, and nothing before.

Real nodes in virtual time (a MockClock's); days pass by setting a node's clock.
"""

import msgspec
import pytest
import trio

from meshnode.domain.values import canonical
from meshnode.errors import NotFound, StoreError
from meshnode.node import Node, Terms
from meshnode.ports import Delete
from meshnode.services import award_records, retention
from meshnode.services.bodies import RECEIPTS, AwardBody
from meshnode.services.receipts import RECEIPT_TIMES
from meshnode.services.retention import DATED, RECEIPT_S_MIN, RETENTION
from protocol.graph import TaskGraph
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.broker_by_hand import meet, refusal_of, result_of
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    never,
    play,
    shouting,
    start,
    told,
    until,
)

DAY_MS = 86_400_000


def days_later(mesh: SimMesh, node: Node, days: float) -> None:
    """Let ``node``'s keepers see a clock that is so many days ahead."""
    clock = mesh.world.clock(skew_ms=int(days * DAY_MS))
    node.retention._clock = clock
    node.contractor._records._clock = clock


def sleeping() -> TaskGraph:
    """A job that doesn't come to its end."""
    graph = shouting()
    task = msgspec.structs.replace(graph.subtasks[0], capability="text.slow@1")
    return msgspec.structs.replace(graph, subtasks=[task])


async def closed(node: Node, job: str) -> None:
    """Wait until ``job`` has ended and its row says so."""
    await node.wait(job)
    await trio.sleep(1)
    assert dict(await node.broker.jobs())[job].done


@pytest.mark.parametrize(("history", "kept"), [(20, 20), (2, RECEIPT_S_MIN / 86_400)])
def test_receipts_are_kept_for_their_time_at_both_sides(history: int, kept: float) -> None:
    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(CONFIG.host, history_s=history * 86_400.0)
        config = msgspec.structs.replace(CONFIG, host=host)
        a, b = await start(mesh, config, a=[], b=[TextAgent()])
        job = await a.submit(shouting(3), inputs("one", "two", "three"))
        await a.wait(job)
        await until(lambda: not a.receipts._sending)
        for node in (a, b):
            there = len(await node.served())
            assert there > 0
            days_later(mesh, node, kept - 0.1)
            await node.retention.sweep()
            assert len(await node.served()) == there
            days_later(mesh, node, kept + 0.1)
            await node.retention.sweep()
            assert await node.served() == []
            assert await node.retention._store.scan(RECEIPT_TIMES) == []

    play(story)


def test_ended_jobs_go_with_journal_and_key_and_running_ones_stay() -> None:
    async def story(mesh: SimMesh) -> None:
        slow = TextAgent(never, name="slow", capability="text.slow@1")
        (a,) = await start(mesh, a=[TextAgent(), slow])
        runs = await a.submit(sleeping(), inputs("hello"))
        terms = Terms(idempotency_key="same")
        ended = await a.submit(shouting(), inputs("hello"), terms)
        await closed(a, ended)
        assert await a.submit(shouting(), inputs("hello"), terms) == ended
        days_later(mesh, a, 364)
        await a.retention.sweep()
        assert {job for job, _ in await a.broker.jobs()} == {ended, runs}
        days_later(mesh, a, 366)
        await a.retention.sweep()
        assert [job for job, _ in await a.broker.jobs()] == [runs]
        assert (await a.journal(runs)).done is None
        with pytest.raises(NotFound):
            await a.journal(ended)
        mesh.crash("a")
        again = await mesh.restart("a")
        with pytest.raises(NotFound):
            await again.journal(ended)
        fresh = await again.submit(shouting(), inputs("hello"), terms)
        assert fresh != ended
        assert (await again.wait(fresh)).done is not None

    play(story)


def test_a_job_that_was_half_forgotten_goes_the_next_time() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[TextAgent()])
        job = await a.submit(shouting(), inputs("hello"))
        await closed(a, job)
        days_later(mesh, a, 366)
        mesh.fill_disk("a", count=1)
        with pytest.raises(StoreError):
            await a.retention.sweep()
        await a.retention.sweep()
        assert await a.broker.jobs() == []

    play(story)


async def made_old(node: Node) -> int:
    """Make ``node``'s store as one from before receipts had times; return how many it has."""
    store = node.retention._store
    times = await store.scan(RECEIPT_TIMES)
    await store.commit(*(Delete(RECEIPT_TIMES, key) for key, _ in times))
    await store.commit(Delete(RETENTION, DATED))
    return len(await node.served())


def test_receipts_from_before_they_had_times_are_kept_from_the_upgrade_on() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        for _ in range(2):
            await a.wait(await a.submit(shouting(3), inputs("one", "two", "three")))
        await until(lambda: not a.receipts._sending)
        for node in (a, b):
            there = await made_old(node)
            assert there > 0
            days_later(mesh, node, 300)  # when it is upgraded
            await node.retention.sweep()
            assert len(await node.retention._store.scan(RECEIPT_TIMES)) == there
            days_later(mesh, node, 300 + 364)
            await node.retention.sweep()
            assert len(await node.served()) == there
            days_later(mesh, node, 300 + 366)
            await node.retention.sweep()
            assert await node.served() == []
            assert await node.retention._store.scan(RECEIPT_TIMES) == []

    play(story)


def test_a_fresh_store_needs_no_receipts_dated() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        await trio.sleep(1)  # the hour's sweep is later
        assert await a.retention._store.read(RETENTION, DATED) == b""

    play(story)


def test_awards_are_not_looked_through_before_one_can_have_lapsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []

    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        records = b.contractor._records
        look = records._forget_awards

        async def looked(now_ms: int) -> int:
            looks.append(now_ms)
            return await look(now_ms)

        monkeypatch.setattr(records, "_forget_awards", looked)
        await records.forget_old()
        await records.forget_old()
        assert len(looks) == 1
        await a.wait(await a.submit(shouting(), inputs("one")))
        await until(lambda: bool(mesh.members["b"].disk.tables.get("receipt")))
        days_later(mesh, b, 0.001)
        await records.forget_old()
        assert len(looks) == 1
        days_later(mesh, b, 1)
        assert await records.forget_old() == 1
        assert len(looks) == 2
        days_later(mesh, b, 0)  # a clock that was set back puts nothing off
        await records.forget_old()
        assert len(looks) == 3

    play(story)


def test_receipts_are_given_times_once_and_in_small_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "_ROWS_MAX", 2)

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        for _ in range(6):
            await a.wait(await a.submit(shouting(), inputs("one")))
        there = await made_old(a)
        mesh.fill_disk("a", count=1)
        with pytest.raises(StoreError):
            await a.retention.sweep()
        await a.retention.sweep()
        times = await a.retention._store.scan(RECEIPT_TIMES)
        assert {key.partition("/")[2] for key, _ in times} == {
            key for key, _ in await a.retention._store.scan(RECEIPTS)
        }
        assert len(times) == there
        (dated,) = told(a, "history.dated")
        assert dated["receipts"] == there
        days_later(mesh, a, 1)
        await a.retention.sweep()
        assert await a.retention._store.scan(RECEIPT_TIMES) == times

    play(story)


def test_an_award_that_is_refused_anyway_writes_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        node = mesh.node("b")
        offer = await hand.offer()
        await node.pause()
        header = hand.signer.header(hand.peer, hand.topic(), lifetime_ms=600_000)
        award = hand.award(offer, h=msgspec.structs.replace(header, epoch=3))
        assert refusal_of(await hand.send(award)).reason == "paused"
        assert await node.contractor._records._store.scan("epoch") == []

    play(story)


def test_an_epoch_is_remembered_while_its_job_may_run_and_not_for_ever() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        node = mesh.node("b")
        records = node.contractor._records
        offer = await hand.offer()

        def at_epoch(epoch: int) -> AwardBody:
            header = msgspec.structs.replace(
                hand.signer.header(hand.peer, hand.topic(), lifetime_ms=600_000), epoch=epoch
            )
            return hand.award(offer, h=header)

        assert result_of(await hand.send(at_epoch(3))).inline == canonical({"text": "HELLO"})
        days_later(mesh, node, 13)
        await records.forget_old()
        assert len(await records._store.scan("epoch")) == 1
        days_later(mesh, node, 15)
        await records.forget_old()
        assert await records._store.scan("epoch") == []

    play(story)


def test_however_many_awards_there_are_each_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await meet(mesh, TextAgent())
        node = mesh.node("b")
        records = node.contractor._records
        for _ in range(7):
            await hand.send(hand.award(await hand.offer()))
        rows = await records._store.scan("award")
        for part_max in (3, 7, 8):  # more than one part holds, as many, and fewer
            monkeypatch.setattr(award_records, "_PART_MAX", part_max)
            assert [row async for row in records._awards()] == rows
        assert len(rows) == 7

    play(story)
