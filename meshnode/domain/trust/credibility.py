"""How likely an agent is to be right, and what that allows.

``C = min(0.98, (a + A′ + 1) / (a + A′ + 1 + 1.5 + b + B))``: the mean of a Beta distribution
with prior (1, 1.5), ``a`` and ``b`` what this node saw for and against, ``A`` and ``B`` what it
takes from others, with ``A′ = A / (1 + b)`` (:mod:`~meshnode.domain.trust.hearsay`), all in
units of evidence.  A newcomer stands at 0.40.  The upper limit leaves room for what evidence
can't show: nobody's word alone is worth more.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from meshnode.domain.trust.evidence import Standing
from meshnode.domain.trust.rules import RULES, UNIT_MU, Rules

if TYPE_CHECKING:
    from random import Random


class Imported(NamedTuple):
    """What others' receipts say of an agent, weighed: *A* and *B*; millionths of a unit."""

    good_mu: int = 0
    bad_mu: int = 0


NOTHING: Final = Imported()


def credibility(
    standing: Standing, imported: Imported = NOTHING, rules: Rules = RULES
) -> float:
    """Return the chance that the agent's next answer is right; 0 for one that is banned."""
    if standing.equivocated:
        return 0.0
    good = good_units(standing, imported, rules) + 1.0
    bad = (standing.bad_mu + imported.bad_mu) / UNIT_MU + rules.doubt
    return min(rules.credibility_max, good / (good + bad))


def good_units(standing: Standing, imported: Imported, rules: Rules = RULES) -> float:
    """Return a + A / (1 + h · b), units: others' praise counts less where it was belied.

    What this node saw go wrong halves its own *a*; praise that stayed whole would keep one that
    was caught believed.  A sum of quotients, so it is the same on every machine.
    """
    return standing.for_mu / UNIT_MU + heard_units(standing, imported, rules)


def heard_units(standing: Standing, imported: Imported, rules: Rules = RULES) -> float:
    """Return A / (1 + h · b), units: what is left of others' praise."""
    return imported.good_mu / UNIT_MU / (1.0 + rules.belied * standing.bad_mu / UNIT_MU)


def availability(standing: Standing, rules: Rules = RULES) -> float:
    """Return the chance that the agent answers in time once it is awarded a task."""
    up = standing.up_mu / UNIT_MU + rules.up
    return up / (up + standing.down_mu / UNIT_MU + rules.down)


def known_units(standing: Standing, imported: Imported = NOTHING) -> float:
    """Return all evidence there is of an agent's being right or wrong, units."""
    return standing.units + (imported.good_mu + imported.bad_mu) / UNIT_MU


def is_blocked(standing: Standing, imported: Imported = NOTHING, rules: Rules = RULES) -> bool:
    """Tell whether the agent gets no paid work: it did wrong, and isn't believed.

    Only what this node saw itself counts as wrong, so that nobody is shut out by others' word.
    """
    if standing.equivocated:
        return True
    wrong = standing.bad_mu > rules.blocked_bad * UNIT_MU
    return wrong and credibility(standing, imported, rules) < rules.blocked


def on_probation(
    standing: Standing, imported: Imported = NOTHING, rules: Rules = RULES
) -> bool:
    """Tell whether too little is known of the agent to take its answer alone."""
    return known_units(standing, imported) < rules.probation


def is_strong(standing: Standing, imported: Imported = NOTHING, rules: Rules = RULES) -> bool:
    """Tell whether the agent can anchor an answer."""
    return not is_blocked(standing, imported, rules) and (
        credibility(standing, imported, rules) >= rules.strong
    )


def may_stand_alone(
    standing: Standing, imported: Imported = NOTHING, rules: Rules = RULES
) -> bool:
    """Tell whether the agent's answer may be taken with nobody else's, if probable enough.

    It may not on probation, while it owes gold tasks, and when it was taken alone as often as
    one may be between two golds.
    """
    return not (
        standing.equivocated
        or standing.owed
        or standing.exposed >= rules.exposure_max
        or on_probation(standing, imported, rules)
    )


def is_spot_check(
    standing: Standing, imported: Imported, rng: "Random", rules: Rules = RULES
) -> bool:
    """Tell by chance whether an answer that could be taken alone is replicated all the same.

    The chance is 1 / (a + A): the less is known of an agent, the more often it is looked at.
    """
    return rng.random() < spot_chance(standing, imported, rules)


def spot_chance(standing: Standing, imported: Imported, rules: Rules = RULES) -> float:
    """Return with what chance an answer that could be taken alone is replicated."""
    units = good_units(standing, imported, rules)
    return rules.spot / max(units, 1.0)


def draw_credibility(
    standing: Standing, imported: Imported, rng: "Random", rules: Rules = RULES
) -> float:
    """Return a draw from Beta(a + A + min(0.2 w, 2) + 1, b + B + 1.5): Thompson sampling.

    Who was accepted without a check is tried a little sooner; nothing else draws on that.
    """
    weak = min(rules.weak_share * standing.weak_mu / UNIT_MU, rules.weak_max)
    good = good_units(standing, imported, rules) + weak + 1.0
    bad = (standing.bad_mu + imported.bad_mu) / UNIT_MU + rules.doubt
    return rng.betavariate(good, bad)


def draw_availability(standing: Standing, rng: "Random", rules: Rules = RULES) -> float:
    """Return a draw from the Beta distribution of the agent's availability."""
    up, down = standing.up_mu / UNIT_MU, standing.down_mu / UNIT_MU
    return rng.betavariate(up + rules.up, down + rules.down)
