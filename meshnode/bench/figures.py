"""What every benchmark prints: figures with their goals, on a named commit and machine."""

import os
import platform
import subprocess
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

_CALLS: Final = 100_000


class Told(Protocol):
    """Is told what is being measured."""

    def __call__(self, what: str, share: float | None = None, /) -> None:
        """Hear of it.

        Args:
            what: A few words.
            share: Of all that is to be done, what is done, 0 to 1; None if nobody knows.
        """


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure.

    Attributes:
        id: As in the list of targets, such as ``P7.help``.
        value: Measured; None if it could not be.
        unit: Of value and goal.
        goal: What it should be at most, or at least; None if it is told for comparison only.
        at_least: More is better.
        n: Measurements that it is made of.
        note: How, in a few words.
    """

    id: str
    value: float | None
    unit: str
    n: int
    goal: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None if there is nothing to compare."""
        if self.value is None or self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def row(self) -> dict[str, Any]:
        """Return the figure as it is printed."""
        return {
            "id": self.id,
            "value": None if self.value is None else round(self.value, 4),
            "unit": self.unit,
            "goal": self.goal,
            "holds": self.holds,
            "n": self.n,
            "note": self.note,
        }


def report(name: str, figures: Sequence[Figure]) -> dict[str, Any]:
    """Return what ``meshnode bench NAME --json`` prints."""
    return {
        "name": name,
        "commit": commit(),
        "machine": machine(),
        "figures": [figure.row() for figure in figures],
    }


def commit() -> str:
    """Return the checkout's commit, or ``unknown`` outside of one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607 - the user's own git
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Return cores, architecture, system, Python and how fast that is now, on one line.

    What is bound by memory may still be slower than another day by a half.
    """
    cores = os.cpu_count() or 0
    python = f"CPython {platform.python_version()}, {_call_ns():.0f} ns a call"
    return f"{cores} cores {platform.machine()}, {platform.system()}, {python}"


def _call_ns() -> float:
    """Return what a call of a function takes, nanoseconds: the least of some rounds."""
    rounds = timeit.repeat("f(1)", "def f(x): return x + 1", number=_CALLS, repeat=5)
    return min(rounds) / _CALLS * 1e9
