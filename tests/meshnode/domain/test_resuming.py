"""What is left of a job gives what the whole of it would have given."""

from random import Random

import msgspec
from hypothesis import given, note
from hypothesis import strategies as st

from meshnode.domain.facts import Cancelled
from meshnode.domain.graphs import check_inputs, check_shape
from meshnode.domain.plan_parts import Again
from meshnode.domain.resuming import begun, joined, remainder
from meshnode.domain.units import SINGLE
from meshnode.ports import JsonValue
from protocol.graph import Source, TaskGraph, edges, order
from tests.meshnode.domain.random_graphs import evaluate, random_graph, random_inputs
from tests.meshnode.domain.test_fold import EXPANDED, PLANNED, state_after


def outputs_of(
    graph: TaskGraph, inputs: dict[str, JsonValue]
) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """The outputs of the job, and of each sub-task."""
    every = {
        **graph.outputs,
        **{f"of {task.id}": Source(kind="task", name=task.id) for task in graph.subtasks},
    }
    made = evaluate(TaskGraph(name="", subtasks=graph.subtasks, outputs=every), inputs)
    return (
        {name: made[name] for name in graph.outputs},
        {task.id: made[f"of {task.id}"] for task in graph.subtasks},
    )


@given(st.integers(0, 2**32), st.data())
def test_whatever_is_finished_the_rest_comes_to_the_same(
    seed: int, data: st.DataObject
) -> None:
    note(f"seed {seed}")
    rng = Random(seed)
    graph, inputs = random_graph(rng), random_inputs(rng)
    whole, each = outputs_of(graph, inputs)
    finished: set[str] = set()
    for name in order(graph):  # producers are finished before consumers
        if edges(graph)[name] <= finished and data.draw(st.booleans(), label=name):
            finished.add(name)
    rest, given_ = remainder(graph, inputs, {name: each[name] for name in finished})
    assert {task.id for task in rest.subtasks} == {
        task.id for task in graph.subtasks if task.id not in finished
    }
    if rest.subtasks:
        check_shape(rest)
    check_inputs(rest, given_)
    assert evaluate(rest, given_) == whole


def test_units_are_put_together_in_their_order() -> None:
    assert joined([({"a": [1]}, SINGLE)]) == {"a": [1]}
    assert joined([([1, 2], 2), ([3], 1)]) == [1, 2, 3]
    assert joined([]) == []
    assert joined([([4], 1)]) == [4]


def test_what_was_to_be_done_again_and_was_not_come_to_stays_begun() -> None:
    before = {name: Again(job="first", sizes=[2, 1]) for name in ("a", "b")}
    planned = msgspec.structs.replace(PLANNED, again=before)
    state = state_after(planned, Cancelled(reason="owner"))
    assert begun(state, {}) == before
    assert begun(state, {"a": None}) == {"b": before["b"]}
    state = state_after(planned, EXPANDED, Cancelled(reason="owner"))
    assert begun(state, {}) == {**before, "a": Again(job="first", sizes=[SINGLE])}
