"""When a second contractor gets what a first one has, and what the journal makes of it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain import hedges, steps
from meshnode.domain.facts import Fact
from meshnode.domain.hedges import SEEN_MIN, Paces, due_ms, hedges_max, second_choices
from meshnode.domain.matching import Candidate
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.step_kinds import Attend, Charge, MakeAward, Stop, View, Wake
from meshnode.domain.steps import next_steps
from meshnode.domain.units import Unit
from protocol.errors import Malformed, OutOfTurn
from tests.meshnode.domain.random_runs import random_run
from tests.meshnode.domain.test_fold import (
    AWARDED,
    AWARDED_ON,
    CALLED,
    CHARGED,
    DELIVERED,
    DELIVERED_ON,
    FAILED,
    PLANNED,
    PROGRESSED,
    REJECTED,
    VERIFIED,
    again,
    other,
    state_after,
)

QUERY = "work.a"
LATE_MS = 9_000  # a second before the deadline
HEDGE = other(AWARDED, attempt=1, peer="q", hedge=True)
HEDGING = [other(PLANNED, hedges_pct=10), *AWARDED_ON[1:]]
HEDGED_ON = [*HEDGING, HEDGE]
SUPERSEDED = other(FAILED, code="award.superseded", blame="broker")
WON = [again(fact, 1) for fact in (DELIVERED, VERIFIED, CHARGED)]


def candidate(peer: str = "q", **fields: object) -> Candidate:
    made = {
        "peer": peer,
        "agent": "agent",
        "capability": "work.a@1",
        "price_mc": 5,
        "latency_ms": 10,
        "concurrency": 1,
        "offer": b"offer",
        "offer_expires_ms": 10**9,
        "alive": True,
    }
    return Candidate(**{**made, **fields})  # type: ignore[arg-type]  # its fields


def view(*found: Candidate, slow_ms: float = 50.0) -> View:
    return View(candidates={QUERY: found}, slow_ms={QUERY: slow_ms} if slow_ms else {})


def awards(facts: Sequence[Fact], now_ms: int, seen: View) -> list[MakeAward]:
    steps = next_steps(state_after(*facts), now_ms, seen)
    assert steps == next_steps(state_after(*facts), now_ms, seen)
    return [step for step in steps if isinstance(step, MakeAward)]


# --- what is slow -----------------------------------------------------------------


def test_nothing_is_slow_before_enough_was_seen() -> None:
    paces = Paces()
    for count in range(SEEN_MIN):
        assert paces.slow_ms(QUERY) == 0, count
        paces.saw(QUERY, took_ms=100, calls=1)
    assert paces.slow_ms(QUERY) == 200, "twice the middle: all alike, none is slow"
    assert paces.slow_ms("other") == 0


def test_slow_is_what_nine_in_ten_were_not() -> None:
    paces = Paces()
    for took_ms in (100, 110, 120, 130, 140, 150, 160, 170, 900, 60_000):
        paces.saw(QUERY, took_ms=took_ms, calls=1)
    assert paces.slow_ms(QUERY) == 900


def test_a_batch_is_measured_by_the_call_and_old_paces_are_forgotten() -> None:
    paces = Paces()
    for _ in range(SEEN_MIN):
        paces.saw(QUERY, took_ms=60_000, calls=1)
    for _ in range(64):
        paces.saw(QUERY, took_ms=1_000, calls=10)
    assert paces.slow_ms(QUERY) == 200


def test_only_so_many_capabilities_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hedges, "_CAPABILITIES_MAX", 3)
    paces = Paces()
    for query in ("a", "b", "c", "a", "d"):
        for _ in range(SEEN_MIN):
            paces.saw(query, took_ms=1, calls=1)
    assert [bool(paces.slow_ms(query)) for query in "abcd"] == [True, False, True, True]
    assert len(paces) == 3


@given(st.lists(st.integers(1, 100_000), max_size=150))
def test_at_most_a_tenth_of_what_was_seen_is_slow(took: list[int]) -> None:
    paces = Paces()
    for took_ms in took:
        paces.saw(QUERY, took_ms=took_ms, calls=1)
    if slow_ms := paces.slow_ms(QUERY):
        last = took[-64:]
        assert sum(took_ms > slow_ms for took_ms in last) <= len(last) / 10


# --- when and to whom -------------------------------------------------------------


def test_what_has_been_out_for_too_long_goes_to_another_too() -> None:
    state = state_after(*HEDGING)
    (attempt,) = state.units["a/0"].attempts
    at_ms = attempt.at_ms + 50
    steps = next_steps(state, at_ms - 1, view(candidate()))
    assert steps == [Attend("a/0", 0), Wake(at_ms)]
    (award,) = awards(HEDGING, at_ms, view(candidate("p"), candidate()))
    assert (award.attempt, award.hedge, award.candidate.peer) == (1, True, "q")
    assert award.proposal == b"offer"
    assert award.price_cap_mc == 5


@pytest.mark.parametrize(
    ("facts", "seen"),
    [
        (AWARDED_ON, view(candidate())),  # the job has none
        (HEDGING, view(candidate(), slow_ms=0.0)),  # nobody knows what is slow
        (HEDGING, view(candidate("p"))),  # it has it already
        (HEDGING, view(candidate(offer=b""))),
        (HEDGING, view(candidate(offer_expires_ms=LATE_MS + 5_000))),
        (HEDGING, view(candidate(troubled=True))),
        (HEDGING, view(candidate(probe=True))),
        (HEDGING, view(candidate(items_max=0))),
        (HEDGING, view(candidate(price_mc=96))),  # 5 of 100 mc are promised
        (HEDGED_ON, view(candidate("r"))),  # one is out
        ([*HEDGED_ON, other(FAILED, attempt=1, peer="q")], view(candidate("r"))),
        ([*HEDGING, DELIVERED], view(candidate())),
        ([*HEDGING, other(PROGRESSED, offset=5)], view(candidate())),  # its text is coming
    ],
)
def test_no_hedge(facts: Sequence[Fact], seen: View) -> None:
    assert not [award for award in awards(facts, LATE_MS, seen) if award.hedge]


def test_whoever_is_busy_with_others_saves_no_time() -> None:
    unit = state_after(*HEDGING).units["a/0"]
    busy, idle = candidate("q"), candidate("r")
    found = second_choices(unit, [busy, idle], {"q/agent": 1}, until_ms=0)
    assert found == [idle]


def test_one_hedge_in_ten_units_and_one_at_least() -> None:
    for pct, units, most in ((0, 50, 0), (10, 1, 1), (10, 19, 1), (10, 50, 5), (100, 7, 7)):
        state = state_after(other(PLANNED, hedges_pct=pct))
        state.units = {f"a/{n}": Unit(f"a/{n}", "a", n, 1) for n in range(units)}
        assert hedges_max(state) == most


# --- the fold ---------------------------------------------------------------------


def test_both_are_attended_and_reserved() -> None:
    state = state_after(*HEDGED_ON)
    assert state.reserved_mc() == 10
    assert [attempt.number for _, attempt in state.open_attempts()] == [0, 1]
    assert next_steps(state, 1_100, view())[:2] == [Attend("a/0", 0), Attend("a/0", 1)]
    assert due_ms(state.units["a/0"], state.units["a/0"].attempts[0], 50.0) == 0


def test_the_first_good_result_counts_and_the_other_is_stopped_unpaid() -> None:
    state = state_after(*HEDGED_ON, *WON)
    unit = state.units["a/0"]
    assert unit.accepted is unit.attempts[1]
    assert state.finished("a"), "what comes after it begins at once"
    assert state.spent_mc == 5
    assert state.reserved_mc() == 5, "until it has stopped"
    assert next_steps(state, 1_100, view(candidate("r")))[0] == Stop("a/0", 0)
    after = state_after(*HEDGED_ON, *WON, SUPERSEDED)
    assert after.reserved_mc() == 0
    assert after.spent_mc == 5
    assert not after.outrun
    assert after.units["a/0"].ended_ms == unit.ended_ms, "it ended when it was accepted"


def test_a_rejected_result_leaves_the_other_one() -> None:
    facts = [*HEDGED_ON, DELIVERED, REJECTED, other(CHARGED, paid_mc=0)]
    state = state_after(*facts)
    assert next_steps(state, 1_100, view())[0] == Attend("a/0", 1)
    won = state_after(*facts, *WON)
    assert won.spent_mc == 5
    assert not won.outrun


def test_of_two_results_one_is_charged() -> None:
    both = [*HEDGED_ON, DELIVERED, VERIFIED, *WON[:2]]
    steps = next_steps(state_after(*both), 1_100, view())
    assert [step for step in steps if isinstance(step, Charge)] == [Charge("a/0", 0)]


def test_what_was_checked_waits_for_no_other_that_has_come_since() -> None:
    both = [*HEDGED_ON, *WON[:2], DELIVERED]
    steps = next_steps(state_after(*both), 1_100, view())
    assert [step for step in steps if not isinstance(step, Wake)] == [Charge("a/0", 1)]


ILLEGAL: dict[str, list[Fact]] = {
    "a hedge of what isn't out": [*HEDGING[:2], other(HEDGE, attempt=0)],
    "a hedge while one is called": [*HEDGING[:2], CALLED, HEDGE],
    "a hedge with the same contractor": [*HEDGING, other(HEDGE, peer="p")],
    "a hedge of what was delivered": [HEDGING[0], *DELIVERED_ON[1:], HEDGE],
    "two hedges": [*HEDGED_ON, other(HEDGE, attempt=2, peer="r")],
    "a second award that is no hedge": [*HEDGING, other(HEDGE, hedge=False)],
    "a hedge out of number": [*HEDGING, other(HEDGE, attempt=2)],
    "a result of what was outrun": [*HEDGED_ON, *WON, DELIVERED],
    "two charges": [*HEDGED_ON, DELIVERED, VERIFIED, *WON, CHARGED],
    "a charge of two": [*HEDGED_ON, *WON, VERIFIED],
    "a stop of what won": [*HEDGED_ON, *WON, again(SUPERSEDED, 1)],
    "two stops": [*HEDGED_ON, *WON, SUPERSEDED, SUPERSEDED],
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_cannot_be_is_refused(name: str) -> None:
    *before, last = ILLEGAL[name]
    state_after(*before)
    with pytest.raises(OutOfTurn):
        state_after(*before, last)


def test_a_journal_with_more_hedges_than_its_plan_allows_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(steps, "hedges_max", lambda _: 100)
    found = 0
    for seed in range(40):
        run = random_run(seed)[0]
        run.watch = None
        state = run.run()
        allowed = hedges_max(state)
        if state.hedges > allowed:
            found += 1
            with pytest.raises(Malformed, match=f"more hedges than {allowed}"):
                verify_provenance(run.export())
        else:
            verify_provenance(run.export())
    assert found > 3
