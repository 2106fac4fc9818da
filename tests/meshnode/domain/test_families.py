"""Families are told from answers, whatever agents declare."""

from collections.abc import Mapping
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain.families import ALIKE, ANSWERS_MIN, Look, likeness, recognised
from meshnode.domain.fingerprints import QUESTIONS, answer_of, asked, can_be_asked, questions

QS: Final = [f"q{n}" for n in range(12)]


def speaks(model: str, *, slips: int = 0) -> dict[str, str]:
    """Return the answers of a model that slipped so often."""
    return {q: f"{model if n >= slips else f'slip {n}'} says {q}" for n, q in enumerate(QS)}


def look(peer: str, declared: str, answers: Mapping[str, str]) -> Look:
    return Look(f"{peer}/chat", declared, answers)


def test_the_same_model_is_alike_though_it_slips_and_another_is_not() -> None:
    one = look("a", "llama", speaks("llama"))
    assert likeness(one, look("b", "llama", speaks("llama", slips=4))) >= ALIKE
    assert likeness(one, look("b", "llama", speaks("qwen"))) == 0.0
    few = {q: speaks("llama")[q] for q in QS[: ANSWERS_MIN - 1]}
    assert likeness(one, look("b", "llama", few)) == 0.0


def test_who_declares_a_family_and_answers_unlike_it_is_not_of_it() -> None:
    told = recognised(
        [
            look("a", "llama", speaks("llama")),
            look("b", "llama", speaks("llama", slips=2)),
            look("liar", "llama", speaks("qwen")),
        ]
    )
    assert told == {"a/chat": "llama", "b/chat": "llama", "liar/chat": ""}


def test_one_model_under_many_names_is_one_family() -> None:
    sybils = [look(f"s{n}", f"family{n}", speaks("cheap")) for n in range(5)]
    told = recognised(sybils)
    assert set(told.values()) == {""}, "nobody knows which, and nobody is different"
    known = [look("a", "cheap", speaks("cheap")), look("b", "cheap", speaks("cheap"))]
    assert set(recognised([*sybils, *known]).values()) == {"cheap"}


def test_what_this_nodes_own_agent_declares_is_true_whoever_outnumbers_it() -> None:
    own = look("me", "llama", speaks("llama"))
    crowd = [look(f"x{n}", "llama", speaks("qwen")) for n in range(4)]
    assert set(recognised([own, *crowd]).values()) == {"llama", ""}
    assert recognised([own, *crowd])["me/chat"] == "", "without its word the crowd has it"
    told = recognised([own, *crowd], own=["me/chat"])
    assert told == {"me/chat": "llama", **{f"x{n}/chat": "" for n in range(4)}}


def test_of_two_halves_neither_is_known() -> None:
    halves = [look(f"a{n}", "llama", speaks("llama")) for n in range(2)]
    halves += [look(f"b{n}", "llama", speaks("qwen")) for n in range(2)]
    assert set(recognised(halves).values()) == {""}
    twice = [Look("a/one", "llama", speaks("x")), Look("a/two", "llama", speaks("x"))]
    assert set(recognised(twice).values()) == {""}, "one peer is one voice"


def test_who_did_not_answer_is_not_told() -> None:
    assert recognised([look("a", "llama", {})], own=["a/chat"]) == {}


MODELS: Final = st.sampled_from(["llama", "qwen", "cheap"])


@settings(max_examples=80)
@given(st.lists(st.tuples(MODELS, MODELS), max_size=7), st.randoms(use_true_random=False))
def test_who_answers_alike_is_one_family_in_whatever_order(
    pairs: list[tuple[str, str]], rng: Random
) -> None:
    looks = [look(f"p{n}", said, speaks(is_)) for n, (is_, said) in enumerate(pairs)]
    told = recognised(looks)
    for is_ in ("llama", "qwen", "cheap"):
        names = {told[f"p{n}/chat"] for n, pair in enumerate(pairs) if pair[0] == is_}
        assert len(names) <= 1
    rng.shuffle(looks)
    assert recognised(looks) == told


def test_questions_differ_each_time_and_are_asked_as_an_agent_takes_them() -> None:
    first, second = questions(Random(1)), questions(Random(2))
    assert len(set(first)) == QUESTIONS
    assert len(set(first) & set(second)) < QUESTIONS / 4
    schema: Any = {
        "properties": {"prompt": {"type": "string"}, "temperature": {"type": "number"}}
    }
    assert can_be_asked(schema)
    assert asked("Hi", schema) == {"prompt": "Hi", "temperature": 0}
    assert not can_be_asked({"properties": {"code": {}}})
    assert not can_be_asked(True)


@pytest.mark.parametrize(
    ("output", "text"), [({"text": "a"}, "a"), ("a", "a"), ({"text": 7}, ""), ([], "")]
)
def test_an_answer_is_its_text(output: object, text: str) -> None:
    assert answer_of(output) == text  # type: ignore[arg-type]  # any JSON
