"""Graphs against the providers' schemas: what can't work is told before it costs anything."""

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.graphs import (
    check_capability,
    check_inputs,
    check_shape,
    check_types,
)
from meshnode.domain.values import canonical
from meshnode.errors import GraphError, InputInvalid
from meshnode.ports import JsonValue
from protocol.errors import Malformed
from protocol.graph import Source, SubTask, TaskGraph, longest, order
from protocol.limits import INLINE_SIZE_MAX
from protocol.records import CallLimits, Capability, Measured


def capability(given: JsonValue, made: JsonValue, name: str = "work.a@1") -> Capability:
    return Capability(
        agent="agent",
        name=name,
        description="",
        examples=[],
        input_schema=canonical(given),
        output_schema=canonical(made),
        price_mc=0,
        limits=CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
        measured=Measured(),
    )


def graph_of(*tasks: SubTask) -> TaskGraph:
    return TaskGraph(
        name="g", subtasks=list(tasks), outputs={"o": Source(kind="task", name=tasks[0].id)}
    )


def task(name: str, *, each: list[str] | None = None, **inputs: Source) -> SubTask:
    return SubTask(id=name, capability="work.a", inputs=dict(inputs), each=each or [])


def edge(name: str, pointer: str = "") -> Source:
    return Source(kind="task", name=name, pointer=pointer)


def constant(value: JsonValue) -> Source:
    return Source(kind="value", value=canonical(value))


TEXT_IN: JsonValue = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
WORDS_OUT: JsonValue = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}}},
    "required": ["words"],
    "additionalProperties": False,
}
TOOL = capability(TEXT_IN, WORDS_OUT)
DOCS = Source(kind="input", name="docs", pointer="/list")
INPUTS: dict[str, JsonValue] = {"docs": {"list": ["one", "two"], "n": 3}}

GOOD = {
    "a constant that fits": graph_of(task("a", text=constant("x"))),
    "a map over a job input": graph_of(task("a", each=["text"], text=DOCS)),
    "an item of a list": graph_of(
        task("a", text=constant("x")), task("b", text=edge("a", "/words/0"))
    ),
    "a map over a list that another made": graph_of(
        task("a", text=constant("x")), task("b", each=["text"], text=edge("a", "/words"))
    ),
    "a map over a map": graph_of(
        task("a", each=["text"], text=DOCS),
        task("b", each=["text"], text=edge("a", "/words/0")),
    ),
}

BAD = {
    "a constant of another type": (graph_of(task("a", text=constant(3))), "input 'text'"),
    "a job input of another type": (
        graph_of(task("a", text=Source(kind="input", name="docs", pointer="/n"))),
        "input 'text'",
    ),
    "an input that is missing": (graph_of(task("a")), "'text' is required"),
    "an input that isn't taken": (
        graph_of(task("a", text=constant("x"), more=constant(1))),
        "no input 'more'; it takes: text",
    ),
    "an item of another type": (
        graph_of(task("a", each=["text"], text=constant(["x", 3]))),
        "input 'text'",
    ),
    "a list where a text is wanted": (
        graph_of(task("a", text=constant("x")), task("b", text=edge("a", "/words"))),
        "array does not fit string",
    ),
    "a place that no output has": (
        graph_of(task("a", text=constant("x")), task("b", text=edge("a", "/lines"))),
        "gives no /lines",
    ),
    "a map over what is no list": (
        graph_of(
            task("a", text=constant("x")), task("b", each=["text"], text=edge("a", "/words/0"))
        ),
        "string does not fit array",
    ),
    "all outputs of a map where one is wanted": (
        graph_of(task("a", each=["text"], text=DOCS), task("b", text=edge("a", "/words/0"))),
        "array does not fit string",
    ),
    "a map over a map of lists": (
        graph_of(
            task("a", each=["text"], text=DOCS),
            task("b", each=["text"], text=edge("a", "/words")),
        ),
        "array does not fit string",
    ),
}


def everybody(graph: TaskGraph, *some: Capability) -> dict[str, list[Capability]]:
    return {task.id: list(some) for task in graph.subtasks}


@pytest.mark.parametrize("graph", GOOD.values(), ids=GOOD.keys())
def test_a_graph_that_can_work_passes(graph: TaskGraph) -> None:
    check_shape(graph)
    check_types(graph, everybody(graph, TOOL), INPUTS)


@pytest.mark.parametrize(("graph", "says"), BAD.values(), ids=BAD.keys())
def test_a_graph_that_cannot_work_names_sub_task_and_input(graph: TaskGraph, says: str) -> None:
    check_shape(graph)
    with pytest.raises(GraphError, match=says) as caught:
        check_types(graph, everybody(graph, TOOL), INPUTS)
    assert "sub-task" in str(caught.value)


def test_what_does_not_fit_is_told_with_what_would() -> None:
    graph = graph_of(task("a", txt=constant("x")))
    wanted: JsonValue = {
        "properties": {"text": {"type": "string"}, "deep": {"type": ["integer", "null"]}},
        "required": ["text"],
        "additionalProperties": False,
    }
    with pytest.raises(GraphError) as caught:
        check_types(graph, {"a": [capability(wanted, {})]}, INPUTS)
    assert caught.value.hint == "it takes deep (integer or null, optional), text (string)"


def test_one_provider_that_fits_is_enough_and_none_known_refuses_nothing() -> None:
    graph = graph_of(task("a", text=constant(3)))
    number = capability({"properties": {"text": {"type": "number"}}}, {})
    check_types(graph, {"a": [TOOL, number]}, {})
    check_types(graph, {}, {})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"text": True}},
        {"properties": {"text": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "string"}}},
        {"properties": {"text": {"$ref": "#/properties/more"}, "more": {"type": "string"}}},
        {"patternProperties": {"^t": {}}, "additionalProperties": False},
        True,
    ],
    ids=str,
)
def test_a_clever_schema_refuses_nothing_that_fits(schema: JsonValue) -> None:
    graph = graph_of(task("a", text=constant("x")), task("b", text=edge("a", "/words/0")))
    check_types(graph, everybody(graph, capability(schema, WORDS_OUT)), {})


def test_definitions_are_looked_up() -> None:
    schema: JsonValue = {
        "properties": {"text": {"$ref": "#/$defs/t"}},
        "$defs": {"t": {"type": "string"}},
    }
    with pytest.raises(GraphError, match="'text'"):
        check_types(
            graph_of(task("a", text=constant(3))), {"a": [capability(schema, True)]}, {}
        )


def test_lists_that_are_mapped_over_are_measured() -> None:
    graph = graph_of(task("a", each=["text"], text=DOCS))
    assert check_inputs(graph, INPUTS) == {"docs": {"/list": 2}}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Source(kind="input", name="papers", pointer=""), "'papers', which is not given"),
        (Source(kind="input", name="docs", pointer="/none"), "there is no 'none'"),
        (Source(kind="input", name="docs", pointer="/n"), "/n is no list"),
    ],
)
def test_an_input_that_is_not_there_is_named(source: Source, says: str) -> None:
    graph = graph_of(task("a", each=["text"], text=source))
    with pytest.raises(GraphError, match=says) as caught:
        check_inputs(graph, INPUTS)
    assert "sub-task 'a', input 'text'" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (edge("a", "/nope"), "output 'r' draws '/nope' from sub-task 'a'"),
        (Source(kind="input", name="nope"), "output 'r' draws from the job input 'nope'"),
        (Source(kind="input", name="given", pointer="/nope"), "output 'r': there is no 'nope'"),
    ],
)
def test_an_output_that_nothing_can_fill_is_refused_before_anything_is_spent(
    source: Source, says: str
) -> None:
    graph = TaskGraph(name="g", subtasks=[task("a")], outputs={"r": source})
    closed: JsonValue = {"type": "object", "properties": {}, "additionalProperties": False}
    inputs: dict[str, JsonValue] = {"given": {}}

    def check() -> None:
        check_inputs(graph, inputs)
        check_types(graph, everybody(graph, capability({}, closed)), inputs)

    with pytest.raises(GraphError, match=says):
        check()


def test_a_constant_too_large_for_a_message_is_refused_unless_it_is_cut() -> None:
    large = constant(["x" * INLINE_SIZE_MAX])
    with pytest.raises(GraphError, match="constant of") as caught:
        check_shape(graph_of(task("a", text=large)))
    assert "job input" in caught.value.hint
    check_shape(graph_of(task("a", each=["text"], text=large)))


def test_a_capability_with_a_schema_that_cant_be_used_is_refused() -> None:
    check_capability(TOOL)
    with pytest.raises(InputInvalid, match=r"work\.a@1, output schema"):
        check_capability(capability({}, {"$ref": "http://example.com/"}))
    with pytest.raises(InputInvalid, match=r"work\.a@1, input schema"):
        check_capability(capability({"type": "wat"}, {}))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=16))
def test_order_depth_and_cycles_are_as_another_library_finds_them(
    pairs: list[tuple[int, int]],
) -> None:
    oracle = nx.DiGraph()
    oracle.add_nodes_from(f"t{n}" for n in range(9))
    oracle.add_edges_from((f"t{a}", f"t{b}") for a, b in pairs)
    tasks = [
        SubTask(
            id=name,
            capability="work.a",
            inputs={f"i{n}": edge(p) for n, p in enumerate(oracle.predecessors(name))},
        )
        for name in oracle.nodes
    ]
    graph = graph_of(*tasks)
    if not nx.is_directed_acyclic_graph(oracle):
        with pytest.raises(Malformed, match="cycle"):
            order(graph)
        with pytest.raises(GraphError, match=r"cycle: .* -> "):
            check_shape(graph)
        return
    found = order(graph)
    place = {name: n for n, name in enumerate(found)}
    assert sorted(found) == sorted(oracle.nodes)
    assert all(place[a] < place[b] for a, b in oracle.edges)
    assert longest(graph) == nx.dag_longest_path_length(oracle) + 1
