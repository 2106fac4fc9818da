"""What the in-memory store adds to the contract: virtual time, power loss, a full disk."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from meshnode.errors import StoreError
from meshnode.ports import Append, Put
from simulations.store import MemoryDisk, MemoryStore


async def test_a_commit_takes_its_latency(autojump_clock: MockClock) -> None:
    store = MemoryStore(MemoryDisk(), latency_s=(0.25, 0.25))
    start_s = trio.current_time()
    await store.commit(Put("t", "k", b"v"))
    assert trio.current_time() - start_s == pytest.approx(0.25)


async def test_callers_that_come_during_a_flush_share_the_next(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore(MemoryDisk(), latency_s=(1.0, 1.0))
    ended_s: list[float] = []
    start_s = trio.current_time()

    async def commit(number: int) -> None:
        await trio.sleep(number * 0.1)
        await store.commit(Append("log", number, b""))
        ended_s.append(round(trio.current_time() - start_s, 3))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(commit, number)
    assert ended_s == [1.0, 2.0, 2.0, 2.0, 2.0]


async def test_a_crash_loses_what_was_not_durable_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    store = MemoryStore(disk, latency_s=(1.0, 1.0))
    await store.commit(Put("t", "old", b""))
    told: list[str] = []

    async def commit() -> None:
        try:
            await store.commit(Put("t", "new", b""))
        except StoreError as error:
            told.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit)
        await trio.sleep(0.5)
        store.crash()
    assert told == ["store in memory has crashed"]
    with pytest.raises(StoreError, match="crashed"):
        await store.read("t", "old")
    again = MemoryStore(disk)
    assert await again.scan("t") == [("old", b"")]


async def test_a_commit_outlives_its_cancelled_caller(autojump_clock: MockClock) -> None:
    store = MemoryStore(MemoryDisk(), latency_s=(1.0, 1.0))
    with trio.move_on_after(0.5):
        await store.commit(Put("t", "k", b"v"))
    assert await store.read("t", "k") is None
    await trio.sleep(0.5)
    assert await store.read("t", "k") == b"v"


async def test_nothing_is_read_before_it_is_durable(autojump_clock: MockClock) -> None:
    store = MemoryStore(MemoryDisk(), latency_s=(1.0, 1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.commit, Put("t", "k", b"v"))
        await trio.sleep(0.9)
        assert await store.read("t", "k") is None
        await trio.sleep(0.2)
        assert await store.read("t", "k") == b"v"


async def test_a_full_disk_refuses_the_next_commits_and_recovers() -> None:
    store = MemoryStore(MemoryDisk())
    store.fail_next(count=2)
    for _ in range(2):
        with pytest.raises(StoreError, match="disk is full"):
            await store.commit(Append("log", 0, b"lost"))
    await store.commit(Append("log", 0, b"kept"))
    assert await store.log("log") == [b"kept"]


async def _trace(seed: int) -> list[tuple[float, int]]:
    store = MemoryStore(MemoryDisk(), chance=Random(seed), latency_s=(0.001, 0.05))
    trace: list[tuple[float, int]] = []
    for number in range(50):
        await store.commit(Append("log", number, b""))
        trace.append((trio.current_time(), number))
    return trace


def test_the_same_seed_gives_the_same_times() -> None:
    def run(seed: int) -> list[tuple[float, int]]:
        return trio.run(_trace, seed, clock=MockClock(autojump_threshold=0))

    assert run(1) == run(1)
    assert run(1) != run(2)
