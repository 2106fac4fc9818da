"""Who gets a task, and which golds are due."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.trust.allocation import (
    Bidder,
    Job,
    is_capped,
    rank,
    replicas_expected,
    reserve,
)
from meshnode.domain.trust.credibility import NOTHING, credibility, is_blocked, is_strong
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.trust.golds import Alarm, gold_is_due, introduction
from meshnode.domain.trust.posterior import Voter, posteriors
from meshnode.domain.trust.rules import RULES, Kind, Rules

#: No chance of a newcomer's slot.
SETTLED = Rules(newcomers=0.0)
JOB = Job(value_mc=5_000, loss_mc=5_000, theta=0.9, replica_mc=1_000)


def known(good: int = 0, bad: int = 0, **more: int) -> Standing:
    kinds: dict[Kind, int] = {"outvoted": 3 * bad, "check_passed": good}
    kinds |= {
        kind: more[kind] for kind in ("accepted_alone", "absent", "served") if kind in more
    }
    return fold(Evidence(kind) for kind, times in kinds.items() for _ in range(times))


SERVING = known(40, served=60)


def bidder(
    agent: str, standing: Standing, price_mc: int = 1_000, latency_ms: int = 0
) -> Bidder:
    return Bidder(agent, price_mc, latency_ms, standing)


def firsts(bidders: Sequence[Bidder], job: Job = JOB, rules: Rules = SETTLED) -> Counter[str]:
    """Who is first how often in 400 draws."""
    rng = Random(5)
    return Counter(bidders[rank(bidders, job, rng, rules)[0].bidder].agent for _ in range(400))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (bidder("a", SERVING), bidder("b", known(40, 20, served=60))),
        (bidder("a", SERVING), bidder("b", SERVING, price_mc=2_000)),
        (bidder("a", SERVING), bidder("b", SERVING, latency_ms=8_000)),
        (bidder("a", SERVING), bidder("b", known(40, absent=30))),
        (bidder("a", SERVING), bidder("b", known(40, served=60, accepted_alone=3))),
    ],
)
def test_the_better_of_two_is_nearly_always_first(better: Bidder, worse: Bidder) -> None:
    found = firsts([better, worse], replace(JOB, delay_mc=500.0))
    assert found["a"] > 360


def test_who_may_not_be_taken_alone_costs_a_replica() -> None:
    plain, exposed = known(40), known(40, accepted_alone=3)
    assert replicas_expected(plain, NOTHING, JOB) < 0.1
    wrong = 1 - credibility(exposed)
    assert replicas_expected(exposed, NOTHING, JOB) == 1 + RULES.dissent * wrong
    assert replicas_expected(Standing(), NOTHING, JOB) > 2.0


@given(st.floats(0.05, 0.97), st.floats(0.05, 0.98), st.floats(0.5, 0.99))
def test_expected_replicas_are_those_that_the_posterior_wants(
    chance: float, other: float, theta: float
) -> None:
    job, rules = Job(1, 1, theta, replica_credibility=other), Rules(dissent=0.0)
    odd = _standing_of(chance)
    group = [Voter("", credibility(odd))]
    while len(group) < RULES.answers_max(theta):
        group.append(Voter("", other))
        if posteriors([group], voices_min=2)[0] >= theta * (1 + 1e-9):
            break
    assert replicas_expected(odd, NOTHING, job, rules) in {len(group) - 1, len(group) - 2}
    if posteriors([group], voices_min=2)[0] > theta * (1 + 1e-6):
        assert replicas_expected(odd, NOTHING, job, rules) == len(group) - 1


def _standing_of(chance: float) -> Standing:
    """One of about that credibility, that may not be taken alone."""
    bad = max(0.0, 60 * (1 - chance) - 1.5)
    return Standing(good_mu=int(60e6 * chance), bad_mu=int(bad * 1e6), owed=1)


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Bidder], Job]:
    """Bidders of all kinds, and what is out at them."""
    count = draw(st.integers(1, 8))
    some = [
        Bidder(
            agent=f"a{at}",
            price_mc=draw(st.integers(0, 4_000)),
            latency_ms=draw(st.integers(0, 60_000)),
            standing=known(draw(st.integers(0, 20)), draw(st.integers(0, 5))),
            open_mc=draw(st.integers(0, 20)) * 1_000,
            family=draw(st.sampled_from(["", "x", "y"])),
            operator=draw(st.sampled_from(["", "o", "p"])),
        )
        for at in range(count)
    ]
    job = Job(
        value_mc=draw(st.integers(0, 20_000)),
        loss_mc=draw(st.integers(0, 20_000)),
        theta=draw(st.floats(0.5, 0.99)),
        open_mc=sum(one.open_mc for one in some) + draw(st.integers(0, 9)) * 1_000,
    )
    return some, job


@given(markets(), st.integers())
def test_caps_hold_and_who_is_blocked_gets_nothing(
    market: tuple[list[Bidder], Job], seed: int
) -> None:
    bidders, job = market
    placed = rank(bidders, job, Random(seed), Rules(newcomers=0.5))
    allowed = {
        at for at, one in enumerate(bidders) if not is_blocked(one.standing, one.imported)
    }
    assert {row.bidder for row in placed} == allowed
    capped = [is_capped(bidders[row.bidder], job) for row in placed]
    assert capped == sorted(capped), "behind all others"
    for one in bidders:
        share = RULES.share_max if is_strong(one.standing) else RULES.share_weak_max
        out_mc = one.open_mc + job.value_mc
        if one.open_mc and not is_capped(one, job):
            assert out_mc <= share * (job.open_mc + job.value_mc)
    if placed:
        order = reserve(bidders, placed[0].bidder, job, Random(seed))
        assert sorted([placed[0].bidder, *order]) == sorted(allowed)


@given(markets(), st.integers())
def test_the_same_chance_gives_the_same_order(
    market: tuple[list[Bidder], Job], seed: int
) -> None:
    bidders, job = market
    assert rank(bidders, job, Random(seed)) == rank(bidders, job, Random(seed))


def test_a_newcomer_begins_one_task_in_twenty() -> None:
    bidders = [bidder("old", known(60)), *(bidder(f"new{at}", Standing()) for at in range(4))]
    chosen = Counter[bool]()
    rng, dear = Random(3), Job(20_000, 80_000, 0.98)
    for _ in range(2_000):
        chosen[rank(bidders, dear, rng)[0].newcomer] += 1
    assert 60 < chosen[True] < 140
    assert not any(rank(bidders, dear, rng, SETTLED)[0].newcomer for _ in range(100))


def test_replicas_come_from_elsewhere_and_the_most_credible_first() -> None:
    first = replace(bidder("first", known(40)), family="x", operator="o", network="n")
    others = [
        replace(bidder("family", known(60)), family="x"),
        replace(bidder("operator", known(60)), operator="o"),
        replace(bidder("network", known(60)), network="n"),
        bidder("weak", known(3)),
        replace(bidder("strong", known(60)), family="y"),
        replace(bidder("full", known(60)), open_mc=50_000),
        bidder("liar", fold([Evidence("gold_failed")])),
    ]
    job = replace(JOB, open_mc=60_000)
    order = [others[at - 1].agent for at in reserve([first, *others], 0, job, Random(1))]
    assert order[:2] == ["strong", "weak"]
    assert set(order[2:5]) == {"family", "operator", "network"}
    assert order[5:] == ["full"]


def test_a_newcomer_is_asked_beside_one_that_is_strong_now_and_then() -> None:
    new = [bidder(f"new{at}", Standing()) for at in range(4)]
    old = [bidder(f"old{at}", known(60)) for at in range(3)]

    def share(first: Bidder, theta: float, rules: Rules = RULES) -> float:
        rng, job = Random(5), Job(20_000, 80_000, theta)
        seconds = [reserve([first, *old, *new], 0, job, rng, rules)[0] for _ in range(2_000)]
        return sum(place > len(old) for place in seconds) / len(seconds)

    strong = bidder("strong", known(60))
    assert share(strong, 0.98) == pytest.approx(RULES.beside, abs=0.02)
    assert share(strong, 0.90) == 0, "one answer may do"
    assert share(bidder("unknown", Standing()), 0.98) == 0, "who could tell?"
    assert share(strong, 0.98, replace(RULES, beside=0.0)) == 0


# --- golds ---


def share_of_golds(standing: Standing, *, second: bool = False, alarmed: bool = False) -> float:
    rng = Random(9)
    due = [
        gold_is_due(standing, NOTHING, rng, second=second, alarmed=alarmed)
        for _ in range(4_000)
    ]
    return sum(due) / len(due)


def test_a_tenth_of_the_tasks_has_a_gold_for_ever() -> None:
    assert share_of_golds(known(2_000)) == pytest.approx(0.10, abs=0.02)
    assert share_of_golds(known(2_000), second=True) == 0
    assert share_of_golds(known(2_000), alarmed=True) == pytest.approx(0.30, abs=0.03)


def test_who_is_new_gets_more_and_who_was_taken_alone_thrice_gets_one_now() -> None:
    assert share_of_golds(Standing()) == pytest.approx(0.55, abs=0.03)
    assert share_of_golds(known(40, accepted_alone=2)) < 0.15
    assert share_of_golds(known(40, accepted_alone=3)) == 1.0
    assert share_of_golds(known(40, accepted_alone=3), second=True) < 0.10
    assert share_of_golds(fold([Evidence("equivocated")])) == 0.0


def test_where_nobody_is_strong_the_best_known_is_introduced() -> None:
    weak = [
        (Standing(), NOTHING),
        (known(2), NOTHING),
        (fold([Evidence("gold_failed")]), NOTHING),
    ]
    assert introduction(weak) == 1
    assert introduction([*weak, (known(40), NOTHING)]) is None
    assert introduction(weak[2:]) is None
    assert introduction([]) is None


def test_two_who_were_believed_and_are_wrong_within_ten_tasks_raise_an_alarm() -> None:
    alarm = Alarm()
    alarm.proven_wrong("a", 0.9, task=1)
    alarm.proven_wrong("a", 0.9, task=2)
    alarm.proven_wrong("b", 0.5, task=3)
    assert not alarm.is_raised(3), "one alone, and one nobody believed"
    alarm.proven_wrong("b", 0.9, task=12)
    assert not alarm.is_raised(12), "too long ago"
    alarm.proven_wrong("c", 0.9, task=13)
    assert alarm.is_raised(13)
    assert alarm.is_raised(23)
    assert not alarm.is_raised(24)
