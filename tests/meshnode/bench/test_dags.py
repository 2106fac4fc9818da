"""Graphs for schedulers are drawn from a seed alone, and their bound is their longest path."""

from itertools import pairwise
from random import Random

import pytest

from meshnode.bench.dags import LONG_MS, PARENTS_MAX, SHAPES, SHORT_MS, draw, longest_path, nth


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_drawn_is_a_graph_whose_numbers_follow_its_edges(shape: str) -> None:
    for seed in range(50):
        dag = draw(shape, Random(seed))
        assert dag == draw(shape, Random(seed))
        for task, above in enumerate(dag.parents):
            assert all(parent < task for parent in above)
            assert list(above) == sorted(set(above))
            assert len(above) <= PARENTS_MAX or shape == "map-reduce"
        below = dag.children
        edges = [(parent, task) for task, above in enumerate(dag.parents) for parent in above]
        assert edges == sorted(
            ((parent, task) for parent, found in enumerate(below) for task in found),
            key=lambda edge: (edge[1], edge[0]),
        )


def test_the_longest_path_is_as_short_as_a_schedule_can_be() -> None:
    dag = draw("layers", Random(3))
    costs = [float(Random(f"{task}").randint(1, 9)) for task in range(len(dag.parents))]
    paths: list[float] = []

    def walk(task: int, so_far: float) -> None:
        so_far += costs[task]
        for child in dag.children[task]:
            walk(child, so_far)
        paths.append(so_far)

    for task, above in enumerate(dag.parents):
        if not above:
            walk(task, 0.0)
    assert longest_path(dag, costs) == max(paths)


def test_shapes_take_turns_and_tasks_are_long_enough() -> None:
    works = [nth(7, number, even=number >= 4) for number in range(8)]
    assert [work.dag.shape for work in works] == [*SHAPES, *SHAPES]
    assert all(
        set(work.costs_ms) <= set(range(SHORT_MS, LONG_MS + 1)) and len(set(work.costs_ms)) > 1
        for work in works[:4]
    )
    assert all(set(work.costs_ms) == {SHORT_MS} for work in works[4:])
    assert works[4].bound_ms == SHORT_MS * len(works[4].costs_ms), "a chain has one path"
    others = [nth(8, number, even=False) for number in range(4)]
    assert all(a.costs_ms != b.costs_ms for a, b in pairwise((*works[:4], *others)))
