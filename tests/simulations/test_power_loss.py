"""What a crash does to the simulated disk, flaw by flaw, and what it never does."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
import trio
from trio.testing import MockClock

from meshnode.errors import StoreError
from meshnode.ports import Append, Put
from simulations.store import Flaws, MemoryDisk, MemoryStore

HONEST = Flaws(untold_chance=0.3, torn_chance=0.4)
LIAR = Flaws(untold_chance=0.3, torn_chance=0.4, lie_groups_max=3)


@dataclass
class Outcome:
    """One disk after commits, a crash in the middle of them, and a new opening.

    Attributes:
        groups: Commits that shared a transaction, in order: by the time they were told.
        told: Commits whose caller was told that they are durable.
        there: Commits of which all writes are there.
        in_part: Commits of which some writes are there.
        disk: With its counts.
    """

    groups: dict[float, list[int]] = field(default_factory=dict)
    told: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    in_part: list[int] = field(default_factory=list)
    disk: MemoryDisk = field(default_factory=MemoryDisk)


def lose_power(flaws: Flaws, seed: int) -> Outcome:
    """Commit thirty times, three writes each, several at once; crash at some time."""
    outcome = Outcome(disk=MemoryDisk(flaws))

    async def main() -> None:
        rng = Random(seed)
        store = MemoryStore(outcome.disk, chance=Random(seed), latency_s=(0.5, 1.5))

        async def commit(number: int) -> None:
            try:
                await store.commit(
                    Put("t", f"{number:02}/a", b""),
                    Put("t", f"{number:02}/b", b""),
                    Put("t", f"{number:02}/c", b""),
                )
            except StoreError:
                return
            outcome.told.append(number)
            outcome.groups.setdefault(trio.current_time(), []).append(number)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(commit, number)
                await trio.sleep(rng.random() * 0.4)
                if number == rng.randint(8, 29):
                    break
            store.crash()
        again = MemoryStore(outcome.disk)
        parts = Counter(int(key[:2]) for key, _ in await again.scan("t"))
        outcome.there = sorted(number for number, count in parts.items() if count == 3)
        outcome.in_part = sorted(number for number, count in parts.items() if count < 3)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return outcome


SEEDS = range(300)


def test_an_honest_disk_keeps_what_it_told_and_nothing_in_part() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = lose_power(HONEST, seed)
        assert outcome.in_part == []
        assert outcome.there == list(range(len(outcome.there))), "no hole"
        assert set(outcome.told) <= set(outcome.there)
        assert (len(outcome.there) > len(outcome.told)) == (outcome.disk.untold == 1)
        assert outcome.disk.lost == 0
        counts.update(untold=outcome.disk.untold, torn=outcome.disk.torn)
    assert counts["untold"] == pytest.approx(300 * 0.3, abs=30)
    assert counts["torn"] == pytest.approx(300 * 0.4, abs=30)


def test_a_disk_without_flaws_loses_all_that_nobody_was_told() -> None:
    for seed in SEEDS:
        outcome = lose_power(Flaws(), seed)
        assert outcome.there == sorted(outcome.told)
        assert (outcome.disk.torn, outcome.disk.untold, outcome.disk.lost) == (0, 0, 0)


def test_a_group_that_nobody_was_told_of_is_there_as_a_whole() -> None:
    sizes: Counter[int] = Counter()
    for seed in SEEDS:
        outcome = lose_power(Flaws(untold_chance=1.0), seed)
        assert outcome.in_part == []
        sizes[len(outcome.there) - len(outcome.told)] += 1
    assert max(sizes) > 1, "a group is more than one commit"


def test_a_disk_that_lies_loses_whole_groups_from_the_end_and_counts_them() -> None:
    lost: Counter[int] = Counter()
    for seed in SEEDS:
        outcome = lose_power(LIAR, seed)
        assert outcome.in_part == []
        assert outcome.there == list(range(len(outcome.there))), "no hole"
        groups = [set(group) for group in outcome.groups.values()]
        gone = [group for group in groups if not group <= set(outcome.there)]
        assert all(group.isdisjoint(outcome.there) for group in gone), "whole groups"
        assert gone == groups[len(groups) - len(gone) :], "the last ones"
        assert len(gone) == outcome.disk.lost
        assert not (gone and outcome.disk.untold), "nothing comes behind what is gone"
        lost[len(gone)] += 1
    assert sorted(lost) == [0, 1, 2, 3]
    assert all(count > 40 for count in lost.values())


async def test_a_disk_that_lies_keeps_what_was_closed_in_order() -> None:
    disk = MemoryDisk(LIAR)
    for number in range(20):
        store = MemoryStore(disk, chance=Random(number))
        await store.commit(Append("log", number, b""))
        await store.aclose()
        store = MemoryStore(disk, chance=Random(number))
        store.crash()
    assert len(disk.logs["log"]) == 20


async def test_a_commit_that_does_not_fit_is_not_there_after_a_crash_either(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk(Flaws(untold_chance=1.0))
    store = MemoryStore(disk, chance=Random(1), latency_s=(1.0, 1.0))
    refused: list[str] = []

    async def commit(seq: int, value: bytes) -> None:
        try:
            await store.commit(Append("log", seq, value))
        except StoreError as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, 7, b"does not fit")
        await trio.sleep(0.5)
        store.crash()
    assert await MemoryStore(disk).log("log") == []
    assert disk.untold == 0


async def test_a_disk_with_flaws_needs_chance() -> None:
    store = MemoryStore(MemoryDisk(Flaws(torn_chance=0.5)))
    with pytest.raises(ValueError, match="chance"):
        store.crash()


async def test_the_crash_of_a_store_that_was_closed_does_nothing_to_its_disk() -> None:
    disk = MemoryDisk(LIAR)
    closed = MemoryStore(disk, chance=Random(1))
    await closed.aclose()
    store = MemoryStore(disk, chance=Random(2))
    for number in range(3):
        await store.commit(Append("log", number, b""))
    for _ in range(10):
        closed.crash()
    assert len(await store.log("log")) == 3
