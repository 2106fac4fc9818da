"""HEFT does what its paper says, and what becomes of a plan is what tasks then cost."""

import math
from itertools import pairwise, product
from random import Random

import pytest

from meshnode.bench.heft import Problem, Slot, carried_out, heft, makespan, upward_ranks

#: The worked example: Topcuoglu, Hariri, Wu 2002, figure 2; ranks as in table 1.
PAPER = Problem(
    costs=[
        [14, 16, 9], [13, 19, 18], [11, 13, 19], [13, 8, 17], [12, 13, 10],
        [13, 16, 9], [7, 15, 11], [5, 11, 14], [18, 12, 20], [21, 7, 16],
    ],
    links={
        (0, 1): 18, (0, 2): 12, (0, 3): 9, (0, 4): 11, (0, 5): 14, (1, 7): 19, (1, 8): 16,
        (2, 6): 23, (3, 7): 27, (3, 8): 23, (4, 8): 13, (5, 7): 15, (6, 9): 17,
        (7, 9): 11, (8, 9): 13,
    },
)  # fmt: skip
RANKS = [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667]


def drawn(rng: Random, tasks: int, processors: int) -> Problem:
    costs = [[rng.uniform(1, 9) for _ in range(processors)] for _ in range(tasks)]
    edges = [(a, b) for a, b in product(range(tasks), repeat=2) if a < b]
    return Problem(costs, {edge: rng.uniform(0, 4) for edge in edges if rng.random() < 0.3})


def test_the_papers_example_has_the_papers_ranks() -> None:
    assert upward_ranks(PAPER) == pytest.approx(RANKS, abs=0.001)


def test_the_papers_example_takes_80() -> None:
    plan = heft(PAPER)
    assert makespan(plan) == 80
    assert plan[0] == Slot(2, 0, 9)
    assert plan[9] == Slot(1, 73, 80)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_keeps_to_its_graph_and_one_task_at_a_time(seed: int) -> None:
    rng = Random(seed)
    problem = drawn(rng, rng.randint(1, 15), rng.randint(1, 4))
    true = Problem(
        [[c * rng.uniform(0.5, 2) for c in row] for row in problem.costs], problem.links
    )
    plan = heft(problem)
    for costs, slots in ((problem, plan), (true, carried_out(true, plan))):
        for task, slot in enumerate(slots):
            assert slot.end == pytest.approx(slot.start + costs.costs[task][slot.processor])
        for (producer, consumer), link in problem.links.items():
            apart = slots[producer].processor != slots[consumer].processor
            assert slots[consumer].start >= slots[producer].end + (link if apart else 0) - 1e-9
        for processor in range(len(problem.costs[0])):
            there = sorted(
                (s for s in slots if s.processor == processor), key=lambda s: s.start
            )
            assert all(a.end <= b.start + 1e-9 for a, b in pairwise(there))


def test_a_plan_whose_tasks_cost_what_was_thought_comes_true() -> None:
    assert carried_out(PAPER, heft(PAPER)) == heft(PAPER)


def test_a_task_goes_where_it_can_run() -> None:
    inf = math.inf
    plan = heft(Problem([[1, inf], [inf, 5], [2, 9]], {(0, 1): 0, (1, 2): 0}))
    assert [slot.processor for slot in plan] == [0, 1, 0]
    assert makespan(plan) == 8
    with pytest.raises(ValueError, match="task 0"):
        heft(Problem([[inf]], {}))


def test_a_short_task_goes_into_a_gap() -> None:
    """Given a processor that waits for another, and a task that nothing waits for."""
    inf = math.inf
    costs = [[inf, 4], [6, inf], [3, inf]]
    plan = heft(Problem(costs, {(0, 1): 0}))
    assert plan[2] == Slot(0, 0, 3)
    assert makespan(plan) == 10
