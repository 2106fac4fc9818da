"""The design in the market of cheats, and what two mutants of it come to."""

from dataclasses import replace
from functools import partial

import msgspec
import pytest

from meshnode.domain.trust.rules import RULES, Rules
from simulations.trust.attacks import ATTACKS, COLLUSION
from simulations.trust.baselines import AtRandom
from simulations.trust.design import Design
from simulations.trust.market import Course, Terms, play

#: Small, and none of the seeds that are reported.
TERMS = Terms(attack=COLLUSION, cheats=0.4, honest=12, rounds=60, pool=10)


def went(
    assurance: str = "economy", *, rules: Rules = RULES, seed: int = 7, terms: Terms = TERMS
) -> Course:
    return play(terms, partial(Design, assurance=assurance, rules=rules), seed=seed)


def test_the_same_seed_is_the_same_course() -> None:
    assert went() == went()
    assert went().counts != went(seed=8).counts


@pytest.mark.parametrize("assurance", ["economy", "assured"])
def test_it_beats_chance_where_four_of_ten_collude(assurance: str) -> None:
    chance = play(TERMS, AtRandom, seed=7).tally
    tally = went(assurance).tally
    assert chance.error > 0.3
    assert (
        tally.accepted > 0.7 * tally.tasks
    )  # 0.71 to 0.85 in seeds 7 to 11: it is a beginning
    assert tally.error < 0.05


def test_being_assured_costs_executions_and_saves_errors() -> None:
    economy, assured = went("economy").tally, went("assured").tally
    assert assured.executions > economy.executions
    assert assured.error <= economy.error


def test_agreement_taken_for_verification_lets_the_cartel_in() -> None:
    """Votes taken for independent, agreeing for as good as a gold, one's own vote counted."""
    credulous = replace(RULES, gamma=0.0, rho=0.02, agreed=1.0, learn_agreed=0.0)
    many = msgspec.structs.replace(TERMS, cheats=0.6, rounds=80)
    assert went("assured", terms=many).tally.error < 0.02
    assert went("assured", terms=many, rules=credulous).tally.error > 0.025


def test_import_without_a_bound_lets_the_camouflaged_praise_one_another_in() -> None:
    unbounded = replace(
        RULES, rater_max=1e6, import_max=1e6, rater_credible=0.0, reference_rank=1_000
    )
    hidden = ATTACKS["C: camouflaged collective"]
    terms = msgspec.structs.replace(TERMS, attack=hidden, rounds=80)
    assert went(terms=terms).worst < 0.12
    assert went(terms=terms, rules=unbounded).worst > 0.25


def test_one_who_turned_is_stopped_at_the_exposure_cap() -> None:
    leaving = Terms(attack=ATTACKS["exit scam"], cheats=0.2, honest=12, rounds=130, pool=10)
    course = play(leaving, partial(Design, assurance="economy"), seed=7)
    assert 0 < course.loss_max <= RULES.exposure_max + 1
