"""What happened over time, as curves: one for a seed, a median with its band for many."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from simulations.outcome import Outcome, Window, quantile

#: From so many seeds on a band leaves out the five of a hundred at either side.
MANY_SEEDS: Final = 20
#: Points of a curve stand for so many ended jobs at least, if joining windows can do it.
_JOBS_MIN: Final = 4
_JOINED_MAX: Final = 6

#: A window's value; None where there is nothing to tell.
Measure = Callable[[Window], float | None]


@dataclass(frozen=True, slots=True)
class Point:
    """A curve at a time: the median of the seeds, and between what they lie.

    Attributes:
        from_s: Where its time begins, from the start of the load, seconds.
        until_s: Where it ends.
        mid: The median; None if no seed has a value.
        low: Lower end of the band.
        high: Upper end.
    """

    from_s: float
    until_s: float
    mid: float | None
    low: float = 0.0
    high: float = 0.0

    @property
    def at_s(self) -> float:
        """Where it is drawn: in the middle of its time."""
        return (self.from_s + self.until_s) / 2


def curve(rows: Sequence[Sequence[Window]], measure: Measure) -> list[Point]:
    """Return what ``measure`` says of the windows of all seeds, over time."""
    points: list[Point] = []
    for column in zip_longest(*rows):
        there = [window for window in column if window is not None]
        found = [value for one in there if (value := measure(one)) is not None]
        from_s = points[-1].until_s if points else 0.0
        points.append(Point(from_s, there[0].at_s, *_middle(found, seeds=len(rows))))
    return points


def _middle(values: Sequence[float], *, seeds: int) -> tuple[float | None, float, float]:
    """Return the median, and the lower and upper end of the band."""
    if not values:
        return None, 0.0, 0.0
    edge = 0.05 if seeds >= MANY_SEEDS else 0.0
    return quantile(values, 0.5), quantile(values, edge), quantile(values, 1 - edge)


def rows_of(outcomes: Sequence[Outcome]) -> list[list[Window]]:
    """Return the windows of each seed, as many joined as it takes to see something."""
    rows = [outcome.windows for outcome in outcomes if outcome.windows]
    if not rows:
        return []
    jobs = sum(window.ended for row in rows for window in row) / sum(map(len, rows))
    size = min(_JOINED_MAX, max(1, round(_JOBS_MIN / jobs))) if jobs else 1
    return [list(_joined(row, size)) for row in rows]


def _joined(row: Sequence[Window], size: int) -> Iterator[Window]:
    for i in range(0, len(row), size):
        part = row[i : i + size]
        completed = sum(one.completed for one in part)
        yield Window(
            at_s=part[-1].at_s,
            ended=sum(one.ended for one in part),
            completed=completed,
            wrong=sum(one.wrong for one in part),
            took_s=sum(one.took_s * one.completed for one in part) / max(1, completed),
            cost_mc=sum(one.cost_mc * one.completed for one in part) / max(1, completed),
            up=part[-1].up,
            busiest=_mean([one.busiest for one in part if one.busiest]),
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# --- what is told ------------------------------------------------------------------------


def completed_share(window: Window) -> float | None:
    """Return the share of the ended jobs that completed."""
    return window.completed / window.ended if window.ended else None


def took_s(window: Window) -> float | None:
    """Return what the completed jobs took, on average."""
    return window.took_s if window.completed else None


def cost_mc(window: Window) -> float | None:
    """Return what the completed jobs cost, on average."""
    return window.cost_mc if window.completed else None


def wrong_share(window: Window) -> float | None:
    """Return the share of the completed jobs whose outputs are not the right ones."""
    return window.wrong / window.completed if window.completed else None


def busiest(window: Window) -> float | None:
    """Return the share of the running calls that the busiest tenth of the agents has."""
    return window.busiest or None


def up(window: Window) -> float | None:
    """Return how many nodes ran."""
    return float(window.up)
