"""Sleepers that the clock of a world wakes, and that Trio wakes where there is no world."""

from math import inf
from threading import Thread

import pytest
import trio
import trio.testing
from trio import _timeouts as timeouts

from simulations import world
from simulations.alarms import Nap, sleep, sleep_until


async def _wakes() -> list[tuple[str, float]]:
    """Return who woke when, of some who sleep until times that come in another order."""
    woken: list[tuple[str, float]] = []
    begun_s = trio.current_time()

    async def one(name: str, after_s: float) -> None:
        await sleep(after_s)
        woken.append((name, trio.current_time() - begun_s))

    async def trios(name: str, after_s: float) -> None:
        await trio.sleep(after_s)
        woken.append((name, trio.current_time() - begun_s))

    async with trio.open_nursery() as nursery:
        for name, after_s in (("late", 3.0), ("soon", 1.0), ("never", inf), ("now", 0.0)):
            nursery.start_soon(one, name, after_s)
        nursery.start_soon(trios, "trio's", 2.0)
        with trio.move_on_after(0.5) as left:
            await sleep_until(begun_s + 2.5)
        assert left.cancelled_caught
        await trio.sleep(4.0)
        nursery.cancel_scope.cancel()
    return woken


_EXPECTED = [("now", 0.0), ("soon", 1.0), ("trio's", 2.0), ("late", 3.0)]


def test_everybody_wakes_on_time_in_a_world() -> None:
    found: list[tuple[str, float]] = []

    async def scenario(_: world.World) -> None:
        found.extend(await _wakes())

    world.run(scenario, seed=1)
    assert found == _EXPECTED


async def test_everybody_wakes_on_time_without_a_world(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert await _wakes() == _EXPECTED


async def _nap(ends_s: list[float]) -> float:
    """Return when a nap of ten seconds ended that was told at 1 s to end at ``ends_s``."""
    begun_s, nap, woken_s = trio.current_time(), Nap(), 0.0

    async def sleeper() -> None:
        nonlocal woken_s
        await nap.until(begun_s + 10.0)
        woken_s = trio.current_time() - begun_s

    async with trio.open_nursery() as nursery:
        nap.end_by(begun_s)  # nobody sleeps yet
        nursery.start_soon(sleeper)
        await trio.sleep(1.0)
        for end_s in ends_s:
            nap.end_by(begun_s + end_s)
    nap.end_by(begun_s)  # nor does anybody any more
    return woken_s


_NAPS = pytest.mark.parametrize(
    ("ends_s", "woken_s"),
    [([], 10.0), ([12.0], 10.0), ([5.0], 5.0), ([5.0, 7.0, 3.0], 3.0), ([0.5], 1.0)],
)


@_NAPS
def test_a_nap_in_a_world_ends_at_the_earliest_time(
    ends_s: list[float], woken_s: float
) -> None:
    found: list[float] = []

    async def scenario(_: world.World) -> None:
        # Twice: what is left of the first wakes nobody.
        found.extend([await _nap(ends_s), await _nap(ends_s)])

    world.run(scenario, seed=1)
    assert found == [woken_s, woken_s]


@_NAPS
async def test_a_nap_without_a_world_ends_at_the_earliest_time(
    autojump_clock: trio.testing.MockClock, ends_s: list[float], woken_s: float
) -> None:
    assert await _nap(ends_s) == woken_s


def test_only_in_a_world_trios_sleep_is_that_of_the_world() -> None:
    before = trio.sleep_until

    async def scenario(_: world.World) -> None:
        # The second is what trio.sleep calls.
        assert trio.sleep_until is timeouts.sleep_until is sleep_until
        with pytest.raises(ValueError, match="non-negative"):
            await trio.sleep(-1.0)
        raise OSError("on purpose")

    with pytest.raises(OSError, match="on purpose"):
        world.run(scenario, seed=1)
    assert trio.sleep_until is before is timeouts.sleep_until


def test_another_thread_sleeps_by_its_own_clock_meanwhile() -> None:
    took_s: list[float] = []

    async def elsewhere() -> None:
        begun_s = trio.current_time()
        await trio.sleep(0.02)
        took_s.append(trio.current_time() - begun_s)

    async def scenario(_: world.World) -> None:
        with world.standing_still():
            thread = Thread(target=trio.run, args=(elsewhere,))
            thread.start()
            thread.join()

    world.run(scenario, seed=1)
    assert took_s[0] >= 0.02
