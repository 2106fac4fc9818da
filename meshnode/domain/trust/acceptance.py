"""When an answer may be taken, when another is worth asking for, and what is learned of it.

A caller says how sure it wants to be (*assurance*): that is θ.  Answers are asked for one by
one; an answer is taken as soon as its probability is θ or more, and asking ends as soon as θ
can't be reached any more, were all who could still be asked to agree.  No task is done more
than seven times.  What wasn't taken is handed back with every answer given: dissent is data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from meshnode.domain.trust.posterior import Group, Voter, posterior_without, posteriors
from meshnode.domain.trust.rules import RULES, Kind, Rules

#: What is said of a result:
#:
#: ``verified``: a deterministic check passed;
#: ``agreed``: taken as probable enough, from who gave it and who agreed;
#: ``contested``: there are several answers, and none is probable enough;
#: ``unverified``: there is one, and it isn't.
Outcome = Literal["verified", "agreed", "contested", "unverified"]

#: Answers of which none stands alone.
_TOGETHER: Final = 2
_THETA: Final = {"economy": 0.90, "assured": 0.98}


def theta_of(assurance: str | float) -> float:
    """Return the least probability of an answer that may be taken.

    Args:
        assurance: ``economy`` (0.90), ``assured`` (0.98), or a probability between 0 and 1.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(assurance, str):
        if assurance in _THETA:
            return _THETA[assurance]
    elif 0.0 < assurance < 1.0:
        return float(assurance)
    raise ValueError(f"{assurance!r} is no assurance: economy, assured or a probability")


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next for a task.

    Attributes:
        outcome: Said of the result; empty while another answer is wanted.
        best: Which group is the most probable.
        posterior: How probable.
        taken: It is accepted, and paid.
        dissent: The other groups, in their order.
    """

    outcome: Outcome | Literal[""]
    best: int
    posterior: float
    taken: bool
    dissent: tuple[int, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether another answer is wanted."""
        return not self.outcome


@dataclass(frozen=True, slots=True)
class Terms:
    """How a task is decided.

    Attributes:
        theta: Least probability of what is taken.
        alone: The first answer may be taken with nobody else's.
        anchored: Somebody who could be asked is strong.  Where nobody is, more answers of
            strangers make nothing surer: the first is handed back as ``unverified``.
    """

    theta: float
    alone: bool = True
    anchored: bool = True


def decide(
    groups: Sequence[Group], reserve: Sequence[Voter], terms: Terms, rules: Rules = RULES
) -> Decision:
    """Return what to do once one answer more is there.

    Args:
        groups: Voters by their answer, one group at least, the first answer first.
        reserve: Who could still be asked, in the order in which they would be.
        terms: See there.
        rules: See there.
    """
    voices_min = 1 if terms.alone else _TOGETHER
    chances = posteriors(groups, rules, voices_min=voices_min)
    best = max(range(len(groups)), key=chances.__getitem__)
    posterior = chances[best]
    if posterior >= terms.theta and len(groups[best]) >= voices_min:
        return _end("agreed", groups, best, posterior)
    asked = sum(len(group) for group in groups)
    room = rules.answers_max(terms.theta) - asked
    if room > 0 and reserve and (terms.anchored or asked > 1):
        hoped = [*groups[best], *reserve[:room]]
        if _reaches(groups, best, hoped, terms.theta, rules):
            return Decision("", best, posterior, taken=False)
    if len(groups) == 1:
        return _end("unverified", groups, best, posterior)
    return _end("contested", groups, best, posterior)


def checked(*, passed: bool) -> Decision:
    """Return what to do where a deterministic check decides: one answer, proven or refused."""
    chance = float(passed)
    return Decision("verified" if passed else "unverified", 0, chance, taken=passed)


def _reaches(
    groups: Sequence[Group], best: int, hoped: Group, theta: float, rules: Rules
) -> bool:
    most = [hoped if place == best else group for place, group in enumerate(groups)]
    return posteriors(most, rules, voices_min=_TOGETHER)[best] >= theta


def _end(outcome: Outcome, groups: Sequence[Group], best: int, posterior: float) -> Decision:
    dissent = tuple(place for place in range(len(groups)) if place != best)
    return Decision(outcome, best, posterior, taken=outcome == "agreed", dissent=dissent)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one voter's answer teaches of it."""

    agent: str
    kind: Kind


def lessons(groups: Sequence[Group], decision: Decision, rules: Rules = RULES) -> list[Lesson]:
    """Return what a decided task teaches of its voters, winners first.

    Nobody is judged by its own vote: what counts is how probable the winner is without it.
    Agreement counts for less than being checked, and less still within one model family.
    """
    if not decision.taken or decision.outcome != "agreed":
        return []
    winners = groups[decision.best]
    if len(winners) == 1:
        found = [Lesson(winners[0].agent, "accepted_alone")]
    else:
        found = [Lesson(voter.agent, "accepted") for voter in winners]
        for voter in winners:
            if _sure(groups, decision.best, voter, rules.learn_agreed, rules):
                found.append(Lesson(voter.agent, _agreement(voter, winners)))
    for place in decision.dissent:
        for voter in groups[place]:
            if _sure(groups, decision.best, voter, rules.learn_outvoted, rules):
                found.append(Lesson(voter.agent, "outvoted"))
    return found


def _sure(
    groups: Sequence[Group], winner: int, voter: Voter, least: float, rules: Rules
) -> bool:
    return posterior_without(groups, winner, voter.agent, rules) >= least


def _agreement(voter: Voter, winners: Group) -> Kind:
    others = [one for one in winners if one.agent != voter.agent]
    if voter.family and all(one.family == voter.family for one in others):
        return "agreed_in_family"
    return "agreed"
