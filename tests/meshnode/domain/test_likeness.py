"""When two answers say the same, for every kind of likeness."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.likeness import equivalent, grouped, normalised, texts
from meshnode.domain.values import canonical
from protocol.graph import Likeness

EXACT = Likeness()
NORMALISED = Likeness("normalised")
NUMERIC = Likeness("numeric", relative_ppm=10_000, absolute_ppm=1_000)
MEANING = Likeness("embedding", alike_pct=80)
VECTORS = {"a cat": (1.0, 0.0), "one feline": (0.8, 0.6), "a dog": (0.0, 1.0)}


@pytest.mark.parametrize(
    ("one", "other", "kinds"),
    [
        (1, 1.0, "exact normalised numeric"),
        (0.0, -0.0, "exact normalised numeric"),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, "exact normalised numeric"),
        ("Paris", " paris.\n", "normalised numeric"),
        ("Stra\u00dfe", "STRASSE", "normalised numeric"),
        ("e\u0301", "\u00c9", "normalised numeric"),
        ("a  b", "a\tb", "normalised numeric"),
        ({"x": ["Yes"]}, {"x": ["yes."]}, "normalised numeric"),
        (100, 101, "numeric"),
        (100, 101.005, "numeric"),  # of the larger
        (-100, -101, "numeric"),
        (0, 0.001, "numeric"),
        (1e300, 1.001e300, "numeric"),
        ([1, "Yes"], [1.001, "yes"], "numeric"),
        (100, 102, ""),
        (0, 0.0011, ""),
        (1, -1, ""),
        ("-5", "5", ""),
        ("5!", "5", ""),
        ("10\u00b2", "102", ""),
        ("ab", "a b", ""),
        ("1", 1, ""),
        (True, 1, ""),
        (False, 0.0, ""),
        (None, False, ""),
        (None, "", ""),
        ([], {}, ""),
        ([1, 2], [2, 1], ""),
        ([1], [1, 1], ""),
        ({"a": 1}, {"A": 1}, ""),
        ({"a": None}, {}, ""),
        (1e308, -1e308, ""),
    ],
)  # fmt: skip
def test_what_is_the_same_by_which_kind(one: Any, other: Any, kinds: str) -> None:
    for kind in (EXACT, NORMALISED, NUMERIC):
        assert equivalent(one, other, kind) is (kind.kind in kinds.split()), kind
        assert equivalent(other, one, kind) is (kind.kind in kinds.split()), kind


def test_texts_that_mean_the_same_are_as_near_as_declared() -> None:
    assert equivalent({"a": "a cat"}, {"a": "one feline"}, MEANING, VECTORS)
    assert not equivalent("a cat", "one feline", Likeness("embedding", alike_pct=81), VECTORS)
    assert not equivalent("a cat", "a dog", MEANING, VECTORS)
    assert not equivalent(["a cat", 1], ["a cat", 1.0001], MEANING, VECTORS)
    assert equivalent("Unknown", "unknown", MEANING), "what is the same needs no vector"
    with pytest.raises(KeyError):
        equivalent("a cat", "a cow", MEANING, VECTORS)


def test_the_texts_to_embed_are_those_of_the_answers_each_once() -> None:
    answers: list[Any] = [{"a": ["x", "y", 1]}, "x", None]
    assert sorted(texts(answers, MEANING)) == ["x", "y"]
    assert texts(answers, NUMERIC) == []


def test_normal_form_is_its_own() -> None:
    assert normalised("  The \u00a0 End .") == "the end"
    assert normalised("...") == ".."


def test_answers_nested_deeper_than_the_stack_are_compared() -> None:
    deep: Any = "end"
    other: Any = "End."
    for _ in range(100_000):
        deep, other = [deep], [other]
    assert equivalent(deep, other, NORMALISED)
    assert len(texts([deep], MEANING)) == 1


def test_nobody_bridges_two_groups_with_an_answer_in_between() -> None:
    answers: list[Any] = [100, 100.8, 101.6]
    assert equivalent(answers[0], answers[1], NUMERIC)
    assert equivalent(answers[1], answers[2], NUMERIC)
    assert grouped(answers, NUMERIC) == [[0, 1], [2]]
    orders = [contents(list(order), NUMERIC) for order in permutations(answers)]
    assert all(one == orders[0] for one in orders)


def test_the_largest_group_comes_first_and_then_the_earlier() -> None:
    assert grouped(["b", "a", "A", "c"], NORMALISED) == [[1, 2], [0], [3]]
    assert grouped([], NORMALISED) == []


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-300, 300)
    | st.floats(-300, 300, allow_nan=False)
    | st.text("aA .é", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_each_kind_is_reflexive_symmetric_and_no_finer_than_the_one_before(
    one: Any, other: Any
) -> None:
    told = []
    for kind in (EXACT, NORMALISED, NUMERIC):
        assert equivalent(one, one, kind)
        assert equivalent(one, other, kind) == equivalent(other, one, kind)
        told.append(equivalent(one, other, kind))
    assert told == sorted(told)


@given(st.lists(VALUES, max_size=4), st.sampled_from([EXACT, NORMALISED, NUMERIC]))
def test_groups_do_not_depend_on_who_answered_first(answers: list[Any], kind: Likeness) -> None:
    orders = [[answers[n] for n in order] for order in permutations(range(len(answers)))]
    found = [contents(order, kind) for order in orders]
    assert all(one == found[0] for one in found)
    for group in grouped(answers, kind):
        assert all(equivalent(answers[a], answers[b], kind) for a in group for b in group)


def contents(answers: list[Any], kind: Likeness) -> list[list[bytes]]:
    """What is together, whoever said it."""
    groups = grouped(answers, kind)
    assert sorted(n for group in groups for n in group) == list(range(len(answers)))
    return sorted(sorted(canonical(answers[n]) for n in group) for group in groups)
