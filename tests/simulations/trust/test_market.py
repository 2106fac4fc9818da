"""The market of cheats and what is usually done about them: as theory says it goes."""

from functools import partial
from random import Random

import pytest
from typing_extensions import override

from simulations.trust.attacks import (
    AGREED,
    ATTACKS,
    COLLUSION,
    EXIT_ROUND,
    RIGHT,
    Attack,
    Crowd,
    Errors,
    share_of,
)
from simulations.trust.baselines import AtRandom, PlainBeta, Voting
from simulations.trust.eigentrust import EigenTrust
from simulations.trust.market import Course, Terms, play
from simulations.trust.policy import PolicyMaker
from simulations.trust.sarmenta import THRESHOLD, Credibility

HONEST = 20
BASELINES: dict[str, PolicyMaker] = {
    "random": AtRandom,
    "beta": PlainBeta,
    "vote": partial(Voting, voters=3),
    "eigentrust": EigenTrust,
    "sarmenta": Credibility,
}


def crowd(attack: Attack, *, cheats: int = 10, errors: float = 0.0) -> Crowd:
    return Crowd(attack, Random("crowd"), honest=HONEST, cheats=cheats, errors=Errors(errors))


def went(maker: PolicyMaker, *, seed: int = 0, **terms: object) -> Course:
    return play(Terms(honest=HONEST, rounds=80, **terms), maker, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_is_the_same_course_and_another_is_not(name: str) -> None:
    first, again, other = (
        went(BASELINES[name], seed=seed, attack=COLLUSION, cheats=0.4) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.counts != other.counts


# --- each attack does what it says ----------------------------------------------------------


def test_a_collective_agrees_on_one_wrong_answer() -> None:
    crew = crowd(COLLUSION)
    assert {crew.answer(agent, 0, 0.5) for agent in crew.cheats} == {AGREED}


def test_cheats_that_are_each_alone_agree_with_nobody() -> None:
    crew = crowd(ATTACKS["A: each alone"])
    answers = [crew.answer(agent, 0, 0.5) for agent in crew.cheats]
    assert len(set(answers)) == len(crew.cheats)
    assert RIGHT not in answers


def test_the_camouflaged_lie_in_the_same_half_of_the_tasks() -> None:
    crew = crowd(ATTACKS["C: camouflaged collective"])
    for draw, wanted in ((0.49, AGREED), (0.51, RIGHT)):
        assert {crew.answer(agent, 0, draw) for agent in crew.cheats} == {wanted}


def test_spies_are_honest_and_praise_the_liars() -> None:
    crew = crowd(ATTACKS["D: spies"])
    answers = [crew.answer(agent, 0, 0.5) for agent in crew.cheats]
    assert answers == [RIGHT] * 5 + [AGREED] * 5
    spy, liar = crew.cheats[0], crew.cheats[-1]
    assert any(claim[:2] == (spy, liar) for claim in crew.claims())


def test_in_step_all_change_at_once_and_otherwise_not() -> None:
    in_step, apart = crowd(ATTACKS["on-off in step"]), crowd(ATTACKS["on-off"])
    at = [{in_step.answer(agent, r, 0.5) for agent in in_step.cheats} for r in (0, 29, 30, 59)]
    assert at == [{RIGHT}, {RIGHT}, {AGREED}, {AGREED}]
    assert {apart.answer(agent, 30, 0.5) for agent in apart.cheats} == {RIGHT, AGREED}


def test_an_exit_scam_is_honest_until_it_is_not() -> None:
    crew = crowd(ATTACKS["exit scam"])
    cheat = crew.cheats[0]
    assert crew.answer(cheat, EXIT_ROUND - 1, 0.5) == RIGHT
    assert crew.answer(cheat, EXIT_ROUND, 0.5) == AGREED


def test_slander_blames_the_honest_and_stuffing_praises_cheats() -> None:
    slander = list(crowd(ATTACKS["bad-mouthing"]).claims())
    assert {agent for _, agent, _, _ in slander} == set(range(HONEST))
    assert all(bad > 0 and not good for _, _, good, bad in slander)
    stuffed = crowd(ATTACKS["ballot stuffing"])
    assert {agent for _, agent, good, _ in stuffed.claims() if good} == set(stuffed.cheats)


def test_the_caught_come_back_under_a_new_name() -> None:
    class Watched(AtRandom):
        names = 0

        @override
        def reborn(self, agent: int) -> None:
            Watched.names += agent >= HONEST

    went(Watched, attack=COLLUSION, cheats=0.4)
    assert Watched.names == 0
    went(Watched, attack=ATTACKS["whitewashing"], cheats=0.4)
    assert Watched.names > 0


def test_errors_of_the_honest_coincide_as_often_as_is_said() -> None:
    for rho in (0.0, 0.6, 1.0):
        crew = Crowd(COLLUSION, Random("rho"), honest=2, cheats=0, errors=Errors(1.0, rho))
        pairs = [(crew.answer(0, 0, 0.5), crew.answer(1, 0, 0.5)) for _ in range(2000)]
        assert RIGHT not in {one for pair in pairs for one in pair}
        assert sum(a == b for a, b in pairs) / 2000 == pytest.approx(rho, abs=0.05)


# --- what is usually done, as theory says ----------------------------------------------------


def test_at_random_errs_as_often_as_there_are_lies() -> None:
    course = went(AtRandom, attack=COLLUSION, cheats=0.5)
    assert course.tally.error == pytest.approx(0.5 + 0.5 * 0.04, abs=0.06)


def test_a_vote_helps_against_few_and_hurts_beyond_half() -> None:
    vote = partial(Voting, voters=5)
    few, many = (went(vote, attack=COLLUSION, cheats=share).tally for share in (0.2, 0.7))
    assert few.error < went(AtRandom, attack=COLLUSION, cheats=0.2).tally.error / 2
    assert many.error > went(AtRandom, attack=COLLUSION, cheats=0.7).tally.error
    assert few.executions_per_task == 5


def test_sarmenta_keeps_his_bound_where_his_assumptions_hold() -> None:
    alone = went(
        Credibility, attack=ATTACKS["A: each alone"], cheats=share_of(0.3, HONEST), errors=0.0
    )
    assert alone.tally.accepted > 0.9 * alone.tally.tasks
    assert alone.tally.error <= 1 - THRESHOLD


def test_eigentrust_needs_to_be_told_of_every_bad_result() -> None:
    told = went(
        EigenTrust, attack=ATTACKS["A: each alone"], cheats=0.5, notice=1.0, at_once=True
    )
    assert told.tally.error < 0.2
    untold = went(EigenTrust, attack=COLLUSION, cheats=0.5, notice=0.3)
    assert untold.tally.error > 0.5


def test_stuffing_deceives_a_plain_beta() -> None:
    praised = went(PlainBeta, attack=COLLUSION, cheats=0.5)
    quiet = went(PlainBeta, attack=ATTACKS["A: each alone"], cheats=0.5)
    assert praised.tally.error > 0.5 > quiet.tally.error
