"""What may still be owed, as decisions: a contractor's, and a broker's."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.ledger import CREDIT, EXHAUSTED, beyond
from meshnode.domain.matching import Candidate
from meshnode.domain.step_kinds import End, MakeAward, Step, View, Wake
from meshnode.domain.steps import next_steps
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.test_steps import candidate, candidates, expanded

AMOUNTS = st.integers(0, 10**6)


@given(AMOUNTS, st.integers(-(10**6), 10**6), AMOUNTS, AMOUNTS)
def test_a_peer_never_comes_to_owe_more_than_the_limit(
    limit_mc: int, due_mc: int, reserved_mc: int, more_mc: int
) -> None:
    no = beyond(limit_mc, due_mc=due_mc, reserved_mc=reserved_mc, more_mc=more_mc, payee="me")
    within = due_mc + reserved_mc + more_mc <= limit_mc
    assert (no is None) == (within or not limit_mc or not more_mc)
    assert no is None or (no.reason, no.retry_ms) == (CREDIT, 0)


def offering(peer: str, price_mc: int) -> Candidate:
    return candidate(
        peer,
        offer=b"offer",
        offer_expires_ms=START_MS + 60_000,
        price_mc=price_mc,
        concurrency=50,
    )


def decided(units: int, credit: Mapping[str, int], *known: Candidate) -> list[Step]:
    view = View(candidates=candidates(*known).candidates, credit=credit)
    return next_steps(expanded(units, budget_mc=1_000), START_MS, view)


def awarded(steps: list[Step]) -> list[str]:
    return [step.candidate.peer for step in steps if isinstance(step, MakeAward)]


def test_what_one_pass_awards_counts_against_credit_at_once() -> None:
    steps = decided(5, {"p": 7}, offering("p", 2))
    assert [type(step) for step in steps] == [MakeAward, MakeAward, MakeAward, Wake]


def test_who_may_be_owed_no_more_is_passed_over_for_who_is_dearer() -> None:
    steps = decided(4, {"p": 4}, offering("p", 2), offering("q", 9))
    assert sorted(awarded(steps)) == ["p", "p", "q", "q"]


def test_who_has_no_limit_is_not_in_the_way() -> None:
    assert awarded(decided(3, {"q": 0}, offering("p", 2))) == ["p", "p", "p"]


def test_free_work_needs_no_credit() -> None:
    assert awarded(decided(2, {"p": 0}, offering("p", 0))) == ["p", "p"]


@pytest.mark.parametrize(("price_mc", "code"), [(2, EXHAUSTED), (2_000, "budget.exceeded")])
def test_where_nobody_is_left_the_job_ends_and_says_why(price_mc: int, code: str) -> None:
    (end,) = decided(1, {"p": 1, "q": 1}, offering("p", price_mc), offering("q", price_mc))
    assert isinstance(end, End)
    assert end.reason == code
    if code == EXHAUSTED:
        assert "owes p, q as much as" in end.text
        assert "meshnode ledger settle" in end.text
