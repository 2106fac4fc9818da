"""Figures over seeds: a mean, and the interval in which it lies with 95 %."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from typing_extensions import override

from simulations.trust.market import Course

#: Two-sided 95 % quantile of Student's t, by degrees of freedom from 1 on.
_T95: Final = (
    *(12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23),
    *(2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09, 2.09),
)
_NORMAL: Final = 1.96

Measure = Callable[[Course], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: Of the seeds.
        half: The mean lies within so much with 95 %; 0 for one seed.
        n: Seeds.
    """

    mean: float
    half: float
    n: int

    @override
    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.half:.2g}"


def spread(values: Sequence[float]) -> Spread:
    """Return mean and interval of ``values``, of which there is one at least."""
    n = len(values)
    if n == 1:
        return Spread(values[0], 0.0, 1)
    quantile = _T95[n - 2] if n - 2 < len(_T95) else _NORMAL
    return Spread(fmean(values), quantile * stdev(values) / n**0.5, n)


def over(courses: Sequence[Course], measure: Measure) -> Spread:
    """Return the spread of ``measure`` over the seeds."""
    return spread([measure(course) for course in courses])


# --- measures, in per cent where they are shares -------------------------------------------


def wrong_pct(course: Course) -> float:
    """Of what was accepted."""
    return 100 * course.tally.error


def correct_pct(course: Course) -> float:
    """Of what was accepted."""
    return 100 - wrong_pct(course)


def open_pct(course: Course) -> float:
    """Of the tasks, what was not accepted."""
    return 100 * course.tally.open_share


def executions(course: Course) -> float:
    """For each task, gold with them."""
    return course.tally.executions_per_task


def paid(course: Course) -> float:
    """For each task, in prices of an honest agent."""
    return course.tally.paid_per_task


def worst_pct(course: Course) -> float:
    """Wrong in the worst window."""
    return 100 * course.worst


def begin_open_pct(course: Course) -> float:
    """Not accepted in the first rounds of the market."""
    return 100 * course.begin.open_share
