"""How likely an answer is right, when it is taken, and what is learned of that."""

from itertools import count, permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshnode.domain.trust.acceptance import (
    Decision,
    Lesson,
    Terms,
    checked,
    decide,
    lessons,
    theta_of,
)
from meshnode.domain.trust.posterior import Voter, posterior_without, posteriors
from meshnode.domain.trust.rules import RULES, Rules
from tests.meshnode.domain.purity import outside_calls

#: Agreement of anybody believed less makes an answer less probable: ρ / (1 + ρ).
CREDIBLE = RULES.rho / (1 + RULES.rho)

chances = st.floats(0.0, 0.98)
families = st.sampled_from(["", "x", "y", "z"])
#: Groups as (credibility, family) of each voter; ids are given in order.
someone = st.tuples(chances, families)
casts = st.lists(st.lists(someone, min_size=1, max_size=5), min_size=1, max_size=4)


def voters(cast: list[list[tuple[float, str]]]) -> list[list[Voter]]:
    ids = count()
    return [[Voter(f"v{next(ids)}", *row) for row in group] for group in cast]


def group(*credibilities: float, prefix: str = "v", family: str = "") -> list[Voter]:
    return [Voter(f"{prefix}{at}", chance, family) for at, chance in enumerate(credibilities)]


def literal(groups: list[list[float]], rules: Rules = RULES) -> list[float]:
    """R(g) Π W(g′) / [Σ R(h) Π W(g′) + Π W], product by product, all voters of a group."""
    right, wrong = [], []
    for chances in groups:
        first, *others = sorted(chances)
        r, w = first, 1 - first
        for one in others:
            r *= rules.gamma + (1 - rules.gamma) * one
            w *= rules.gamma + (1 - rules.gamma) * rules.rho * (1 - one)
        right.append(r)
        wrong.append(w)
    rows = []
    for place in range(len(groups)):
        row = right[place]
        for other in range(len(groups)):
            row *= wrong[other] if other != place else 1.0
        rows.append(row)
    none = 1.0
    for w in wrong:
        none *= w
    return [row / (sum(rows) + none) for row in rows]


@pytest.mark.parametrize(
    "groups",
    [
        [[0.9]],
        [[0.9, 0.9]],
        [[0.9, 0.85, 0.8]],
        [[0.9, 0.8], [0.7]],
        [[0.4], [0.98], [0.6, 0.6]],
    ],
)
def test_it_is_the_formula_where_every_voter_helps(groups: list[list[float]]) -> None:
    made = [group(*chances, prefix=str(at)) for at, chances in enumerate(groups)]
    assert posteriors(made) == pytest.approx(literal(groups))


@given(casts, st.sampled_from([1, 2]))
def test_probabilities_are_between_0_and_1_and_sum_to_no_more(
    cast: list[list[tuple[float, str]]], voices_min: int
) -> None:
    found = posteriors(voters(cast), voices_min=voices_min)
    assert all(0.0 <= one <= 1.0 for one in found)
    assert sum(found) <= 1.0 + 1e-12


@given(casts, st.floats(CREDIBLE, 0.98), families, st.sampled_from([1, 2]))
def test_agreement_of_who_is_credible_never_lowers_it(
    cast: list[list[tuple[float, str]]], chance: float, family: str, voices_min: int
) -> None:
    groups = voters(cast)
    groups[0] = [one for one in groups[0] if one.credibility >= CREDIBLE]
    assume(len(groups[0]) >= voices_min)
    more = [[*groups[0], Voter("more", chance, family)], *groups[1:]]
    before, after = (posteriors(one, voices_min=voices_min) for one in (groups, more))
    assert after[0] >= before[0] * (1 - 1e-12)
    assert all(
        now <= then * (1 + 1e-12) for now, then in zip(after[1:], before[1:], strict=True)
    )


@given(casts)
def test_the_order_of_voters_and_groups_is_none_of_its_concern(
    cast: list[list[tuple[float, str]]],
) -> None:
    groups = voters(cast)
    backwards = [one[::-1] for one in groups[::-1]]
    assert posteriors(backwards)[::-1] == pytest.approx(posteriors(groups))


def test_one_voter_alone_is_worth_its_credibility() -> None:
    assert posteriors([group(0.73)]) == pytest.approx([0.73])
    assert posteriors([group(0.0)])[0] == pytest.approx(0.0, abs=1e-8)


def test_a_weak_voter_lowers_nothing_but_where_none_may_stand_alone_it_is_the_first() -> None:
    strong_and_weak = [group(0.98, 0.5)]
    assert posteriors(strong_and_weak) == pytest.approx([0.98])
    assert posteriors(strong_and_weak, voices_min=2) == pytest.approx(literal([[0.98, 0.5]]))


def test_a_model_family_that_speaks_twice_says_less_than_two() -> None:
    alike = posteriors([group(0.9, 0.9, family="x")])[0]
    unlike = posteriors([[Voter("a", 0.9, "x"), Voter("b", 0.9, "y")]])[0]
    assert 0.9 < alike < unlike
    assert unlike == posteriors([group(0.9, 0.9)])[0], "no family is none in common"
    third = [[Voter("a", 0.9, "x"), Voter("b", 0.9, "y"), Voter("c", 0.9, "x")]]
    assert unlike < posteriors(third)[0] < posteriors([group(0.9, 0.9, 0.9)])[0]


def test_dissent_makes_it_less_probable() -> None:
    alone, against = posteriors([group(0.9)]), posteriors([group(0.9), group(0.6, prefix="w")])
    assert against[0] < alone[0]


# --- when it is taken ---


def test_assurance_is_a_word_or_a_probability() -> None:
    assert (theta_of("economy"), theta_of("assured"), theta_of(0.95)) == (0.90, 0.98, 0.95)
    for wrong in ("", "sure", 0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="no assurance"):
            theta_of(wrong)


def test_a_credible_answer_is_taken_alone_unless_it_may_not_be() -> None:
    reserve = group(0.9, 0.9, prefix="r")
    found = decide([group(0.95)], reserve, Terms(0.9))
    assert (found.outcome, found.best, found.taken) == ("agreed", 0, True)
    assert found.posterior == pytest.approx(0.95)
    assert decide([group(0.95)], reserve, Terms(0.9, alone=False)).asks
    # A newcomer that agrees lends nobody the right to be taken alone.
    assert decide([group(0.95, 0.4)], reserve, Terms(0.9, alone=False)).asks
    assert decide([group(0.95, 0.9)], [], Terms(0.9, alone=False)).taken


def test_it_ends_when_theta_is_out_of_reach() -> None:
    weak = group(0.5, 0.5, 0.5, 0.5, prefix="r")
    assert decide([group(0.5)], weak, Terms(0.98)).outcome == "unverified"
    assert decide([group(0.5)], [], Terms(0.9)).outcome == "unverified"
    split = [group(0.9), group(0.9, prefix="w")]
    ended = decide(split, [], Terms(0.9))
    assert (ended.outcome, ended.taken, ended.dissent) == ("contested", False, (1,))
    assert decide(split, group(0.95, 0.95, prefix="r"), Terms(0.9)).asks


@given(casts, st.lists(someone, max_size=6), st.floats(0.5, 0.99), st.booleans(), st.booleans())
def test_no_task_is_done_more_than_five_times_and_what_is_taken_is_sure_enough(
    cast: list[list[tuple[float, str]]],
    rest: list[tuple[float, str]],
    theta: float,
    alone: bool,
    anchored: bool,
) -> None:
    groups = voters(cast)
    reserve = [Voter(f"r{at}", *row) for at, row in enumerate(rest)]
    found = decide(groups, reserve, Terms(theta, alone=alone, anchored=anchored))
    asked = sum(len(one) for one in groups)
    assert not found.asks or (asked < RULES.answers_max(theta) and reserve)
    assert not found.taken or (found.posterior >= theta and found.outcome == "agreed")
    assert not found.taken or alone or len(groups[found.best]) > 1
    if found.outcome == "unverified":
        assert len(groups) == 1
    if found.outcome == "contested":
        assert len(groups) > 1
    if not found.asks:
        assert sorted((found.best, *found.dissent)) == list(range(len(groups)))


def test_every_way_of_seven_answers_comes_to_an_end() -> None:
    """Whatever agrees with whom, asking on as long as it is said to ends within seven."""
    for answers in set(permutations((0, 0, 0, 1, 1, 2, 2))):
        asked, found = _played(answers)
        assert not found.asks
        assert asked <= RULES.voters_sure_max


def _played(answers: tuple[int, ...]) -> tuple[int, Decision]:
    """How many were asked, and what was decided last."""
    groups: dict[int, list[Voter]] = {}
    for at, answer in enumerate(answers):
        groups.setdefault(answer, []).append(Voter(f"v{at}", 0.85))
        left = [Voter(f"v{other}", 0.85) for other in range(at + 1, 9)]
        found = decide(list(groups.values()), left, Terms(0.98))
        if not found.asks:
            return at + 1, found
    raise AssertionError("it asks on for ever")


def test_where_nobody_is_strong_the_first_answer_is_handed_back() -> None:
    reserve = group(0.75, 0.75, 0.75, 0.75, prefix="r")
    assert decide([group(0.75)], reserve, Terms(0.9, anchored=False)).outcome == "unverified"
    assert decide([group(0.75)], reserve, Terms(0.9)).asks
    assert decide([group(0.95)], reserve, Terms(0.9, anchored=False)).taken


def test_a_deterministic_check_decides_by_itself() -> None:
    assert checked(passed=True) == Decision("verified", 0, 1.0, taken=True)
    assert not checked(passed=False).taken


def test_a_decision_reads_nothing_of_the_world() -> None:
    groups = [group(0.9, 0.8), group(0.7, prefix="w")]
    reserve = group(0.9, 0.9, prefix="r")

    def act() -> None:
        for theta in (0.5, 0.9, 0.99):
            lessons(groups, decide(groups, reserve, Terms(theta)))

    assert outside_calls(act) == []


# --- what is learned ---


def learned(groups: list[list[Voter]], theta: float = 0.9) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for lesson in lessons(groups, decide(groups, [], Terms(theta))):
        found.setdefault(lesson.agent, set()).add(lesson.kind)
    return found


def test_nobody_is_judged_by_its_own_vote() -> None:
    groups = [[Voter("strong", 0.97), Voter("new", 0.4)]]
    assert learned(groups) == {"strong": {"accepted"}, "new": {"accepted", "agreed"}}
    assert posterior_without(groups, 0, "strong") == pytest.approx(0.4)


def test_one_taken_alone_teaches_no_more_than_that() -> None:
    assert learned([[Voter("a", 0.95)]]) == {"a": {"accepted_alone"}}


def test_a_loser_is_marked_where_the_winner_was_very_probable_without_it() -> None:
    sure = [group(0.95, 0.95, 0.95), group(0.6, prefix="w")]
    assert learned(sure)["w0"] == {"outvoted"}
    unsure = [group(0.85, prefix="v"), group(0.4, prefix="w")]
    decision = Decision("agreed", 0, 0.8, taken=True, dissent=(1,))
    assert Lesson("w0", "outvoted") not in lessons(unsure, decision)


def test_agreement_in_one_model_family_teaches_less() -> None:
    alike = [group(0.95, 0.9, family="x")]
    assert learned(alike)["v1"] == {"accepted", "agreed_in_family"}
    mixed = [[*alike[0], Voter("other", 0.9, "y")]]
    assert learned(mixed)["v1"] == {"accepted", "agreed"}


def test_what_is_not_taken_teaches_nothing() -> None:
    assert learned([group(0.5), group(0.5, prefix="w")]) == {}
    assert lessons([group(0.9)], checked(passed=True)) == [], "a check is evidence of its own"
