"""What counts as news to the runner of a job, and what one of its turns has seen.

In virtual time (a MockClock's).
"""

from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
from typing_extensions import override

from meshnode.domain.facts import Done
from meshnode.services.journals import JobJournal
from meshnode.services.seen import Seen

if TYPE_CHECKING:
    from meshnode.services.context import Context

POLL_S = 1.0


class Page(JobJournal):
    """A journal with changes and nothing else."""

    def __init__(self) -> None:
        self.changes, self._changed = 0, trio.Event()
        self.ended: Done | None = None

    @property
    @override
    def done(self) -> Done | None:
        return self.ended


class Wall:
    """A context whose clock begins at the epoch, and can be set back."""

    back_ms = 0

    @property
    def clock(self) -> "Wall":
        return self

    def now_ms(self) -> int:
        return round(trio.current_time() * 1000) - self.back_ms


def opened(wall: Wall | None = None) -> tuple[Page, Seen]:
    page = Page()
    return page, Seen(page, cast("Context", wall or Wall()))


async def waited_s(seen: Seen) -> float:
    began_s = trio.current_time()
    await seen.until_news()
    return trio.current_time() - began_s


async def test_before_the_first_look_there_is_news(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, seen = opened()
    assert await waited_s(seen) == 0.0


async def test_what_a_turn_added_itself_is_no_news(
    autojump_clock: trio.testing.MockClock,
) -> None:
    page, seen = opened()
    seen.look()
    page.poke()  # as a commit does
    seen.committed(3)
    assert await waited_s(seen) == pytest.approx(POLL_S)


@pytest.mark.parametrize(("pokes", "facts"), [(2, 3), (1, 0)])
async def test_what_comes_during_a_turn_is_news(
    pokes: int, facts: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Given a turn that wrote something down, which is one change, and one that did not."""
    page, seen = opened()
    seen.look()
    for _ in range(pokes):
        page.poke()
    seen.committed(facts)
    assert await waited_s(seen) == 0.0


@pytest.mark.parametrize(
    ("at_s", "seen_too", "expected_s"), [(0.3, False, 0.3), (0.3, True, 1.3)]
)
async def test_a_change_ends_the_wait_unless_another_turn_has_seen_it(
    autojump_clock: trio.testing.MockClock, at_s: float, expected_s: float, *, seen_too: bool
) -> None:
    page, seen = opened()
    seen.look()

    async def change() -> None:
        await trio.sleep(at_s)
        if seen_too:
            seen.look()
        page.poke()
        seen.committed(1 if seen_too else 0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        assert await waited_s(seen) == pytest.approx(expected_s)


async def test_the_earliest_time_to_look_again_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, seen = opened()
    seen.look()
    now_ms = round(trio.current_time() * 1000)
    seen.wake(now_ms + 700)
    seen.wake(now_ms + 200)
    seen.wake(now_ms + 900)
    assert await waited_s(seen) == pytest.approx(0.2, abs=0.01)


async def test_a_clock_that_is_set_back_holds_nothing_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wall = Wall()
    _, seen = opened(wall)
    seen.look()
    wall.back_ms = 3_600_000
    assert await waited_s(seen) == pytest.approx(POLL_S)


async def test_nobody_waits_for_news_of_a_job_that_is_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    page, seen = opened()
    seen.look()
    page.ended = Done(state="completed")
    page.poke()
    seen.committed(1)
    assert await waited_s(seen) == 0.0
