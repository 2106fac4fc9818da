"""Which units wait for an offer that was asked for, and which don't."""

import msgspec

from meshnode.domain.facts import Expanded
from meshnode.domain.matching import first
from meshnode.domain.step_kinds import Call, MakeAward, Wake
from meshnode.domain.steps import OFFER_PATIENCE_MS, next_steps
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.test_fold import other, state_after
from tests.meshnode.domain.test_steps import candidate, candidates, expanded, mapped


def test_an_offer_that_is_about_to_lapse_is_not_taken() -> None:
    state = expanded(1)
    fresh = candidate(offer=b"offer", offer_expires_ms=START_MS + 60_000)
    assert isinstance(next_steps(state, START_MS, candidates(fresh))[0], MakeAward)
    stale = msgspec.structs.replace(fresh, offer_expires_ms=START_MS + 100)
    assert isinstance(next_steps(state, START_MS, candidates(stale))[0], Call)


def test_an_offer_that_is_on_its_way_is_waited_for_and_nobody_called() -> None:
    state = expanded(3)
    (wake,) = next_steps(state, START_MS, candidates(candidate(asked=True, concurrency=9)))
    assert wake == Wake(START_MS + OFFER_PATIENCE_MS)
    called = next_steps(state, START_MS, candidates(candidate(concurrency=9)))
    assert [type(step) for step in called] == [Call, Call, Call, Wake]


def test_who_has_offered_is_not_kept_waiting_for_who_has_not() -> None:
    offer = candidate(offer=b"offer", offer_expires_ms=START_MS + 60_000)
    (award, _) = next_steps(
        expanded(1), START_MS, candidates(offer, candidate("q", asked=True))
    )
    assert isinstance(award, MakeAward)
    assert award.candidate.peer == "p"


def test_of_units_alike_those_wait_whose_choice_has_not_offered() -> None:
    there = candidate(
        offer=b"offer", offer_expires_ms=START_MS + 60_000, latency_ms=60, concurrency=50
    )
    comes = candidate("q", asked=True, latency_ms=10, concurrency=50)  # as soon, asked
    state = expanded(12)
    drawn = {
        name: first([there, comes], key=f"{state.job}/{name}", calls=1, load={}).peer
        for name in state.expanded["each"]
    }
    assert set(drawn.values()) == {"p", "q"}
    steps = next_steps(state, START_MS, candidates(there, comes))
    awarded = [step.unit for step in steps if isinstance(step, MakeAward)]
    assert awarded == [name for name, peer in drawn.items() if peer == "p"]


def test_units_alike_part_once_an_award_has_taken_what_one_of_them_waits_for() -> None:
    # Quick, and dear: it is waited for with one call, and too late for two.
    comes = candidate("q", asked=True, latency_ms=20_000, price_mc=5, concurrency=50)
    there = candidate(
        offer=b"offer", offer_expires_ms=START_MS + 60_000, latency_ms=1_000, queue_ms=30_000,
        concurrency=50,
    )  # fmt: skip
    graph, inputs = mapped(4)
    run = Run(graph, inputs, [])
    sizes = Expanded(subtask="each", sizes=[1, 2, 1])
    state = state_after(other(run.planned, budget_mc=6), sizes)
    steps = next_steps(state, START_MS, candidates(there, comes))
    awarded = [step.unit for step in steps if isinstance(step, MakeAward)]
    assert awarded == ["each/1", "each/2"], "what is left pays only who is there"
