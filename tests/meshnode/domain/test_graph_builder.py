"""Graphs in Python are the graphs of files."""

import pytest

from meshnode.domain.graph_builder import TaskGraph
from meshnode.domain.graph_files import parse_graph
from meshnode.errors import GraphError
from meshnode.ports import JsonValue
from protocol.graph import Panel

REVIEW = """
name = "review"
[subtasks.summarization]
capability = "text.summarization@1"
each = ["text"]
inputs.text = "@files/*/text"
checks = [{ kind = "quoted", output = "/sentences/*", input = "/text" }]
batch_items_max = 5
[subtasks.report]
capability = "text.report_writing@1"
inputs.title = { value = "Mine" }
inputs.summaries = "summarization/summary"
timeout_ms = 9000
attempts_max = 2
[outputs]
report = "report/markdown"
"""


def review() -> TaskGraph:
    graph = TaskGraph("review")
    texts = graph.input("files").each["text"]
    summaries = graph.task(
        "text.summarization@1",
        each={"text": texts},
        checks=[{"kind": "quoted", "output": "/sentences/*", "input": "/text"}],
        batch_items_max=5,
    )
    report = graph.task(
        "text.report_writing@1",
        {"title": "Mine"},
        id="report",
        timeout_ms=9000,
        attempts_max=2,
        summaries=summaries["summary"],
    )
    graph.output("report", report["markdown"])
    return graph


def test_a_graph_in_python_is_the_same_as_in_toml() -> None:
    assert review().build() == parse_graph(REVIEW, where="")
    assert TaskGraph.parse(REVIEW).build() == review().build()


def test_what_is_written_is_read_back() -> None:
    graph = review()
    assert TaskGraph.parse(graph.to_json()).build() == graph.build()


def test_a_parsed_graph_goes_on() -> None:
    graph = TaskGraph.parse(REVIEW)
    more = graph.task("text.summarization@1", text=graph.input("note"))
    graph.output("more", more)
    assert [task.id for task in graph.build().subtasks][-1] == "summarization2"


def test_a_member_with_odd_letters_is_one_step() -> None:
    graph = TaskGraph()
    assert str(graph.input("a")["x/y~z"][0]) == "@a/x~1y~0z/0"


def test_a_constant_may_look_like_a_place() -> None:
    graph = TaskGraph()
    graph.output("o", graph.task("a.b@1", text="@files/x"))
    assert graph.build().subtasks[0].inputs["text"].kind == "value"


def test_refuses_a_place_of_another_graph() -> None:
    with pytest.raises(GraphError, match="of another graph"):
        TaskGraph().task("a.b@1", text=TaskGraph().input("x"))


def test_refuses_two_of_one_id() -> None:
    graph = TaskGraph()
    graph.task("a.b@1", id="one")
    with pytest.raises(GraphError, match="two sub-tasks 'one'"):
        graph.task("a.c@1", id="one")


def test_refuses_a_field_that_is_single_and_mapped() -> None:
    graph = TaskGraph()
    with pytest.raises(GraphError, match="in inputs and in each"):
        graph.task("a.b@1", each={"text": graph.input("x").each}, text="y")


def test_refuses_to_loop_over_what_is_not_there_yet() -> None:
    with pytest.raises(GraphError, match="can't be looped over"):
        list(TaskGraph().input("files"))  # type: ignore[call-overload]


@pytest.mark.parametrize("constant", [object(), {1: 2}, float("nan"), b"bytes"])
def test_a_constant_that_json_cant_hold_is_named(constant: object) -> None:
    graph = TaskGraph("g")
    graph.output("o", graph.task("a.b@1", id="it", text=constant))
    with pytest.raises(GraphError, match="sub-task 'it', input 'text'"):
        graph.build()


def test_a_graph_without_outputs_is_refused_when_it_is_built() -> None:
    graph = TaskGraph("g")
    graph.task("a.b@1")
    with pytest.raises(GraphError, match="graph 'g': there are no outputs"):
        graph.build()


@pytest.mark.parametrize(
    "said", ["Which is truer?", {"capability": "text.judging@1", "question": "Which is truer?"}]
)
def test_a_panel_is_a_question_or_a_table(said: str | dict[str, JsonValue]) -> None:
    graph = TaskGraph("g")
    graph.output("o", graph.task("a.b@1", panel=said, text=graph.input("x")))
    assert graph.build().subtasks[0].panel == Panel(question="Which is truer?")
