"""Jobs that compare answers, among random contractors that lie, fail, die and are dear."""

from collections import Counter

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from tests.meshnode.domain.random_runs import random_run

#: Units with several answers that are seen before it is said that there are any.
SEVERAL = 10
THETAS_PPM = (600_000, 900_000, 950_000, 980_000, 999_000)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(THETAS_PPM))
@example(778_169, 980_000)  # two that are dear together
@example(471_816, 900_000)  # one that is slow when the others have settled it
def test_whatever_becomes_of_the_answers_the_job_ends_and_its_journal_holds(
    seed: int, theta_ppm: int
) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed, theta_ppm=theta_ppm)
    state = run.run()
    assert state.done is not None
    assert run.now_ms <= state.required_plan.deadline_ms + 100, "it ends with its deadline"
    assert all(unit.current is None for unit in state.units.values())
    for unit in state.units.values():
        _check_settled(state, unit.name)
    assert verify_provenance(run.export()).cost_mc == state.spent_mc


def _check_settled(state: JobState, name: str) -> None:
    unit = state.units[name]
    judged = unit.judged
    if unit.accepted is None or judged is None or not judged.outcome:
        return
    assert judged.chosen == unit.accepted.number
    verdicts = {attempt.number: attempt.verdict for attempt in unit.attempts}
    for vote in judged.votes:
        verdict, attempt = verdicts[vote.attempt], unit.attempts[vote.attempt]
        assert verdict is not None
        assert verdict.verdict == vote.verdict
        assert (attempt.paid_mc or 0) == 0 if vote.verdict == "rejected" else attempt.delivered
    if judged.outcome == "agreed":
        assert judged.posterior_ppm >= state.required_plan.theta_ppm
        chosen = next(vote.group for vote in judged.votes if vote.attempt == judged.chosen)
        for vote in judged.votes:
            assert vote.verdict == ("agreed" if vote.group == chosen else "rejected")
    else:
        assert {vote.verdict for vote in judged.votes} == {judged.outcome}


def test_the_worlds_above_have_every_outcome() -> None:
    outcomes: Counter[str] = Counter()
    several = 0
    for seed in range(300):
        run, _, _ = random_run(seed, theta_ppm=THETAS_PPM[seed % len(THETAS_PPM)])
        for unit in run.run().units.values():
            if unit.accepted is not None and unit.judged is not None:
                outcomes[unit.judged.outcome] += 1
                several += len(unit.judged.votes) > 1
        if {"agreed", "unverified", "contested"} <= set(outcomes) and several > SEVERAL:
            return
    raise AssertionError(f"{outcomes}, {several} of them with several answers")
