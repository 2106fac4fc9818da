"""A node's wall clock: ahead, drifting, and set while the node runs."""

import pytest
import trio
from trio.testing import MockClock

from simulations.clock import EPOCH_MS, SimClock


async def shown_ms(clock: SimClock, *times_s: float) -> list[int]:
    """Return what ``clock`` shows at each time, as from a right clock's start."""
    shown = []
    begun_s = trio.current_time()
    for time_s in times_s:
        await trio.sleep_until(begun_s + time_s)
        shown.append(clock.now_ms() - EPOCH_MS - round(begun_s * 1000))
    return shown


async def test_a_clock_that_is_right_shows_trios_time(autojump_clock: MockClock) -> None:
    assert await shown_ms(SimClock(), 1.0, 60.5) == [1_000, 60_500]


async def test_a_clock_may_be_ahead_or_behind_and_drift(autojump_clock: MockClock) -> None:
    assert await shown_ms(SimClock(skew_ms=-120_000), 1.0) == [-119_000]
    fast = SimClock(skew_ms=120_000, drift_ppm=100)
    begun_s = trio.current_time()
    (late_ms,) = await shown_ms(fast, 10_000.0)
    assert late_ms == pytest.approx(120_000 + 10_000_000 + 1000 + begun_s * 0.1, abs=1)


async def test_a_clock_that_is_set_jumps_at_that_time_and_not_before(
    autojump_clock: MockClock,
) -> None:
    clock = SimClock(skew_ms=5, jumps=((10.0, -3_600_000), (20.0, 7_200_000)))
    assert await shown_ms(clock, 9.999, 10.0, 19.0, 20.0) == [
        10_004,
        10_005 - 3_600_000,
        19_005 - 3_600_000,
        20_005 + 3_600_000,
    ]


def test_a_clock_prints_as_what_makes_it_again() -> None:
    clock = SimClock(skew_ms=-7, drift_ppm=3, jumps=((1.5, -20), (3.0, 4)))
    assert eval(repr(clock)) == clock  # noqa: S307 - our own text
