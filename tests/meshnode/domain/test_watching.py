"""What was seen of an agent, beside what it claims."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain.watching import (
    RUN_LIFETIME_MS,
    RUNS_MIN,
    Run,
    per_call,
    told,
    watched,
)

NOW_MS: Final = 1_900_000_000_000


def runs(n: int, *, took_ms: int, run_ms: int, trip_ms: int = 10) -> list[Run]:
    return [Run(took_ms, run_ms, trip_ms, NOW_MS - i) for i in range(n)]


def test_a_claim_counts_until_enough_was_seen() -> None:
    few = watched(runs(RUNS_MIN - 1, took_ms=950, run_ms=900), 200, now_ms=NOW_MS)
    assert (few.expected_ms, few.overclaims) == (0, False)
    enough = watched(runs(RUNS_MIN, took_ms=950, run_ms=900), 200, now_ms=NOW_MS)
    assert (enough.expected_ms, enough.overclaims) == (900, True)
    assert told(enough) == "claims 200 ms, says it ran 900 ms, seen 950 ms (n=8); it overclaims"


def test_what_lies_in_its_word_is_found_out_by_the_quickest_results() -> None:
    seen = watched(runs(10, took_ms=1_000, run_ms=200, trip_ms=20), 200, now_ms=NOW_MS)
    assert seen.overclaims
    assert seen.expected_ms == 1_000 - 3 * 20 - 100
    assert told(seen).endswith("seen 1000 ms (n=10); it overclaims, or its line is slow")


@pytest.mark.parametrize("quick", [2, 10])
def test_who_is_slow_for_the_network_or_for_others_work_does_not_overclaim(quick: int) -> None:
    far = watched(runs(10, took_ms=1_700, run_ms=210, trip_ms=500), 200, now_ms=NOW_MS)
    assert not far.overclaims
    assert far.expected_ms == 210
    busy = runs(10 - quick, took_ms=5_000, run_ms=210) + runs(quick, took_ms=300, run_ms=210)
    assert not watched(busy, 200, now_ms=NOW_MS).overclaims
    assert watched(busy, 200, now_ms=NOW_MS).expected_ms == 210


def test_a_claim_that_is_merely_old_is_no_lie_and_neither_is_none() -> None:
    older = watched(runs(10, took_ms=310, run_ms=300), 200, now_ms=NOW_MS)
    assert not older.overclaims
    assert told(older) == "claims 200 ms, seen 310 ms (n=10)"
    silent = watched(runs(10, took_ms=9_000, run_ms=9_000), 0, now_ms=NOW_MS)
    assert not silent.overclaims
    assert silent.expected_ms == 9_000
    assert told(silent) == "claims nothing, seen 9000 ms (n=10)"


def test_what_was_seen_long_ago_is_forgotten() -> None:
    at_ms = NOW_MS + RUN_LIFETIME_MS
    seen = watched(runs(10, took_ms=900, run_ms=900), 200, now_ms=at_ms)
    assert seen.n == 0
    assert told(seen) == ""


def test_a_batch_is_taken_apart_by_how_many_calls_may_run_at_once() -> None:
    assert per_call(1_000, calls=1, at_once=4) == 1_000
    assert per_call(1_000, calls=8, at_once=4) == 500
    assert per_call(1_000, calls=3, at_once=4) == 1_000
    assert per_call(-5, calls=1, at_once=0) == 0


@settings(max_examples=60)
@given(
    took=st.lists(st.integers(0, 10_000), min_size=RUNS_MIN, max_size=RUNS_MIN),
    more_ms=st.integers(0, 5_000),
    claimed_ms=st.integers(1, 2_000),
)
def test_taking_longer_never_makes_it_quicker_nor_its_claim_truer(
    took: list[int], more_ms: int, claimed_ms: int
) -> None:
    before = watched([Run(ms, ms, 5, NOW_MS) for ms in took], claimed_ms, now_ms=NOW_MS)
    after = watched(
        [Run(ms + more_ms, ms + more_ms, 5, NOW_MS) for ms in took], claimed_ms, now_ms=NOW_MS
    )
    assert after.expected_ms >= before.expected_ms
    assert after.overclaims >= before.overclaims
