"""What every directory promises, simulated or real: little, but that it keeps.

A directory is a lossy hint store, so a claim about what *is* found allows several
rounds of publishing and asking, and a claim about what is *never* found allows none.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from meshnode.errors import Unreachable
from tests.contracts.implementations import (
    DIRECTORIES,
    LIMIT_S,
    Directories,
    Participant,
    implementation,
)

NAME = "text.summarization@1"
ROUNDS_MAX = 8


@pytest.fixture(params=DIRECTORIES)
def directories(request: pytest.FixtureRequest) -> Directories:
    """The way to get participants of the implementation under test."""
    made: Directories = implementation(request.param).directories
    return made


async def publish(who: Participant, sequence: int, *names: str) -> None:
    """Publish, and again if no directory peer took it."""
    for _ in range(ROUNDS_MAX - 1):
        try:
            await who.directory.publish(who.signed_record(sequence), names)
        except Unreachable:
            await trio.lowlevel.checkpoint()
        else:
            return
    await who.directory.publish(who.signed_record(sequence), names)


async def eventually(claim: Callable[[], Awaitable[bool]]) -> bool:
    """Tell whether ``claim`` holds within some rounds of asking."""
    for _ in range(ROUNDS_MAX):
        if await claim():
            return True
        await trio.lowlevel.checkpoint()
    return False


async def test_a_published_record_is_found_by_another(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(4) as (one, *others):
            await publish(one, 1, NAME)
            for other in others:

                async def found(other: Participant = other) -> bool:
                    return await other.directory.record(one.peer) == one.signed_record(1)

                assert await eventually(found)


async def test_who_published_is_listed_under_each_name(directories: Directories) -> None:
    names = ("text.summarization@1", "text.summarization", "text")
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            await publish(one, 1, *names)
            for name in names:

                async def listed(name: str = name) -> bool:
                    return one.peer in await asker.directory.providers(name)

                assert await eventually(listed)


async def test_all_of_several_providers_are_found(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(6) as (asker, *providers):
            async with trio.open_nursery() as nursery:
                for provider in providers:
                    nursery.start_soon(publish, provider, 1, NAME)
            expected = {provider.peer for provider in providers}
            seen: set[str] = set()

            async def all_seen() -> bool:
                seen.update(await asker.directory.providers(NAME))
                if seen >= expected:
                    return True
                for provider in providers:  # as every node does every few minutes
                    if provider.peer not in seen:
                        await publish(provider, 1, NAME)
                return False

            assert await eventually(all_seen)
            assert seen == expected, "nobody else was listed"


async def test_nobody_is_found_under_a_name_that_nobody_published(
    directories: Directories,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            await publish(one, 1, NAME)
            assert list(await asker.directory.providers("music.composition@1")) == []


async def test_a_peer_that_published_nothing_has_no_record(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, silent, asker):
            await publish(one, 1, NAME)
            assert await asker.directory.record(silent.peer) is None


async def test_no_more_providers_come_than_were_asked_for(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(5) as (asker, *providers):
            for provider in providers:
                await publish(provider, 1, NAME)
            for count_max in (1, 2, 3):
                found = await asker.directory.providers(NAME, count_max=count_max)
                assert len(found) <= count_max
                assert len(set(found)) == len(found)


async def test_the_higher_sequence_wins(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            await publish(one, 1, NAME)
            await publish(one, 2, NAME)

            async def newest() -> bool:
                return await asker.directory.record(one.peer) == one.signed_record(2)

            assert await eventually(newest)


async def test_an_older_record_never_comes_back(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            await publish(one, 5, NAME)

            async def newest() -> bool:
                return await asker.directory.record(one.peer) == one.signed_record(5)

            assert await eventually(newest)
            for _ in range(3):
                with suppress(Unreachable):  # saying so is allowed
                    await one.directory.publish(one.signed_record(4), [NAME])
                assert await asker.directory.record(one.peer) in (None, one.signed_record(5))


async def test_what_is_not_a_record_is_never_served(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            for rubbish in (b"", b"rubbish", one.signed_record(1)[:-1]):
                with pytest.raises(Unreachable):
                    await one.directory.publish(rubbish, [NAME])
                assert await asker.directory.record(one.peer) is None


async def test_nobody_publishes_in_anothers_name(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, thief, asker):
            await publish(one, 1, NAME)
            with pytest.raises(Unreachable):
                await thief.directory.publish(one.signed_record(2), [NAME])
            assert await asker.directory.record(thief.peer) is None
            assert await asker.directory.record(one.peer) in (None, one.signed_record(1))


async def test_cancelled_lookups_leave_the_directory_usable(directories: Directories) -> None:
    with trio.fail_after(LIMIT_S):
        async with directories(3) as (one, _, asker):
            await publish(one, 1, NAME)
            for steps in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(asker.directory.record, one.peer)
                    nursery.start_soon(asker.directory.providers, NAME)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()

            async def found() -> bool:
                return await asker.directory.record(one.peer) == one.signed_record(1)

            assert await eventually(found)
