"""How bad the simulated directory can be."""

from random import Random

import pytest
import trio
import trio.testing

from meshnode.errors import Unreachable
from simulations.directory import LIKE_KADEMLIA, Lossiness, SimDirectory

NAMES = ("text", "text.summarization")


def sequence_of(peer: str, record: bytes) -> int | None:
    """Take records such as ``b"a 3"`` for peer ``a``."""
    name, _, sequence = record.decode().partition(" ")
    return int(sequence) if name == peer else None


def directory(lossiness: Lossiness | None = None, seed: int = 1) -> SimDirectory:
    """Return a directory of that kind."""
    return SimDirectory(Random(seed), sequence_of, lossiness=lossiness)


async def test_a_perfect_directory_finds_everyone_the_first_time() -> None:
    perfect = directory()
    for i in range(15):
        await perfect.port(f"p{i}").publish(b"p%d 1" % i, NAMES)
    asker = perfect.port("asker")
    for name in NAMES:
        assert sorted(await asker.providers(name)) == sorted(f"p{i}" for i in range(15))
    for i in range(15):
        assert await asker.record(f"p{i}") == b"p%d 1" % i


async def test_the_validator_decides_what_is_taken() -> None:
    perfect = directory()
    with pytest.raises(Unreachable):
        await perfect.port("thief").publish(b"a 9", NAMES)
    assert await perfect.port("a").record("a") is None
    assert list(await perfect.port("a").providers("text")) == []


async def test_an_older_record_changes_nothing() -> None:
    perfect = directory(Lossiness(stale_chance=1.0))
    for sequence in (1, 3, 2):
        await perfect.port("a").publish(b"a %d" % sequence, NAMES)
    assert await perfect.port("b").record("a") == b"a 1", "the one before the newest"


async def test_lookups_miss_as_often_as_they_were_told_to() -> None:
    lossy = directory(Lossiness(miss_chance=0.25))
    await lossy.port("a").publish(b"a 1", NAMES)
    asker = lossy.port("asker")
    records = [await asker.record("a") for _ in range(400)]
    listed = [bool(await asker.providers("text")) for _ in range(400)]
    assert 60 < records.count(None) < 140
    assert 60 < listed.count(False) < 140


async def test_some_answers_are_the_record_before_and_none_is_older() -> None:
    stale = directory(Lossiness(stale_chance=0.3))
    for sequence in (1, 2, 3):
        await stale.port("a").publish(b"a %d" % sequence, NAMES)
    found = [await stale.port("b").record("a") for _ in range(400)]
    assert set(found) == {b"a 2", b"a 3"}
    assert 80 < found.count(b"a 2") < 160


async def test_publishing_again_what_is_there_makes_nothing_stale() -> None:
    stale = directory(Lossiness(stale_chance=1.0))
    await stale.port("a").publish(b"a 1", NAMES)
    await stale.port("a").publish(b"a 1", NAMES)
    await stale.port("a").publish(b"a 2", NAMES)
    await stale.port("a").publish(b"a 2", NAMES)
    assert await stale.port("b").record("a") == b"a 1"


async def test_publishing_fails_as_often_as_it_was_told_to() -> None:
    lossy = directory(Lossiness(publish_failure_chance=0.3))
    failed = 0
    for sequence in range(300):
        try:
            await lossy.port("a").publish(b"a %d" % sequence, NAMES)
        except Unreachable:
            failed += 1
    assert 60 < failed < 120


async def test_a_dead_peer_stays_listed_until_its_entry_lapses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    perfect = directory(Lossiness(lifetime_s=3600.0))
    await perfect.port("dead").publish(b"dead 1", NAMES)
    await perfect.port("alive").publish(b"alive 1", NAMES)
    await trio.sleep(3000)
    await perfect.port("alive").publish(b"alive 1", NAMES)
    asker = perfect.port("asker")
    assert sorted(await asker.providers("text")) == ["alive", "dead"]
    assert await asker.record("dead") == b"dead 1"
    await trio.sleep(1000)
    assert list(await asker.providers("text")) == ["alive"]
    assert await asker.record("dead") is None
    assert await asker.record("alive") == b"alive 1"


async def test_operations_take_their_time(autojump_clock: trio.testing.MockClock) -> None:
    slow = directory(Lossiness(latency_s=2.0, jitter_s=1.0))
    begun_s = trio.current_time()
    for _ in range(10):
        await slow.port("a").record("b")
    assert 20 < trio.current_time() - begun_s < 30


async def test_who_is_cut_off_finds_nothing_and_the_others_go_on() -> None:
    perfect = directory()
    await perfect.port("a").publish(b"a 1", NAMES)
    perfect.cut_off("b")
    assert await perfect.port("b").record("a") is None
    assert list(await perfect.port("b").providers("text")) == []
    with pytest.raises(Unreachable):
        await perfect.port("b").publish(b"b 1", NAMES)
    assert await perfect.port("c").record("a") == b"a 1"
    perfect.rejoin("b")
    assert await perfect.port("b").record("a") == b"a 1"


async def test_while_it_is_down_nothing_is_found_and_then_everything_again() -> None:
    perfect = directory()
    await perfect.port("a").publish(b"a 1", NAMES)
    perfect.up = False
    assert await perfect.port("b").record("a") is None
    with pytest.raises(Unreachable):
        await perfect.port("a").publish(b"a 2", NAMES)
    perfect.up = True
    assert await perfect.port("b").record("a") == b"a 1"


async def test_the_same_seed_gives_the_same_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def answers(seed: int) -> list[object]:
        lossy = directory(LIKE_KADEMLIA, seed)
        for i in range(8):
            try:
                await lossy.port(f"p{i}").publish(b"p%d 1" % i, NAMES)
            except Unreachable:
                continue
        return [await lossy.port("asker").providers("text") for _ in range(10)]

    assert await answers(5) == await answers(5)
    assert await answers(5) != await answers(6)
