"""Graph files: what people write is read, and what they got wrong is named with its line."""

import json
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain import graph_files
from meshnode.domain.graph_files import graph_of, graph_to_json, graph_to_value, parse_graph
from meshnode.domain.values import canonical
from meshnode.errors import GraphError
from protocol.graph import (
    Check,
    Likeness,
    Panel,
    Source,
    SubTask,
    TaskGraph,
    decode_graph,
    encode_graph,
)
from tests.meshnode.domain.random_graphs import random_graph

REVIEW = """
name = "review"

[subtasks.summaries]
capability = "text.summarization@1"
each = ["text"]
inputs.text = "@documents/*/text"
checks = [{ kind = "quoted", output = "/sentences/*", input = "/text" }]
instead = ["text.extraction@1"]

[subtasks.report]
capability = "text.report_writing@1"
timeout_ms = 5000
inputs.title = { value = "My report" }
inputs.summaries = "summaries/summary"
inputs.first = { task = "summaries", pointer = "/sentences/0", readers = ["owner"] }
inputs.all = { input = "documents" }

[outputs]
report = "report/markdown"
texts = "@documents/*/text"
"""


def test_the_friendly_form_is_read_as_it_looks() -> None:
    graph = parse_graph(REVIEW, where="review.toml")
    summaries, report = graph.subtasks
    assert graph.name == "review"
    assert summaries == SubTask(
        id="summaries",
        capability="text.summarization@1",
        each=["text"],
        inputs={"text": Source(kind="input", name="documents", pointer="/*/text")},
        checks=[Check(kind="quoted", output="/sentences/*", input="/text")],
        instead=["text.extraction@1"],
    )
    assert report.timeout_ms == 5000
    assert report.inputs == {
        "title": Source(kind="value", value=b'"My report"'),
        "summaries": Source(kind="task", name="summaries", pointer="/summary"),
        "first": Source(
            kind="task", name="summaries", pointer="/sentences/0", readers=["owner"]
        ),
        "all": Source(kind="input", name="documents"),
    }
    assert graph.outputs["report"] == Source(kind="task", name="report", pointer="/markdown")
    assert decode_graph(encode_graph(graph)) == graph


def test_json_says_the_same_as_toml() -> None:
    graph = parse_graph(REVIEW, where="review.toml")
    assert parse_graph(graph_to_json(graph), where="review.json") == graph


def test_the_example_in_the_documentation_is_read() -> None:
    source = Path(graph_files.__file__).read_text(encoding="utf-8")
    example = dedent(source.split("::\n", 1)[1].split("A source is text", 1)[0])
    assert len(parse_graph(example, where="docs").subtasks) == 2


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_any_graph_comes_back_from_its_json(seed: int) -> None:
    rng = Random(seed)
    graph = random_graph(rng)
    task = graph.subtasks[0]
    graph.subtasks[0] = SubTask(
        id=task.id,
        capability=task.capability,
        inputs={
            **task.inputs,
            "v": Source(kind="value", value=canonical({"task": [rng.random()]}), readers=[]),
            "w": Source(kind="input", name="docs", pointer="/a~1b/~0", readers=["verifier"]),
        },
        each=task.each,
        timeout_ms=rng.randrange(9),
        checks=task.checks,
        attempts_max=task.attempts_max,
    )
    text = graph_to_json(graph)
    assert parse_graph(text, where="x") == graph
    assert graph_to_json(parse_graph(text, where="x")) == text


def test_what_is_as_always_is_left_out() -> None:
    graph = TaskGraph(
        name="g",
        subtasks=[SubTask(id="a", capability="work.a", inputs={})],
        outputs={"o": Source(kind="task", name="a")},
    )
    assert graph_to_value(graph) == {
        "name": "g",
        "subtasks": {"a": {"capability": "work.a"}},
        "outputs": {"o": "a"},
    }


WRONG: dict[str, tuple[str, str, str, str]] = {
    # claim: (what stands there, what is written instead, message, hint)
    "an edge from nowhere, with the nearest": (
        '"summaries/summary"', '"sumaries"', "does not exist (did you mean 'summaries'?)", "@",
    ),
    "a broken line": ('name = "review"', 'name = "review', "at line 2", "mend"),
    "a key of the graph": (
        "[outputs]", "[output]", "no 'output' (did you mean 'outputs'?)", "",
    ),
    "a key of a sub-task": (
        "each =", "eech =",
        "line 4: sub-task 'summaries', a sub-task has no 'eech' (did you mean 'each'?)", "each",
    ),
    "a key of a source": (
        'pointer = "/sentences/0"', 'ponter = "/s"',
        "no 'ponter' (did you mean 'pointer'?)", "",
    ),
    "a key of a check": ("output =", "outptu =", "(did you mean 'output'?)", ""),
    "a kind of check": ('"quoted"', '"guessed"', "guessed", "recompute"),
    "an edge from nowhere": (
        '"summaries/summary"', '"sumaries/summary"',
        "line 11: sub-task 'report', input 'summaries' draws from sub-task 'sumaries', which",
        "@",
    ),
    "an output from nowhere": (
        '"report/markdown"', '"reprt"', "output 'report' draws from sub-task 'reprt'", "@",
    ),
    "a constant without its table": (
        '{ value = "My report" }', "3", "input 'title' is 3", "{ value = 3 }",
    ),
    "two origins": (
        '{ value = "My report" }', '{ value = 1, task = "report" }',
        "draws from value and task", "one of",
    ),
    "no origin": ('{ value = "My report" }', "{}", "draws from nothing", "one of"),
    "a date": ('{ value = "My report" }', "{ value = 1979-05-27 }", "no JSON value", ""),
    "not a number": ('{ value = "My report" }', "{ value = nan }", "no JSON value", ""),
    "each of no input": ('["text"]', '["txet"]', "(did you mean 'text'?)", "map over"),
    "each as text": ('["text"]', '"text"', "list of texts", ""),
    "no capability": (
        'capability = "text.summarization@1"\n', "", "names no capability", "capability =",
    ),
    "a capability that is none": (
        '"text.summarization@1"', '"Text Summaries"',
        "line 4: sub-task 'summaries': 'Text Summaries' is not a capability", "",
    ),
    "a pointer that is none": ("/sentences/0", "sentences", "is no JSON Pointer", ""),
    "a number as text": ("5000", '"5 s"', "timeout_ms should be a whole number", ""),
    "a truth for a number": ("5000", "true", "timeout_ms should be a whole number", ""),
    "a cycle": (
        '"@documents/*/text"\nchecks', '"report"\nchecks', "the graph has a cycle", "",
    ),
    "checks that are no list": (
        'checks = [{ kind = "quoted", output = "/sentences/*", input = "/text" }]',
        "checks = 1", "checks should be a list", "",
    ),
    "a sub-task that is no table": (
        "[outputs]", "[outputs]\n[subtasks]\nx = 1", "not TOML", "",
    ),
    "a name that is no text": ('name = "review"', "name = 7", "name should be text", ""),
    "another version": ('name = "review"', 'name = "review"\nv = 2', "version 2", ""),
}  # fmt: skip


@pytest.mark.parametrize(("there", "instead", "says", "hint"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_with_what_to_do(
    there: str, instead: str, says: str, hint: str
) -> None:
    assert there in REVIEW
    with pytest.raises(GraphError) as caught:
        parse_graph(REVIEW.replace(there, instead, 1), where="review.toml")
    assert str(caught.value).startswith("review.toml")
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no sub-tasks"),
        ('{"subtasks": }', "not JSON: Expecting value (at line 1, column 14)"),
        ('{"subtasks": {"a": {}, "a": {}}}', "'a' stands twice"),
        ('{"name": NaN}', "NaN is not JSON"),
        ("{" * 5_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ('{\n"subtasks": {\n"a": {"capability": "x", "each": [1]}},\n"outputs": {"o": "a"}}',
         "line 3: sub-task 'a', each should be a list of texts"),
        ('{"subtasks": {"a": {"capability": "x"}}}', "no outputs"),
        ('{"subtasks": {"a": 1}, "outputs": {"o": "a"}}', "should be a table"),
        ('{"subtasks": [], "outputs": {"o": "a"}}', "subtasks should be a table"),
    ],
)  # fmt: skip
def test_json_that_is_wrong_is_named_too(text: str, says: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_graph(text, where="g")
    assert says in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_graph_or_refused(text: str) -> None:
    with pytest.raises(GraphError):
        parse_graph(text, where="g")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "subtasks",
                    "outputs",
                    "a",
                    "capability",
                    "inputs",
                    "each",
                    "checks",
                    "value",
                    "task",
                    "input",
                    "pointer",
                    "readers",
                    "kind",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200)
@given(JSON)
def test_any_value_is_a_graph_or_refused(value: object) -> None:
    whole = {"subtasks": {"a": value}, "outputs": {"o": "a"}}
    for candidate in (value, whole):
        try:
            graph = graph_of(candidate, where="g")  # type: ignore[arg-type]  # JSON values
        except GraphError:
            continue
        assert parse_graph(json.dumps(graph_to_value(graph)), where="g") == graph


CHECKED = """
[subtasks.code]
capability = "code.writing@1"
inputs.task = "@task"
like = "normalised"
panel = "Which program is easier to read?"

[[subtasks.code.checks]]
kind = "program"
output = "/code"
value = [{ call = "f", args = [1], gives = 2.5 }]
like = { kind = "numeric", relative_ppm = 10 }

[[subtasks.code.checks]]
kind = "expected"
output = "/language"
like = "normalised"
value = "python"

[outputs]
code = "code/code"
"""


def test_what_an_output_is_held_against_is_written_as_it_looks() -> None:
    graph = parse_graph(CHECKED, where="x.toml")
    (task,) = graph.subtasks
    same = Likeness("normalised")
    assert task.like == same
    assert task.panel == Panel(question="Which program is easier to read?")
    assert task.checks == [
        Check(
            kind="program",
            output="/code",
            value=b'[{"args":[1],"call":"f","gives":2.5}]',
            like=Likeness("numeric", relative_ppm=10),
        ),
        Check(kind="expected", output="/language", value=b'"python"', like=same),
    ]
    assert parse_graph(graph_to_json(graph), where="x.json") == graph
    assert decode_graph(encode_graph(graph)) == graph


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('like = "normalised"\n', 'like = "nearly"\n', "kind is exact, normalised"),
        ('like = "normalised"\n', "like = 3\n", "like should be a table"),
        ("panel = ", "panel.ask = ", "capability, question"),
        ("panel = ", "panel.capability = ", "'Which program is easier to read?'"),
        ('panel = "Which program is easier to read?"', "panel = 3", "panel should be a table"),
        ("panel = ", "panel.question = 3 #", "a question, or capability and question"),
        ("relative_ppm", "relative", "did you mean 'relative_ppm'"),
        ("relative_ppm = 10", "relative_ppm = 1.5", "like: "),
        ("relative_ppm = 10", "relative_ppm = -1", "relative_ppm is 0 to 1000000"),
        ('"f"', '"f.g"', "case 0: 'f.g' can't name a function"),
        ('value = "python"', "", "no value that is expected"),
        ('like = "normalised"\nvalue', "like = 'embedding'\nvalue", "shows nothing"),
        ('kind = "expected"', 'kind = "recompute"', "has no use for a value"),
        ('kind = "expected"', 'kind = "guessed"', "kind is quoted, recompute, expected or"),
    ],
)
def test_what_an_output_cannot_be_held_against_is_told(old: str, new: str, why: str) -> None:
    assert old in CHECKED
    with pytest.raises(GraphError) as caught:
        parse_graph(CHECKED.replace(old, new, 1), where="x.toml")
    assert "line 2" in caught.value.line()
    assert why in caught.value.line()
