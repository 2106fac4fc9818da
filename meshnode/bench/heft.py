"""HEFT, the list scheduler that others are measured against; pure.

Topcuoglu, Hariri, Wu: Performance-effective and low-complexity task scheduling for
heterogeneous computing, IEEE TPDS 13(3), 2002.  It knows every task beforehand: tasks are
taken by *upward rank*, the longest way from a task to the end by mean costs, and each goes
to the processor that would finish it first, into a gap between others if it fits there.

Times and costs are in any unit, the same for all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

#: Ranks that differ by less are equal, and the task of the lower number comes first.
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Problem:
    """Tasks, and what they cost on each processor.

    Attributes:
        costs: By task, then by processor; infinite where it can't run.
        links: (producer, consumer) -> what it takes to hand over between two processors.
    """

    costs: Sequence[Sequence[float]]
    links: Mapping[tuple[int, int], float]

    @property
    def parents(self) -> list[list[int]]:
        """For each task those that it draws from."""
        found: list[list[int]] = [[] for _ in self.costs]
        for producer, consumer in sorted(self.links):
            found[consumer].append(producer)
        return found

    @property
    def children(self) -> list[list[int]]:
        """For each task those that draw from it."""
        found: list[list[int]] = [[] for _ in self.costs]
        for producer, consumer in sorted(self.links):
            found[producer].append(consumer)
        return found


@dataclass(frozen=True, slots=True)
class Slot:
    """Where and when a task runs."""

    processor: int
    start: float
    end: float


@dataclass(slots=True)
class _Agenda:
    """What runs on one processor, in order."""

    slots: list[Slot] = field(default_factory=list)

    def earliest(self, ready: float, cost: float) -> float:
        """Return when something that is ready then could begin, in a gap or at the end."""
        start = ready
        for slot in self.slots:
            if start + cost <= slot.start:
                return start
            start = max(start, slot.end)
        return start

    def add(self, slot: Slot) -> None:
        """Put ``slot`` in its place."""
        self.slots.append(slot)
        self.slots.sort(key=lambda one: one.start)


def upward_ranks(problem: Problem) -> list[float]:
    """Return each task's mean cost and the longest way from it to the end, together.

    Raises:
        ValueError: A task can't run anywhere.
    """
    ranks = [math.nan] * len(problem.costs)
    children = problem.children

    def rank(task: int) -> float:
        if math.isnan(ranks[task]):
            possible = [cost for cost in problem.costs[task] if math.isfinite(cost)]
            if not possible:
                raise ValueError(f"task {task} can't run anywhere")
            after = [problem.links[task, child] + rank(child) for child in children[task]]
            ranks[task] = sum(possible) / len(possible) + max(after, default=0.0)
        return ranks[task]

    return [rank(task) for task in range(len(problem.costs))]


def heft(problem: Problem) -> list[Slot]:
    """Return HEFT's schedule: a slot for each task.

    Args:
        problem: Whatever costs something must cost more than nothing: then no task comes
            before one that it draws from.

    Raises:
        ValueError: A task can't run anywhere.
    """
    ranks, parents = upward_ranks(problem), problem.parents
    order = sorted(range(len(ranks)), key=lambda task: (-round(ranks[task], _DIGITS), task))
    agendas = [_Agenda() for _ in problem.costs[0]]
    slots: dict[int, Slot] = {}
    for task in order:
        best: Slot | None = None
        for processor, agenda in enumerate(agendas):
            cost = problem.costs[task][processor]
            if not math.isfinite(cost):
                continue
            ready = _ready(task, processor, problem, parents[task], slots)
            start = agenda.earliest(ready, cost)
            if best is None or start + cost < best.end:
                best = Slot(processor, start, start + cost)
        assert best is not None, "its rank says that it can run"
        agendas[best.processor].add(best)
        slots[task] = best
    return [slots[task] for task in range(len(ranks))]


def carried_out(problem: Problem, plan: Sequence[Slot]) -> list[Slot]:
    """Return what becomes of ``plan`` when tasks cost what ``problem`` says.

    Every task stays on its processor and in its place among those there; it begins as soon
    as what it draws from is there and the one before it is done.
    """
    parents = problem.parents
    slots: dict[int, Slot] = {}
    free = [0.0] * len(problem.costs[0])
    for task in sorted(range(len(plan)), key=lambda one: (plan[one].start, plan[one].end)):
        processor = plan[task].processor
        ready = _ready(task, processor, problem, parents[task], slots)
        start = max(ready, free[processor])
        free[processor] = start + problem.costs[task][processor]
        slots[task] = Slot(processor, start, free[processor])
    return [slots[task] for task in range(len(plan))]


def makespan(slots: Sequence[Slot]) -> float:
    """Return when the last task ends."""
    return max(slot.end for slot in slots)


def _ready(
    task: int,
    processor: int,
    problem: Problem,
    parents: Sequence[int],
    slots: Mapping[int, Slot],
) -> float:
    """Return when all that ``task`` draws from is at ``processor``."""
    there = [
        slots[parent].end
        + (0.0 if slots[parent].processor == processor else problem.links[parent, task])
        for parent in parents
    ]
    return max(there, default=0.0)
