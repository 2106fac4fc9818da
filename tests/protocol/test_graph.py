"""A graph that can't run is refused with the name of what is wrong."""

from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import Malformed, RemoteProtocolError
from protocol.graph import (
    Check,
    Likeness,
    Panel,
    Source,
    SubTask,
    TaskGraph,
    check_graph,
    decode_graph,
    edges,
    encode_graph,
    longest,
    order,
)
from tests.protocol.samples import examples, graph, mutated, subtask


def test_a_graph_comes_back() -> None:
    assert decode_graph(encode_graph(graph())) == graph()


@examples(300)
@given(st.binary(max_size=300) | mutated(encode_graph(graph())))
def test_any_bytes_are_a_graph_or_blame_the_peer(payload: bytes) -> None:
    try:
        read = decode_graph(payload)
    except RemoteProtocolError:
        return
    check_graph(read)


def test_what_came_later_is_left_out_where_it_says_nothing() -> None:
    fields: Any = codec.decode(encode_graph(one(checks=[Check(kind="quoted")])))
    (task,) = fields["subtasks"]
    assert task["checks"] == [{"kind": "quoted", "output": "", "input": ""}]
    assert not {"like", "instead"} & task.keys()
    said = one(checks=[Check(kind="expected", value=b"1", like=NEAR)], like=MEANING)
    assert decode_graph(encode_graph(said)) == said


def test_unknown_fields_are_passed_over() -> None:
    fields = codec.decode(encode_graph(graph()))
    assert isinstance(fields, dict)
    assert decode_graph(codec.encode(fields | {"zz": 1})) == graph()


@st.composite
def drawings(draw: st.DrawFn) -> dict[str, set[str]]:
    """Any directed graph over a few sub-tasks, self-loops and cycles among them."""
    names = [f"t{n}" for n in range(draw(st.integers(1, 7)))]
    return {name: draw(st.sets(st.sampled_from(names), max_size=4)) for name in names}


@examples(300)
@given(drawings())
def test_order_and_longest_path_are_those_of_another_library(
    before: dict[str, set[str]],
) -> None:
    made = graph(*[subtask(name, *sorted(names)) for name, names in before.items()])
    oracle: Any = nx.DiGraph([(p, n) for n, ps in before.items() for p in ps])
    oracle.add_nodes_from(before)
    assert edges(made) == before
    if not nx.is_directed_acyclic_graph(oracle):
        with pytest.raises(Malformed, match="cycle"):
            check_graph(made)
        return
    check_graph(made)
    place = {name: n for n, name in enumerate(order(made))}
    assert all(place[p] < place[n] for n, ps in before.items() for p in ps)
    assert longest(made) == nx.dag_longest_path_length(oracle) + 1


def test_order_does_not_depend_on_how_the_graph_was_written_down() -> None:
    tasks = [subtask("c", "a", "b"), subtask("b"), subtask("a"), subtask("d", "c")]
    assert order(graph(*tasks)) == order(graph(*reversed(tasks))) == ["a", "b", "c", "d"]


def one(**fields: Any) -> TaskGraph:
    """A graph of one sub-task with other ``fields``."""
    return graph(subtask("a", **fields))


def source(**fields: Any) -> TaskGraph:
    """A graph of one sub-task with one input."""
    return one(inputs={"x": Source(**fields)})


NEAR = Likeness("numeric", relative_ppm=10)
MEANING = Likeness("embedding")

WRONG: dict[str, tuple[TaskGraph, str]] = {
    "version": (graph(v=2), "version 2"),
    "no sub-task": (TaskGraph(name="", subtasks=[], outputs={}), "sub-tasks, not 0"),
    "no output": (graph(outputs={}), "no outputs"),
    "id": (graph(subtask("A b")), "'A b' is no sub-task id"),
    "two of one id": (graph(subtask("a"), subtask("a")), "two sub-tasks are called 'a'"),
    "cycle": (graph(subtask("a", "b"), subtask("b", "a")), "a -> b -> a|b -> a -> b"),
    "itself": (graph(subtask("a", "a")), "a -> a"),
    "dangling edge": (graph(subtask("a", "ghost")), "'ghost', which does not exist"),
    "dangling output": (
        graph(outputs={"x": Source(kind="task", name="ghost")}),
        "output 'x' draws from sub-task 'ghost'",
    ),
    "capability": (one(capability="No Name"), "sub-task 'a': 'No Name'"),
    "input field": (one(inputs={"a b": Source(kind="input", name="x")}), "'a b' can't name"),
    "job input": (source(kind="input", name="a/b"), "can't name a job input"),
    "constant": (source(kind="value"), "a constant without a value"),
    "pointer": (source(kind="input", name="x", pointer="a"), "is no JSON Pointer"),
    "pointer's escape": (source(kind="input", name="x", pointer="/a~2"), "is no JSON Pointer"),
    "check's pointer": (one(checks=[Check(kind="quoted", output="x")]), "check quoted"),
    "check without a value": (
        one(checks=[Check(kind="expected")]),
        "no value that is expected",
    ),
    "check's needless value": (
        one(checks=[Check(kind="recompute", value=b"1")]),
        "check recompute has no use for a value",
    ),
    "nearly quoted": (one(checks=[Check(kind="quoted", like=NEAR)]), "verbatim"),
    "checked by meaning": (
        one(checks=[Check(kind="recompute", like=MEANING)]),
        "shows nothing",
    ),
    "likeness": (one(like=Likeness("numeric", -1)), "relative_ppm is 0 to 1000000, not -1"),
    "each": (one(each=["ghost"]), "maps over 'ghost'"),
    "each twice": (one(each=["text", "text"]), "twice"),
    "attempts": (one(attempts_max=0), "attempts_max is 1 to 10, not 0"),
    "timeout": (one(timeout_ms=-1), "timeout_ms"),
    "instead": (one(instead=["x@1", "No Name"]), "sub-task 'a': 'No Name'"),
    "batch": (one(batch_items_max=-1), "batch_items_max"),
    "panel": (one(panel=Panel(capability="No Name")), "sub-task 'a', panel: 'No Name'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_graph_that_cannot_run_is_refused_by_name(what: str) -> None:
    made, message = WRONG[what]
    with pytest.raises(Malformed, match=message):
        decode_graph(encode_graph(made))


def chain(length: int) -> TaskGraph:
    """``length`` sub-tasks in a row."""
    return graph(*[subtask(f"t{n}", *([f"t{n - 1}"] if n else [])) for n in range(length)])


def fields(count: int) -> dict[str, Source]:
    """So many inputs."""
    return {f"f{n}": Source(kind="input", name="x") for n in range(count)}


LIMITED: dict[str, tuple[Any, int]] = {
    "sub-tasks": (lambda n: graph(*[subtask(f"t{i}") for i in range(n)]), limits.SUBTASKS_MAX),
    "depth": (chain, limits.GRAPH_DEPTH_MAX),
    "inputs": (lambda n: one(inputs=fields(n)), limits.INPUTS_MAX),
    "pointer": (lambda n: source(kind="input", name="x", pointer="/" + "a" * (n - 1)), 256),
    "id": (lambda n: graph(subtask("a" * n)), 40),
    "checks": (lambda n: one(checks=[Check(kind="recompute")] * n), limits.CHECKS_MAX),
    "relative": (lambda n: one(like=Likeness("numeric", n)), 1_000_000),
    "absolute": (lambda n: one(like=Likeness("numeric", 0, n)), 2**53 - 1),
    "alike": (lambda n: one(like=Likeness("embedding", alike_pct=n)), 100),
    "attempts": (lambda n: one(attempts_max=n), 10),
    "instead": (lambda n: one(instead=["x@1"] * n), limits.INSTEAD_MAX),
    "question": (lambda n: one(panel=Panel(question="é" * n)), limits.QUESTION_SIZE_MAX),
}


@pytest.mark.parametrize("what", LIMITED)
def test_the_limit_passes_and_one_more_is_refused(what: str) -> None:
    make, limit = LIMITED[what]
    decode_graph(encode_graph(make(limit)))
    with pytest.raises(Malformed):
        decode_graph(encode_graph(make(limit + 1)))


@pytest.mark.parametrize("pointer", ["", "/", "/a/0", "/~0~1", "/é", "/a b", "//"])
def test_json_pointers_as_in_rfc_6901(pointer: str) -> None:
    check_graph(source(kind="input", name="x", pointer=pointer))


def test_a_graph_of_the_largest_size_is_checked_quickly_enough_to_need_no_clock() -> None:
    # Everything draws from everything before: 32 inputs each, 199 edges deep in places.
    tasks: list[SubTask] = []
    for n in range(limits.SUBTASKS_MAX):
        layer = n // 4
        before = [f"t{i}" for i in range(max(0, 4 * (layer - 8)), 4 * layer)]
        tasks.append(subtask(f"t{n}", *before))
    check_graph(graph(*tasks))
