"""How sure a unit's answers are, and who is asked for another: a job's judgements.

This is where a job meets :mod:`meshnode.domain.trust`: bidders, voters and answers go in, and
the event comes out that holds what was found, with all that it drew on.  Chance is given.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Literal

from meshnode.domain.facts import Judged, Vote
from meshnode.domain.matching import MS_PER_MC, Candidate, finish_ms
from meshnode.domain.replicas import ANSWERS_MAX
from meshnode.domain.trust.acceptance import Decision, Lesson, Terms, decide, lessons
from meshnode.domain.trust.allocation import Bidder, Job, rank, reserve
from meshnode.domain.trust.credibility import (
    credibility,
    is_spot_check,
    is_strong,
    may_stand_alone,
)
from meshnode.domain.trust.posterior import Voter
from meshnode.domain.trust.rules import RULES, Rules
from meshnode.domain.units import Unit
from protocol.receipts import Verdict

if TYPE_CHECKING:
    from random import Random

#: What a right answer is worth, and a wrong one costs, in what it takes to get one.
WORTH: Final = 10
#: Agents that a judgement names, at most.
_ASK_MAX: Final = 16
_MILLION: Final = 1_000_000

SPOT: Final = "spot"
ALARM: Final = "alarm"


def stake(offered: Sequence[Candidate], *, calls: int, theta_ppm: int, out: int) -> Job:
    """Return what a unit is worth: so many times what it takes at the middle of the bidders.

    What it takes is its price, and its time turned into money as everywhere
    (:data:`~meshnode.domain.matching.MS_PER_MC`); so a unit that costs nothing has a worth too.

    Args:
        offered: Who could do it; where nobody is left, nothing is to be chosen by it.
        calls: Agent calls in it.
        theta_ppm: How sure its answer is to be.
        out: Units of this broker that are out.
    """
    if not offered:
        return Job(1, 1, theta_ppm / _MILLION)
    price_mc = round(median(one.price_mc * calls for one in offered))
    time_ms = median(finish_ms(one, calls, {}) for one in offered)
    value_mc = max(1, round(WORTH * (price_mc + time_ms / MS_PER_MC)))
    return Job(
        value_mc=value_mc,
        loss_mc=value_mc,
        theta=theta_ppm / _MILLION,
        delay_mc=1000.0 / MS_PER_MC,
        open_mc=out * value_mc,
        replica_mc=price_mc,
    )


@dataclass(frozen=True, slots=True)
class Bench:
    """Who could be asked, and by what they are chosen.

    Attributes:
        bidders: Ordered by id: chance is drawn in that order.
        job: What the unit is worth.
        rng: Chance.
        alarmed: Agents that were believed have just been proven wrong.
        rules: See there.
    """

    bidders: Sequence[Bidder]
    job: Job
    rng: "Random"
    alarmed: bool = False
    rules: Rules = RULES

    def voter(self, bidder: Bidder) -> Voter:
        """Return a bidder as one who gives an answer."""
        chance = credibility(bidder.standing, bidder.imported, self.rules)
        return Voter(bidder.agent, chance, bidder.family)

    def may_stand_alone(self, bidder: Bidder) -> bool:
        """Tell whether its answer may be taken with nobody else's."""
        return not self.alarmed and may_stand_alone(
            bidder.standing, bidder.imported, self.rules
        )

    def is_anchored(self, others: Iterable[Bidder] = ()) -> bool:
        """Tell whether somebody is strong, of those who could be asked and ``others``."""
        return any(
            is_strong(one.standing, one.imported, self.rules)
            for one in (*self.bidders, *others)
        )


def begin(unit: str, bench: Bench, *, checked: bool) -> Judged:
    """Return who is asked first for a unit, and who beside it at once.

    As many are asked at once as are needed anyway, if all agree.

    Args:
        unit: Its name.
        bench: Who could be.
        checked: The graph names a check, which may decide with one answer.
    """
    placed = rank(bench.bidders, bench.job, bench.rng, bench.rules)
    if not placed:
        return Judged(unit=unit, wanted=1)
    first = placed[0].bidder
    order = [first, *reserve(bench.bidders, first, bench.job, bench.rng, bench.rules)]
    asked = [bench.bidders[place] for place in order]
    wanted = 1 if checked else _needed(bench, asked)
    return Judged(
        unit=unit,
        wanted=wanted,
        ask=[bidder.agent for bidder in asked[:_ASK_MAX]],
        why=ALARM if bench.alarmed else "",
    )


def _needed(bench: Bench, asked: Sequence[Bidder]) -> int:
    """Return how many of ``asked`` must answer, in that order, if all agree."""
    voters = [bench.voter(bidder) for bidder in asked]
    terms = Terms(
        bench.job.theta,
        alone=bench.may_stand_alone(asked[0]),
        anchored=bench.is_anchored(),
    )
    wanted = 1
    while wanted < min(len(voters), ANSWERS_MAX):
        if not decide([voters[:wanted]], voters[wanted:], terms, bench.rules).asks:
            break
        wanted += 1
    return wanted


def go_on(
    unit: Unit, groups: Sequence[Sequence[int]], voters: Sequence[Bidder], bench: Bench
) -> tuple[Judged, list[Lesson]]:
    """Return what a unit's answers ask for, or are worth, and what that teaches.

    Args:
        unit: It has an answer at least.
        groups: Places of its answers, those that say the same together.
        voters: Who gave each of them.
        bench: Who else could be asked.
    """
    spotted = unit.judged is not None and unit.judged.why == SPOT
    alone = bench.may_stand_alone(voters[0]) and not spotted
    terms = Terms(bench.job.theta, alone=alone, anchored=bench.is_anchored(voters))
    said = [[bench.voter(voters[place]) for place in group] for group in groups]
    others = _others(bench, voters[0])
    left = [bench.voter(bidder) for bidder in others]
    decision = decide(said, left, terms, bench.rules)
    why = SPOT if spotted else ALARM if bench.alarmed else ""
    if decision.taken and len(voters) == 1 and left and not spotted:
        sole = voters[0]
        if is_spot_check(sole.standing, sole.imported, bench.rng, bench.rules):
            decision, why = Decision("", 0, decision.posterior, taken=False), SPOT
    judged = Judged(
        unit=unit.name,
        outcome=_outcome(decision),
        posterior_ppm=round(decision.posterior * _MILLION),
        chosen=-1 if decision.asks else unit.answers()[min(groups[decision.best])].number,
        wanted=len(voters) + 1 if decision.asks else 0,
        ask=[bidder.agent for bidder in others[:_ASK_MAX]] if decision.asks else [],
        votes=_votes(unit, groups, voters, bench, decision),
        why=why,
    )
    return judged, [] if decision.asks else lessons(said, decision, bench.rules)


def _others(bench: Bench, first: Bidder) -> list[Bidder]:
    """Return who would be asked next, in that order, beside who was ``first``."""
    order = reserve((first, *bench.bidders), 0, bench.job, bench.rng, bench.rules)
    return [bench.bidders[place - 1] for place in order]


def _outcome(decision: Decision) -> Literal["", "agreed", "contested", "unverified"]:
    assert decision.outcome != "verified", "only a check says so"
    return decision.outcome


def _votes(
    unit: Unit,
    groups: Sequence[Sequence[int]],
    voters: Sequence[Bidder],
    bench: Bench,
    decision: Decision,
) -> list[Vote]:
    answers = unit.answers()
    group_of = {place: number for number, group in enumerate(groups) for place in group}
    return [
        Vote(
            attempt=answers[place].number,
            agent=bidder.agent,
            credibility_ppm=int(bench.voter(bidder).credibility * _MILLION),
            group=group_of[place],
            family=bidder.family,
            verdict=_verdict(decision, group_of[place]),
        )
        for place, bidder in enumerate(voters)
    ]


def _verdict(decision: Decision, group: int) -> Verdict | Literal[""]:
    """Return what is said of an answer.

    Whatever is handed to the job's owner is paid: who could have an answer for nothing by
    asking for more certainty than there is would do so.
    """
    if decision.taken and group != decision.best:
        return "rejected"
    return decision.outcome
