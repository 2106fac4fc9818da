"""What records declare groups answers, and lets nobody lie."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain.declared import BOUND, grouping
from meshnode.domain.likeness import equivalent
from protocol.likeness import EXACT, Likeness

NORMALISED: Final = Likeness("normalised")
LAX: Final = Likeness("numeric", relative_ppm=1_000_000, absolute_ppm=10**9)
MEANING: Final = Likeness("embedding", alike_pct=0)


@pytest.mark.parametrize(
    ("asked", "declared", "used"),
    [
        (EXACT, [NORMALISED, NORMALISED], NORMALISED),
        (EXACT, [NORMALISED, None], EXACT),  # one that says nothing
        (EXACT, [LAX, EXACT], EXACT),
        (EXACT, [LAX, NORMALISED], NORMALISED),
        (EXACT, [LAX, LAX], BOUND),  # and not as wide as liars want it
        (EXACT, [MEANING, MEANING], NORMALISED),
        (EXACT, [LAX, Likeness("numeric", relative_ppm=5)], Likeness("numeric", 5)),
        (EXACT, [], EXACT),
        (LAX, [EXACT, None], LAX),  # who asks has said it
    ],
)
def test_the_narrowest_counts_within_bounds_where_who_asks_says_nothing(
    asked: Likeness, declared: list[Likeness | None], used: Likeness
) -> None:
    assert grouping(asked, declared) == used


LIKES = st.builds(
    Likeness,
    st.sampled_from(["exact", "normalised", "numeric", "embedding"]),
    st.integers(0, 1_000_000),
    st.integers(0, 10**9),
    st.integers(0, 100),
)
ANSWERS = st.one_of(st.integers(-2_000, 2_000), st.floats(-1e6, 1e6), st.text(max_size=4))


@settings(max_examples=100)
@given(LIKES, st.lists(LIKES, max_size=4), ANSWERS, ANSWERS)
def test_no_declaration_of_others_makes_alike_what_the_bound_or_ones_own_does_not(
    own: Likeness, others: list[Likeness], one: float | str, other: float | str
) -> None:
    used = grouping(EXACT, [own, *others])
    if equivalent(one, other, used):
        assert equivalent(one, other, BOUND)
        if own.kind != "embedding":
            assert equivalent(one, other, own)
