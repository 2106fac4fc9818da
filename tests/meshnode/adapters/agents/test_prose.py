"""Sentences are slices of the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.adapters.agents.specialists.prose import sentences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith, e.g. John F. Smith, came. He left.", None),
        ("It costs 3.50 a piece. Yes.", ["It costs 3.50 a piece.", "Yes."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("A sentence\nover two lines. B.", ["A sentence\nover two lines.", "B."]),
        ("# Heading\nBody text.", ["Body text."]),
        ("Heading\n===\n\nBody.", ["Heading", "Body."]),
        ("- one\n- two\n  goes on\n1. three", ["one", "two\n  goes on", "three"]),
        ("```\nCode. More.\n```\nText.", ["Text."]),
        ("    indented code.\n\nText.", ["Text."]),
        ("| a. | b. |\nText.", ["Text."]),
        ("これは文です。もう一つ。", ["これは文です。", "もう一つ。"]),
        ("... !!! ---", []),
    ],
)
def test_sentences_are_told_apart(text: str, found: list[str] | None) -> None:
    expected = ["Dr. Smith, e.g. John F. Smith, came.", "He left."] if found is None else found
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from("aB1.!?。 \n\r\t\0-*#|`>\u2028é😀"), max_size=200))
def test_every_sentence_is_a_slice_and_they_come_in_order(text: str) -> None:
    place = 0
    for sentence in sentences(text):
        place = text.index(sentence, place) + len(sentence)


@pytest.mark.parametrize(
    "text", ["." * 500_000 + "a", "e.g. " * 200_000, '."' * 300_000 + "a", "- " * 300_000]
)
def test_time_grows_with_the_text_and_not_with_its_square(text: str) -> None:
    assert len(sentences(text)) <= 1
