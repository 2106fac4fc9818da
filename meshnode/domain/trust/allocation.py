"""Who gets a task: by what it is expected to be worth there, with chance where little is known.

The utility of giving a task to an agent is

    U = V · q̃ · l̃ − L · (1 − q̃) − price − τ · latency − price of the expected replicas

in millicredits, with ``q̃`` and ``l̃`` drawn from what is known of its being right and of its
answering in time (Thompson sampling: who is little known is drawn high now and then, so it
is tried as often as it may be the best).  ``V`` is what a right answer is worth, ``L`` what a
wrong one costs, ``τ`` the price of time.

No agent may hold more than 30 % of the value that is out (10 % if it is not strong), or one
task if that is more; seven tasks in a hundred begin with a newcomer, and in a tenth of those
that are to be very sure one is asked beside; who is blocked gets none, and whose name
cost too little only what nobody else is there for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from meshnode.domain.trust.credibility import (
    NOTHING,
    Imported,
    credibility,
    draw_availability,
    draw_credibility,
    is_blocked,
    is_strong,
    may_stand_alone,
    on_probation,
    spot_chance,
)
from meshnode.domain.trust.evidence import Standing
from meshnode.domain.trust.posterior import agreeing, odds_alone
from meshnode.domain.trust.rules import RULES, Rules

if TYPE_CHECKING:
    from random import Random

#: Replicas are asked in the order of their credibility, give or take this.
_SPREAD: Final = 0.08


@dataclass(frozen=True, slots=True)
class Bidder:
    """An agent that offers to do a task.

    Attributes:
        agent: Its id.
        price_mc: For the task, millicredits.
        latency_ms: Until it would be done.
        standing: What this node saw of it.
        imported: What others say.
        open_mc: Value that is out at it, this task not counted.
        family: Of its model, as for :class:`~meshnode.domain.trust.posterior.Voter`.
        operator: Who runs it; empty for unknown.
        network: Where it is, such as a /24; empty for unknown.
        last: It gets a task only where nobody else is there.
    """

    agent: str
    price_mc: int
    latency_ms: int
    standing: Standing
    imported: Imported = NOTHING
    open_mc: int = 0
    family: str = ""
    operator: str = ""
    network: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What a task is worth to its caller; millicredits.

    Attributes:
        value_mc: Of a right answer.
        loss_mc: By a wrong one that was taken.
        delay_mc: Of a second of waiting.
        theta: Least probability of what is taken.
        open_mc: Value that is out at all agents, this task not counted.
        replica_mc: Price of a replica.
        replica_credibility: Of who would do it.
    """

    value_mc: int
    loss_mc: int
    theta: float
    delay_mc: float = 0.0
    open_mc: int = 0
    replica_mc: int = 0
    replica_credibility: float = 0.8


class Placed(NamedTuple):
    """A bidder's place, and what it was decided by.

    Attributes:
        bidder: Which of those given.
        utility_mc: Expected.
        credibility: Drawn.
        availability: Drawn.
        replicas: Expected.
        capped: It holds all that one agent may: behind all others.
        newcomer: It is first because it is new.
        last: As of the bidder: behind even those.
    """

    bidder: int
    utility_mc: float
    credibility: float
    availability: float
    replicas: float
    capped: bool = False
    newcomer: bool = False
    last: bool = False


def rank(
    bidders: Sequence[Bidder], job: Job, rng: "Random", rules: Rules = RULES
) -> list[Placed]:
    """Return who could get the task, the first choice first; who is blocked isn't there.

    Args:
        bidders: In an order of their own, such as by id: chance is drawn in it.
        job: What it is worth.
        rng: Chance.
        rules: See there.
    """
    placed = [
        _place(number, bidder, job, rng, rules)
        for number, bidder in enumerate(bidders)
        if not is_blocked(bidder.standing, bidder.imported, rules)
    ]
    placed.sort(key=_order)
    if rng.random() < rules.newcomers:
        _prefer_newcomer(placed, bidders, rng, rules)
    return placed


def is_capped(bidder: Bidder, job: Job, rules: Rules = RULES) -> bool:
    """Tell whether the task would give the bidder more of the open value than one may have.

    One task it may have in any case, or nothing could begin.
    """
    if not bidder.open_mc:
        return False
    strong = credibility(bidder.standing, bidder.imported, rules) >= rules.strong
    share = rules.share_max if strong else rules.share_weak_max
    return bidder.open_mc + job.value_mc > share * (job.open_mc + job.value_mc)


def replicas_expected(
    standing: Standing, imported: Imported, job: Job, rules: Rules = RULES
) -> float:
    """Return how many answers more the task is likely to take.

    Where the agent's answer could be taken alone: the chance of a spot check.  Elsewhere as
    many as must agree, and more for the chance that it is wrong and must be outvoted.
    """
    chance = credibility(standing, imported, rules)
    if chance >= job.theta and may_stand_alone(standing, imported, rules):
        return spot_chance(standing, imported, rules)
    needed = _needed(chance, job.replica_credibility, job.theta, rules)
    return needed + rules.dissent * (1.0 - chance)


def _needed(chance: float, other: float, theta: float, rules: Rules) -> float:
    """Return how many that are all as credible must agree, to make θ: the posterior's odds.

    Worked out here because a task is ranked by it for every bidder.
    """
    each = agreeing(other, rules)
    if chance < other:  # the first of all, or left out where the others do better without
        lowest, rest = odds_alone(chance) * each, odds_alone(other)
    else:
        lowest, rest = 0.0, odds_alone(other) * agreeing(chance, rules)
    best = max(lowest, rest if chance >= other else 0.0)
    wanted = odds_alone(theta)
    needed = 1
    while best < wanted and needed < rules.answers_max(theta) - 1:
        needed += 1
        lowest *= each
        rest *= each
        best = max(best, lowest, rest)
    return float(needed)


def reserve(
    bidders: Sequence[Bidder], first: int, job: Job, rng: "Random", rules: Rules = RULES
) -> list[int]:
    """Return who would be asked after the first choice, in that order.

    The most credible first, give or take a little by chance, so that nobody can be sure to
    sit beside its friends; whoever is of another model family, operator and network than the
    first choice before who isn't, who is at its cap after them, and last of all who is to be
    asked last.  Now and then a newcomer before all others who aren't, where the task is to be
    very sure and the first choice is strong: several are asked then anyway, and else nobody
    new could become as good a choice as those long known.
    """
    chosen = bidders[first]
    rows = []
    for number, bidder in enumerate(bidders):
        drawn = _SPREAD * rng.random()
        if number == first or is_blocked(bidder.standing, bidder.imported, rules):
            continue
        chance = credibility(bidder.standing, bidder.imported, rules) + drawn
        capped = is_capped(bidder, job, rules)
        rows.append((bidder.last, capped, _is_near(bidder, chosen), -chance, number))
    order = [row[-1] for row in sorted(rows)]
    sure = job.theta >= rules.sure
    if (
        sure
        and is_strong(chosen.standing, chosen.imported, rules)
        and rng.random() < rules.beside
    ):
        _introduce(order, bidders, rng, rules)
    return order


def _introduce(
    order: list[int], bidders: Sequence[Bidder], rng: "Random", rules: Rules
) -> None:
    """Put one of the newcomers first among those who are asked beside the first choice."""
    new = [
        place
        for place, number in enumerate(order)
        if on_probation(bidders[number].standing, bidders[number].imported, rules)
        and bidders[number].last == bidders[order[0]].last
    ]
    if new:
        order.insert(0, order.pop(new[int(rng.random() * len(new))]))


def _place(number: int, bidder: Bidder, job: Job, rng: "Random", rules: Rules) -> Placed:
    standing, imported = bidder.standing, bidder.imported
    right = draw_credibility(standing, imported, rng, rules)
    there = draw_availability(standing, rng, rules)
    replicas = replicas_expected(standing, imported, job, rules)
    utility_mc = (
        job.value_mc * right * there
        - job.loss_mc * (1.0 - right)
        - bidder.price_mc
        - job.delay_mc * bidder.latency_ms / 1000.0
        - job.replica_mc * replicas
    )
    capped = is_capped(bidder, job, rules)
    return Placed(number, utility_mc, right, there, replicas, capped=capped, last=bidder.last)


def _order(placed: Placed) -> tuple[bool, bool, float, int]:
    return placed.last, placed.capped, -placed.utility_mc, placed.bidder


def _prefer_newcomer(
    placed: list[Placed], bidders: Sequence[Bidder], rng: "Random", rules: Rules
) -> None:
    """Put one of the newcomers first, any with the same chance."""
    new = [
        place
        for place, row in enumerate(placed)
        if not row.capped
        and row.last == placed[0].last
        and on_probation(bidders[row.bidder].standing, bidders[row.bidder].imported, rules)
    ]
    if new:
        chosen = placed.pop(new[int(rng.random() * len(new))])
        placed.insert(0, chosen._replace(newcomer=True))


def _is_near(bidder: Bidder, other: Bidder) -> bool:
    return (
        (bidder.family != "" and bidder.family == other.family)
        or (bidder.operator != "" and bidder.operator == other.operator)
        or (bidder.network != "" and bidder.network == other.network)
    )
