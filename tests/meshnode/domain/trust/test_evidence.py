"""What one buyer saw of an agent, and what it makes of it."""

from fractions import Fraction
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import (
    Imported,
    availability,
    credibility,
    is_blocked,
    may_stand_alone,
    on_probation,
)
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.trust.rules import DAY_MS, KINDS, RULES, UNIT_MU, Kind, Rules, mu
from tests.meshnode.domain.purity import outside_calls

FOR: tuple[Kind, ...] = ("gold_passed", "check_passed", "agreed", "agreed_in_family")
AGAINST: tuple[Kind, ...] = (
    *("gold_failed", "check_failed", "caught", "outvoted"),
    *("overclaimed", "unlike"),
)
#: What doesn't say that an agent is right or wrong.
ELSE = tuple(kind for kind in KINDS if kind not in (*FOR, *AGAINST))

amounts = st.integers(0, 60 * UNIT_MU)
imports = st.builds(Imported, amounts, amounts)
#: Days are few, so that many events share one, and some pauses are long.
events = st.builds(
    Evidence, st.sampled_from(KINDS), st.integers(0, 400).map(lambda day: day * DAY_MS // 3)
)
histories = st.lists(events, max_size=60).map(
    lambda some: sorted(some, key=lambda event: event.at_ms)
)


def several(count: int, kind: Kind) -> list[Evidence]:
    return [Evidence(kind) for _ in range(count)]


def believed(*parts: list[Evidence]) -> float:
    return credibility(fold([event for part in parts for event in part]))


def after(standing: Standing, kind: Kind) -> Standing:
    """A copy that learned one thing more, at once."""
    copy = msgspec.convert(msgspec.to_builtins(standing), Standing)
    copy.learn(Evidence(kind, standing.day * DAY_MS))
    return copy


def test_a_newcomer_is_believed_less_than_half_and_a_member_accountable() -> None:
    assert credibility(Standing()) == pytest.approx(0.40)
    assert believed(several(1, "member")) == pytest.approx(0.80)
    assert believed(several(1, "vouched")) == pytest.approx(9 / 10.5)
    assert availability(Standing()) == pytest.approx(0.80)


@given(histories, imports)
def test_credibility_is_monotone_in_evidence(past: list[Evidence], heard: Imported) -> None:
    standing = fold(past)
    now = credibility(standing, heard)
    for kind in FOR:
        assert credibility(after(standing, kind), heard) >= now, kind
    for kind in AGAINST:
        assert credibility(after(standing, kind), heard) <= now, kind
    for kind in ("accepted", "accepted_alone", "served", "absent"):
        assert credibility(after(standing, kind), heard) == now, kind
    assert availability(after(standing, "served")) >= availability(standing)
    assert availability(after(standing, "absent")) <= availability(standing)


@pytest.mark.parametrize("kind", FOR)
def test_even_where_most_is_known_small_evidence_for_an_agent_does_not_lower_it(
    kind: Kind,
) -> None:
    standing = fold(several(2_000, "gold_passed") + several(1, "outvoted"))
    assert credibility(after(standing, kind)) >= credibility(standing)
    assert after(standing, kind).for_mu >= standing.for_mu - 1


@given(histories, imports)
def test_credibility_stays_within_its_limits(past: list[Evidence], heard: Imported) -> None:
    assert 0.0 <= credibility(fold(past), heard) <= RULES.credibility_max
    assert 0.0 < availability(fold(past)) < 1.0


@given(histories, st.data())
def test_a_restart_changes_nothing(past: list[Evidence], data: st.DataObject) -> None:
    """Cut anywhere, kept as bytes, read again and gone on with: the same to the bit."""
    cut = data.draw(st.integers(0, len(past)))
    kept = msgspec.msgpack.encode(fold(past[:cut]))
    standing = msgspec.msgpack.decode(kept, type=Standing)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(past[cut:]), type=list[Evidence])
    for event in read:
        standing.learn(event)
    assert standing == fold(past)
    assert msgspec.msgpack.encode(standing) == msgspec.msgpack.encode(fold(past))


@given(histories, st.integers(0, 500))
def test_looking_is_no_evidence(past: list[Evidence], day: int) -> None:
    looked, other = Standing(), Standing()
    for event in past:
        looked.learn(event)
        looked.at(day * DAY_MS)
        other.learn(event)
    assert looked == other


def test_the_fold_reads_nothing_of_the_world() -> None:
    past = [Evidence(kind, at * DAY_MS) for at, kind in enumerate(KINDS * 3)]
    assert outside_calls(lambda: fold(past)) == []


def test_evidence_counts_half_after_fifty_more() -> None:
    bad_mu = [
        one.bad_mu for one in _along(several(1, "outvoted") + several(50, "check_passed"))
    ]
    assert bad_mu[-1] == pytest.approx(bad_mu[0] / 2, rel=1e-3)


def _along(past: list[Evidence]) -> list[Standing]:
    """How it stood after each event."""
    return [fold(past[: end + 1]) for end in range(len(past))]


def test_idle_days_fade_what_was_seen_and_not_what_it_began_with() -> None:
    seen = fold(several(1, "member") + several(10, "gold_passed"))
    later = seen.at(31 * DAY_MS)
    assert later.good_mu == pytest.approx(seen.good_mu / 2, rel=1e-6)
    assert later.prior_mu == seen.prior_mu
    assert seen.at(DAY_MS) is seen, "no day has passed idle"
    later.learn(Evidence("gold_passed", 31 * DAY_MS))
    direct = fold(several(1, "member") + several(10, "gold_passed"))
    direct.learn(Evidence("gold_passed", 31 * DAY_MS))
    assert (direct.good_mu, direct.prior_mu) == (later.good_mu, later.prior_mu)


def test_idle_days_pass_once() -> None:
    later = [Evidence("gold_passed", 61 * DAY_MS), Evidence("gold_passed", 62 * DAY_MS)]
    standing = fold([*several(10, "outvoted"), *later])
    halved_mu = fold(several(10, "outvoted")).bad_mu / 4
    assert standing.bad_mu == pytest.approx(halved_mu, rel=0.03)
    assert standing.at(62 * DAY_MS) is standing


def test_the_fold_is_the_formula_worked_out_exactly() -> None:
    """In fractions (a ← a (1 − f) + 1), against whole millionths."""
    keep = 1 - Fraction(RULES.forgotten_mu, UNIT_MU)
    exact = list(accumulate(range(100), lambda a, _: a * keep + 1, initial=Fraction(0)))
    standing = fold(several(100, "gold_passed"))
    assert abs(exact[-1] * UNIT_MU - standing.good_mu) < 100


def test_who_was_proven_wrong_loses_half_and_owes_three_golds() -> None:
    past = several(20, "check_passed")
    assert may_stand_alone(fold(past))
    caught = fold(past + several(1, "caught"))
    assert caught.good_mu == pytest.approx(fold(past).good_mu / 2, rel=0.02)
    assert not may_stand_alone(caught)
    for golds in range(3):
        assert not may_stand_alone(fold(past + several(1, "caught") + several(golds, FOR[0])))
        assert not may_stand_alone(
            fold(past + several(1, "caught") + several(golds, FOR[0]) + several(9, FOR[1]))
        ), "only golds count"
    assert may_stand_alone(fold(past + several(1, "caught") + several(3, FOR[0])))


def test_three_times_taken_alone_is_the_most_between_two_golds() -> None:
    past = several(20, "check_passed")
    assert may_stand_alone(fold(past + several(2, "accepted_alone") + several(9, "accepted")))
    exposed = past + several(3, "accepted_alone")
    assert not may_stand_alone(fold(exposed))
    assert not may_stand_alone(fold([*exposed, Evidence("check_passed")]))
    assert may_stand_alone(fold([*exposed, Evidence("gold_passed")]))


def test_who_is_not_known_is_on_probation_and_who_did_wrong_is_blocked() -> None:
    assert on_probation(Standing())
    assert not may_stand_alone(Standing())
    assert on_probation(fold(several(1, "gold_passed")))
    assert not on_probation(fold(several(3, "gold_passed")))
    assert not is_blocked(Standing()), "a newcomer has done no wrong"
    assert is_blocked(fold(several(1, "gold_failed")))
    assert not is_blocked(Standing(), Imported(0, 12 * UNIT_MU)), "others can't block anybody"


def test_absence_says_nothing_of_truth_nor_acceptance_of_either() -> None:
    past = several(10, "gold_passed")
    assert believed(past, several(30, "absent")) == believed(past)
    assert believed(several(30, "accepted")) == credibility(Standing())


def test_equivocation_ends_it() -> None:
    standing = fold(several(50, "gold_passed") + several(1, "equivocated"))
    assert credibility(standing) == 0.0
    assert is_blocked(standing)
    assert not may_stand_alone(standing)


def test_who_is_well_known_gains_nothing_by_an_invite() -> None:
    past = several(20, "gold_passed")
    assert believed(past, several(1, "vouched")) == believed(past)
    assert believed(several(1, "member"), several(1, "vouched")) == pytest.approx(9 / 10.5)


@given(st.lists(st.tuples(st.sampled_from("abc"), events), max_size=40))
def test_a_book_filled_again_says_the_same(past: list[tuple[str, Evidence]]) -> None:
    book, again = Book(), Book.of(past)
    for agent, event in past:
        book.learn(agent, event)
    assert dict(book.standings) == dict(again.standings)
    assert book.standing("nobody") == Standing()


def test_every_kind_is_known_and_other_rules_are_other_effects() -> None:
    for kind in KINDS:
        Standing().learn(Evidence(kind))
    assert set(RULES.effects) == {*FOR, *AGAINST}
    assert Rules(agreed=1.0).effects["agreed"] == RULES.effects["check_passed"]
    assert mu(0.34) == 340_000
