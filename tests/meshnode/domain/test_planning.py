"""Goals in words become sub-tasks and edges; by words alone here, so without a model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.plan_graphs import assemble, split_matter
from meshnode.domain.planning import Offer, Outline, outline, texts_of, word_vectors
from meshnode.domain.planning_words import parts, pointing, similar, stems
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue


def fields(**kinds: Any) -> dict[str, Any]:
    properties = {
        name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in kinds.items()
    }
    required = [name for name in kinds if not name.startswith("path")]
    return {"type": "object", "properties": properties, "required": required}


def offer(
    capability: str, description: str, takes: Mapping[str, Any], gives: Mapping[str, Any]
) -> Offer:
    return Offer(capability, description, [], takes, gives, price_mc=2, latency_ms=100)


SUMMARIZE = offer(
    "text.summarization@1",
    "Summarises a document: the main sentences of a text.",
    fields(text="string", path="string"),
    fields(summary="string"),
)
TRANSLATE = offer(
    "text.translation@1",
    "Translates a text into another language.",
    fields(text="string", target="string"),
    fields(text="string"),
)
TRANSCRIBE = offer(
    "audio.transcription@1",
    "Transcribes a recording of speech.",
    fields(audio="string"),
    fields(text="string"),
)
KEYWORDS = offer(
    "text.keyword_extraction@1",
    "Extracts the keywords of a document.",
    fields(text="string"),
    fields(keywords={"type": "array", "items": {"type": "string"}}),
)
STATISTICS = offer(
    "data.statistics@1",
    "Computes averages of a table.",
    fields(csv="string"),
    fields(statistics="object"),
)
CHART = offer(
    "data.chart@1", "Draws a chart.", fields(statistics="object"), fields(image="string")
)
REPORT = offer(
    "report.writing@1",
    "Writes a report of keywords and topics.",
    fields(keywords={"type": "array"}),
    fields(markdown="string"),
)
CALCULATE = offer(
    "science.math@1",
    "Computes, solves and integrates formulas.",
    {
        **fields(expression="string"),
        "properties": {
            "expression": {"type": "string"},
            "operation": {"enum": ["evaluate", "solve", "integrate"]},
        },
    },
    fields(result="string"),
)
ALL = [SUMMARIZE, TRANSLATE, TRANSCRIBE, KEYWORDS, STATISTICS, CHART, REPORT, CALCULATE]


def understand(goal: str, offers: Sequence[Offer] = ALL) -> Outline:
    return outline(goal, offers, word_vectors(texts_of(goal, offers)))


def steps(found: Outline) -> list[str]:
    return [offer.capability.rpartition(".")[2].removesuffix("@1") for offer in found.steps]


# --- understanding -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "wanted", "edges"),
    [
        ("Summarise the document.", ["summarization"], []),
        (
            "Summarise the document and extract its keywords.",
            ["summarization", "keyword_extraction"],
            [],
        ),
        (
            "Summarise the document and translate the summary into French.",
            ["summarization", "translation"],
            [(0, 1)],
        ),
        (
            "Translate the text into German, then extract its keywords.",
            ["translation", "keyword_extraction"],
            [(0, 1)],
        ),
        (
            "Before you translate the document into Dutch, summarise it.",
            ["summarization", "translation"],
            None,
        ),
        (
            "Transcribe the recording and summarise it.",
            ["transcription", "summarization"],
            [(0, 1)],
        ),
        ("Draw a chart.", ["statistics", "chart"], [(0, 1)]),
        (
            "Extract the keywords and write a report about what was found.",
            ["keyword_extraction", "writing"],
            [(0, 1)],
        ),
    ],
)
def test_a_goal_is_understood(
    goal: str, wanted: list[str], edges: list[tuple[int, int]] | None
) -> None:
    found = understand(goal)
    assert steps(found) == wanted
    assert not found.unplaced
    if edges is not None:
        assert list(found.edges) == edges


def test_what_nothing_serves_is_said_with_the_nearest() -> None:
    found = understand("Summarise the document and water my plants.")
    (clause,) = found.unplaced
    assert clause.text == "water my plants"
    assert len(clause.nearest) == 3
    assert steps(found) == ["summarization"]
    assert understand("Paint my house.").steps == []


def test_edges_go_forward_and_never_to_a_type_that_does_not_fit() -> None:
    found = understand("Extract the keywords, then transcribe it, then draw a chart of it.")
    assert all(producer < consumer for producer, consumer in found.edges)
    names = steps(found)
    fed = {names[consumer]: names[producer] for producer, consumer in found.edges}
    assert fed.get("transcription") != "keyword_extraction"
    assert fed["chart"] == "statistics"


def test_order_of_time_is_order_of_work() -> None:
    texts = [part.text for part in parts("After fixing the draft, translate it.")]
    assert texts == ["fixing the draft", "translate it"]
    texts = [part.text for part in parts("Translate the draft before you print it.")]
    assert texts == ["Translate the draft", "you print it"]
    assert [part.link for part in parts("Do this; then do that and rest")] == [
        "",
        "then",
        "and",
    ]


def test_pronouns_point_back_and_possessives_say_only_where() -> None:
    assert pointing("translate it into French").pronoun
    assert not pointing("extract its keywords").pronoun
    assert pointing("extract its keywords").of_it
    assert pointing("write a report about what was found").everything
    assert pointing("condense the long memo").nouns >= {"memo"}


def test_forms_of_a_word_share_a_stem() -> None:
    for word in ("translation", "translates", "translating", "translator"):
        assert similar(stems("translate"), stems(word))
    assert not similar(stems("transcribe"), stems("translation"))
    assert stems("the of and") == []


@given(st.text(max_size=300))
def test_any_text_is_planned_or_not_and_nothing_else(goal: str) -> None:
    found = understand(goal)
    assert len(found.words) == len(found.steps)
    assert all(0 <= a < b < len(found.steps) for a, b in found.edges)


@given(
    st.lists(
        st.sampled_from(
            ["summarise", "it", "the", "text", "and", "then", ",", "before", "translate"]
        ),
        max_size=60,
    )
)
def test_any_words_end_in_time(words: list[str]) -> None:
    understand(" ".join(words))


# --- the graph -----------------------------------------------------------------------


def plan(
    goal: str, *paths: str, offers: Sequence[Offer] = ALL, **inputs: JsonValue
) -> dict[str, Any]:
    asked, matter = split_matter(goal)
    files = [{"path": path, "text": f"text of {path}"} for path in paths]
    made = assemble(understand(asked, offers), matter=matter, files=files, given=inputs)
    return {
        "tasks": {task.id: task for task in made.graph.subtasks},
        "outputs": sorted(made.graph.outputs),
        "inputs": dict(made.inputs),
        "missing": [want.field for want in made.missing],
        "optional": [want.field for want in made.optional],
        "cost_mc": made.cost_mc,
        "time_ms": made.time_ms,
    }


def test_one_file_is_one_call() -> None:
    made = plan("Summarise the document.", "a.md")
    source = made["tasks"]["summarization"].inputs["text"]
    assert (source.kind, source.name, source.pointer) == ("input", "files", "/0/text")
    assert not made["tasks"]["summarization"].each
    assert (made["cost_mc"], made["time_ms"]) == (2, 100)


def test_several_files_are_a_map_all_along_the_path() -> None:
    goal = "Summarise the document and translate the summary into French."
    made = plan(goal, "a.md", "b.md", "c.md")
    assert made["tasks"]["summarization"].each == ["text", "path"]
    translation = made["tasks"]["translation"]
    assert translation.each == ["text"]
    assert translation.inputs["text"].pointer == "/summary"
    assert json.loads(translation.inputs["target"].value) == "French"
    assert made["outputs"] == ["translation"]
    assert (made["cost_mc"], made["time_ms"]) == (12, 600)


def test_text_behind_a_colon_or_in_quotes_is_the_matter() -> None:
    made = plan("Summarise the text: the tide rises and then it falls again.")
    assert made["inputs"]["text"] == "the tide rises and then it falls again."
    made = plan('Translate "good morning to you" into Italian.')
    assert made["inputs"]["text"] == "good morning to you"
    assert not made["missing"]


def test_a_list_of_clauses_behind_a_colon_is_no_matter() -> None:
    assert split_matter("Do this: summarise the text and translate it")[1] == ""


def test_what_cant_be_inferred_is_named_and_may_be_given() -> None:
    made = plan("Translate the text.", "a.md")
    assert made["missing"] == ["target"]
    made = plan("Translate the text.", "a.md", target="Norwegian")
    assert made["missing"] == []
    assert made["tasks"]["translation"].inputs["target"].name == "target"
    assert plan("Summarise the document.")["missing"] == ["text"]


def test_a_formula_and_an_operation_stand_in_the_clause() -> None:
    made = plan("Solve x^2 - 9 = 0")
    inputs = made["tasks"]["math"].inputs
    assert json.loads(inputs["expression"].value) == "x^2 - 9 = 0"
    assert json.loads(inputs["operation"].value) == "solve"


def test_every_end_of_the_graph_is_an_output() -> None:
    made = plan("Summarise the document and extract its keywords.", "a.md")
    assert made["outputs"] == ["keyword_extraction", "summarization"]


#: What `meshnode wrap openai` advertises.
MODEL = offer(
    "text.generation@1",
    "Generates a text, such as a poem or a story (language model).",
    {
        "type": "object",
        "properties": {
            "prompt": {"type": "string"},
            "messages": {"type": "array"},
            "system": {"type": "string"},
            "max_tokens": {"type": "integer"},
        },
        "anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "additionalProperties": False,
    },
    fields(text="string"),
)
SHOUT = offer(
    "text.shout@1",
    "Shouts a text.",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "times": {"type": "integer", "default": 1},
            "lines_max": {"type": "integer"},
            "count": {"type": "integer", "description": "How many echoes."},
        },
        "required": ["text"],
    },
    fields(text="string"),
)
SPEAKING = [MODEL, SHOUT]


def told(made: Mapping[str, Any], task: str) -> dict[str, Any]:
    inputs = made["tasks"][task].inputs
    return {
        name: json.loads(source.value) if source.kind == "value" else source.name
        for name, source in inputs.items()
    }


def test_a_model_is_asked_what_the_goal_says() -> None:
    made = plan("Generate a poem about the sea", offers=SPEAKING)
    assert made["missing"] == []
    assert told(made, "generation") == {"prompt": "Generate a poem about the sea"}
    # It is about something that isn't here, and that only the caller has.
    assert plan("Generate a story of this", offers=SPEAKING)["missing"] == ["prompt"]


def test_a_model_that_is_given_a_matter_is_told_what_to_do_with_it() -> None:
    made = plan("Generate a story of this", "a.md", offers=SPEAKING)
    assert told(made, "generation") == {"prompt": "files", "system": "Generate a story of this"}
    made = plan("Shout this, then generate a poem about it", "a.md", offers=SPEAKING)
    assert told(made, "generation")["prompt"] == "shout"
    assert told(made, "generation")["system"] == "generate a poem about it"


def test_what_is_optional_is_taken_from_the_caller_and_the_rest_is_told() -> None:
    made = plan("Shout this", "a.md", offers=SPEAKING, times=3)
    assert told(made, "shout") == {"text": "files", "times": "times"}
    assert made["optional"] == ["lines_max", "count"]


@pytest.mark.parametrize(
    ("goal", "wanted"),
    [
        ("Shout this 3 times", {"times": 3}),
        ("Shout three times this text", {"times": 3}),
        ("Shout at most 20 lines of this", {"lines_max": 20}),
        ("Shout this with 2 echoes", {"count": 2}),
        ("Shout this 3 to 2020", {}),
        ("Shout this", {}),
    ],
)
def test_a_number_is_of_what_stands_beside_it(goal: str, wanted: dict[str, int]) -> None:
    assert told(plan(goal, "a.md", offers=SPEAKING), "shout") == {"text": "files", **wanted}


def test_an_input_that_nothing_takes_is_refused() -> None:
    with pytest.raises(InputInvalid, match="'tims'") as caught:
        plan("Shout this", "a.md", offers=SPEAKING, tims=3)
    assert "'times'" in caught.value.hint


def test_a_schema_that_requires_nothing_means_what_has_no_default() -> None:
    lax = {name: part for name, part in SHOUT.input_schema.items() if name != "required"}
    only = offer("text.shout@1", "Shouts a text.", lax, fields(text="string"))
    assert plan("Shout this", "a.md", offers=[only])["missing"] == ["lines_max", "count"]
