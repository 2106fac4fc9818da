"""How likely each of several answers is right, from who gave it.

Answers are grouped by equivalence.  Within a group the voters are ordered by credibility, and
the least credible counts as the first; then with ``C`` for credibility

    R = C₁ · Π (γ + (1 − γ) C)              they are right
    W = (1 − C₁) · Π (γ + (1 − γ) ρ (1 − C))    they are wrong, and in the same way
    O = R / W                                 the group's odds

    P(g) = O(g) / (1 + Σ O(h))                over all groups h

``γ`` is the chance that another voter says only what the first says (a cartel, or copying), and
``ρ`` the chance that two wrong answers coincide: two language models that are both wrong give
the same wrong answer about 60 % of the time.  A voter whose model family has spoken in its
group already is more likely an echo: its ``γ`` is larger.  One voter alone gives P = C.

That is R(g) Π W(g′) / [Σ R(h) Π W(g′) + Π W], g′ being the other groups, divided by Π W.

A group's odds are those of its *best first voters*: of its k most credible, with the k that
serves it best.  Taken of all, an agreeing voter of credibility 0.5 would lower a group's
probability from 0.98 to 0.90, because it became the first; so more agreement never makes an
answer less probable, if it comes from voters of C ≥ ρ / (1 + ρ).  Where one answer alone
mustn't suffice, k begins at 2.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from meshnode.domain.trust.rules import RULES, Rules

#: Credibility is kept from 0 and 1, where odds end.
_EDGE: Final = 1e-9


class Voter(NamedTuple):
    """Who gave an answer.

    Attributes:
        agent: Its id.
        credibility: From 0 to 1.
        family: Of its model, as probed; empty for none, which is no family in common.  Whose
            family is only declared should be given one name for all of them: diversity counts
            where it was seen.
    """

    agent: str
    credibility: float
    family: str = ""


Group = Sequence[Voter]


def odds(group: Group, rules: Rules = RULES, *, voices_min: int = 1) -> float:
    """Return R / W of a group: of its most credible voters, as many as serve it best.

    Args:
        group: Voters with one answer, one at least.
        rules: See there.
        voices_min: So many must be counted; all, if there are fewer.
    """
    if len(group) == 1:
        return odds_alone(group[0].credibility)
    ranked = sorted(group, key=_by_credibility)
    first = min(voices_min, len(ranked))
    return max(_odds(ranked[:count], rules) for count in range(first, len(ranked) + 1))


def posteriors(
    groups: Sequence[Group], rules: Rules = RULES, *, voices_min: int = 1
) -> list[float]:
    """Return the probability of each group's answer; what is missing to 1: none is right."""
    each = [odds(group, rules, voices_min=voices_min) for group in groups]
    total = 1.0 + sum(each)
    return [one / total for one in each]


def without(groups: Sequence[Group], agent: str) -> list[list[Voter]]:
    """Return the groups without a voter; one that becomes empty stays, to keep its place."""
    return [[voter for voter in group if voter.agent != agent] for group in groups]


def posterior_without(
    groups: Sequence[Group], winner: int, agent: str, rules: Rules = RULES
) -> float:
    """Return how probable the winner's answer is without one voter; 0 if only that gave it."""
    left = without(groups, agent)
    if not left[winner]:
        return 0.0
    place = sum(1 for group in left[:winner] if group)
    return posteriors([group for group in left if group], rules)[place]


def _by_credibility(voter: Voter) -> tuple[float, str]:
    return -voter.credibility, voter.agent


def odds_alone(credibility: float) -> float:
    """Return the odds of an answer that one voter alone gave: C / (1 − C)."""
    chance = min(max(credibility, _EDGE), 1.0 - _EDGE)
    return chance / (1.0 - chance)


def _odds(ranked: Group, rules: Rules) -> float:
    """R / W of all of ``ranked``, the most credible first."""
    first = ranked[-1]
    found = odds_alone(first.credibility)
    seen = {first.family} if first.family else set()
    for voter in ranked[:-1]:
        echo = bool(voter.family) and voter.family in seen
        if voter.family:
            seen.add(voter.family)
        found *= agreeing(voter.credibility, rules, echo=echo)
    return found


def agreeing(credibility: float, rules: Rules = RULES, *, echo: bool = False) -> float:
    """Return by what an agreeing voter multiplies the odds, the first one not meant.

    Args:
        credibility: Its own.
        rules: See there.
        echo: Its model family has spoken already.
    """
    gamma = rules.gamma_family if echo else rules.gamma
    other = 1.0 - gamma
    wrong = gamma + other * rules.rho * (1.0 - credibility)
    return (gamma + other * credibility) / wrong
