"""Judgements, and what a journal may not say of them."""

from collections.abc import Sequence
from random import Random

import pytest
from typing_extensions import override

from meshnode.domain.facts import Awarded, Delivered, Judged, Planned, Verified, Vote
from meshnode.domain.judging import ALARM, SPOT, Bench, begin, go_on, stake
from meshnode.domain.matching import MS_PER_MC, Candidate
from meshnode.domain.replicas import ANSWERS_MAX, check_judged, check_replica, judge
from meshnode.domain.trust.allocation import Bidder, Job
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.units import SINGLE, Attempt, Unit
from protocol.contract import ContractState
from protocol.errors import Malformed, OutOfTurn


class Drawn(Random):
    """Chance that always comes out as it is told to, but for Beta distributions."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    @override
    def random(self) -> float:
        return self.value

    @override
    def betavariate(self, alpha: float, beta: float) -> float:
        return alpha / (alpha + beta)


def known(golds: int) -> Standing:
    return fold([Evidence("gold_passed")] * golds)


def bidders(*golds: int) -> list[Bidder]:
    return [
        Bidder(f"p{n}/a", price_mc=1, latency_ms=1, standing=known(count))
        for n, count in enumerate(golds)
    ]


def bench(
    who: Sequence[Bidder], theta: float, *, draw: float = 0.99, alarm: bool = False
) -> Bench:
    return Bench(who, Job(100, 100, theta), Drawn(draw), alarmed=alarm)


def answered(count: int) -> Unit:
    """A unit with so many answers that wait."""
    unit = Unit("say/0", "say", 0, SINGLE)
    for number in range(count):
        attempt = Attempt(number, 0, ContractState.DELIVERED, peer=f"p{number}", agent="a")
        attempt.award, attempt.replica = b"award", 10 + number
        attempt.delivered = Delivered(
            unit="say/0", attempt=number, result=b"", receipt=b"", output=b"", size=0,
            lengths={}, price_mc=1, run_ms=1,
        )  # fmt: skip
        attempt.verdict = Verified(unit="say/0", attempt=number, verdict="unverified", check="")
        unit.attempts.append(attempt)
    return unit


# --- who is asked ---


def test_as_many_are_asked_at_once_as_must_agree() -> None:
    who = bidders(8, 8, 8, 8)
    assert begin("say/0", bench(who, 0.90), checked=False).wanted == 2
    assert begin("say/0", bench(who, 0.98), checked=False).wanted == 3
    assert begin("say/0", bench(who, 0.98), checked=True).wanted == 1, "a check decides"


def test_one_that_is_known_well_is_asked_alone_unless_there_is_an_alarm() -> None:
    who = bidders(40, 40, 40)
    assert begin("say/0", bench(who, 0.90), checked=False).wanted == 1
    alarmed = begin("say/0", bench(who, 0.90, alarm=True), checked=False)
    assert (alarmed.wanted, alarmed.why) == (2, ALARM)


def test_where_nobody_is_strong_one_is_asked() -> None:
    assert begin("say/0", bench(bidders(0, 0, 1), 0.90), checked=False).wanted == 1
    assert begin("say/0", bench([], 0.90), checked=False) == Judged(unit="say/0", wanted=1)


def test_a_unit_is_worth_ten_times_what_it_takes_at_the_middle_of_those_who_offer_it() -> None:
    def offer(price_mc: int, latency_ms: int) -> Candidate:
        return Candidate(
            peer="p", agent="a", capability="c.d@1", price_mc=price_mc, latency_ms=latency_ms,
            concurrency=1, offer=b"o", alive=True,
        )  # fmt: skip

    offered = [offer(10, 100), offer(20, 200), offer(90, 900)]
    job = stake(offered, calls=2, theta_ppm=900_000, out=3)
    assert (job.replica_mc, job.theta) == (40, 0.9)
    assert job.value_mc == job.loss_mc == 10 * (40 + 400 / MS_PER_MC)
    assert job.open_mc == 3 * job.value_mc
    free = stake([offer(0, 100)], calls=1, theta_ppm=900_000, out=0)
    assert free.value_mc == 10 * 100 / MS_PER_MC, "time has its worth where money has none"
    assert stake([], calls=1, theta_ppm=900_000, out=1).theta == 0.9, "they have all gone"


# --- what answers are worth ---


def test_an_answer_of_one_that_is_known_well_is_taken_unless_chance_wants_another() -> None:
    who = bidders(40, 40, 40)
    unit = answered(1)
    judged, learned = go_on(unit, [[0]], who[:1], bench(who[1:], 0.90))
    assert (judged.outcome, judged.chosen) == ("agreed", 0)
    assert [lesson.kind for lesson in learned] == ["accepted_alone"]
    judged, learned = go_on(unit, [[0]], who[:1], bench(who[1:], 0.90, draw=0.0))
    assert (judged.outcome, judged.wanted, judged.why) == ("", 2, SPOT)
    assert not learned
    assert judged.ask
    unit.judged = judged
    again, _ = go_on(unit, [[0]], who[:1], bench(who[1:], 0.90))
    assert (again.outcome, again.why) == ("", SPOT), "what chance wanted isn't forgotten"


def test_one_that_owes_golds_is_not_taken_alone_however_credible() -> None:
    standing = known(40)
    standing.owed = 1
    sole = Bidder("p0/a", price_mc=1, latency_ms=1, standing=standing)
    judged, _ = go_on(answered(1), [[0]], [sole], bench(bidders(0, 40, 40)[1:], 0.90))
    assert (judged.outcome, judged.wanted) == ("", 2)
    alone, _ = go_on(answered(1), [[0]], [sole], bench([], 0.90))
    assert alone.outcome == "unverified"


def test_who_disagrees_with_what_is_taken_is_refused_and_else_nobody_is() -> None:
    who = bidders(20, 20, 20, 2)
    judged, learned = go_on(answered(4), [[0, 1, 2], [3]], who, bench([], 0.95))
    assert judged.outcome == "agreed"
    assert [vote.verdict for vote in judged.votes] == ["agreed"] * 3 + ["rejected"]
    assert ("p3/a", "outvoted") in {(lesson.agent, lesson.kind) for lesson in learned}
    judged, learned = go_on(answered(2), [[0], [1]], who[:2], bench([], 0.95))
    assert judged.outcome == "contested"
    assert [vote.verdict for vote in judged.votes] == ["contested"] * 2
    assert not learned


# --- what can't follow ---


def award(number: int, peer: str, replica: int) -> Awarded:
    return Awarded(
        unit="say/0", attempt=number, peer=peer, agent="a", award=b"", proposal=b"", schema=b"",
        price_cap_mc=1, lease_ms=1, ranked=[], replica=replica,
    )  # fmt: skip


def plan(theta_ppm: int) -> Planned:
    return Planned(
        owner="o", graph=b"", inputs={}, budget_mc=1, deadline_ms=1, idempotency_key="",
        epoch=0, theta_ppm=theta_ppm,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("theta_ppm", "count", "peer", "replica", "why"),
    [
        (0, 1, "q", 99, "is open"),
        (900_000, 1, "p0", 99, "already"),
        (900_000, 1, "q", 10, "replica 10 already"),
        (900_000, ANSWERS_MAX, "q", 99, "7 answers"),
    ],
)
def test_a_replica_that_the_plan_does_not_allow(
    theta_ppm: int, count: int, peer: str, replica: int, why: str
) -> None:
    check_replica(plan(900_000), answered(1), award(1, "q", 99))
    with pytest.raises(OutOfTurn, match=why):
        check_replica(plan(theta_ppm), answered(count), award(count, peer, replica))


def votes(*numbers: int, said: bool = True) -> list[Vote]:
    return [
        Vote(
            attempt=number,
            agent=f"p{number}/a",
            credibility_ppm=1,
            group=0,
            verdict="agreed" if said else "",
        )
        for number in numbers
    ]


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (Judged(unit="say/0", outcome="agreed", chosen=0, votes=votes(0)), "other answers"),
        (Judged(unit="say/0", wanted=3, votes=votes(0, 1, 2)), "other answers"),
        (Judged(unit="say/0", outcome="agreed", chosen=7, votes=votes(0, 1)), "no answer 7"),
        (Judged(unit="say/0", chosen=1, votes=votes(0, 1)), "no answer 1"),
        (
            Judged(unit="say/0", outcome="agreed", chosen=0, votes=votes(0, 1, said=False)),
            "no verdict",
        ),
    ],
)
def test_a_judgement_that_is_of_something_else(fact: Judged, why: str) -> None:
    with pytest.raises(OutOfTurn, match=why):
        judge(answered(2), fact, 0)


def test_nothing_is_judged_twice() -> None:
    unit = answered(2)
    fact = Judged(unit="say/0", outcome="agreed", chosen=1, votes=votes(0, 1))
    judge(unit, fact, 0)
    checks = [attempt.verdict.check for attempt in unit.attempts if attempt.verdict]
    assert checks == ["2 of 2"] * 2
    with pytest.raises(OutOfTurn, match="settled"):
        judge(unit, fact, 0)


class State:
    """As much of a job as a judgement is held against."""

    def __init__(self, theta_ppm: int) -> None:
        self.required_plan = plan(theta_ppm)
        self.units = {"say/0": answered(2)}


def judged_at(posterior_ppm: int, first: str = "p0/a") -> Judged:
    vote = Vote(attempt=0, agent=first, credibility_ppm=1, group=0, verdict="agreed")
    return Judged(
        unit="say/0", outcome="agreed", chosen=0, posterior_ppm=posterior_ppm,
        votes=[vote, *votes(1)],
    )  # fmt: skip


def test_a_journal_can_not_say_agreed_of_less_than_was_asked_for() -> None:
    check_judged(State(950_000), judged_at(950_000))  # type: ignore[arg-type]  # enough of it
    for theta_ppm, fact, why in (
        (0, judged_at(950_000), "doesn't compare"),
        (960_000, judged_at(950_000), "960000 are asked for"),
        (950_000, judged_at(960_000, first="p9/a"), "isn't of"),
    ):
        with pytest.raises(Malformed, match=why):
            check_judged(State(theta_ppm), fact)  # type: ignore[arg-type]  # likewise
