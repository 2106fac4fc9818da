"""What a panel of judges made of two answers, and what that is worth.

Where answers to one thing differ and none is likely enough, judges are asked which of the two
most likely ones is better: each of them twice, with the two answers swapped.  Who says first
one and then the other likes a place and not an answer, and has no vote.

A panel is opinion, so it counts for little.  Of its votes as many as :data:`VOTES_MIN` must be
for one answer, and none for the other.  Then, with C for how far each judge is believed, the
least believed first, the odds between the two answers are multiplied by

    C₁ / (1 − C₁) · Π_{i>1} (γ + (1 − γ) Cᵢ) / (γ + (1 − γ) (1 − Cᵢ))

as for voters that agree (:mod:`meshnode.domain.trust.posterior`), with two differences.
Judges that are both wrong are wrong in the same way, since there are two answers only: ρ = 1.
And γ is that of one model family, of whichever they are: models have a taste in common, such as
for what is long.

That moves chance from one of the two answers to the other, and from nowhere else: that one of
two answers is better doesn't make it right, so what was the chance that neither is stays.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from meshnode.domain.trust.posterior import agreeing, odds_alone
from meshnode.domain.trust.rules import RULES, Rules

#: So many votes must be for an answer, with none for the other.
VOTES_MIN: Final = 2
#: What a judge may say; anything else says nothing.
WORDS: Final = ("a", "b", "tie", "neither")
_MILLION: Final = 1_000_000
_VOTES: Final = {"a b": 0, "b a": 1}


class Seat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One judge.

    Attributes:
        agent: ``peer/name``.
        credibility_ppm: How far it was believed when it was chosen.
        family: Of its model, as far as it was probed or is declared.
        cap_mc: Reserved for what it is asked, both times together.
        said: What it said, once it was asked: when the first of the two answers was ``a``,
            and when it was ``b``; empty where it said nothing.
        jobs: In which jobs of the broker's own.
        paid_mc: What it was paid for both, or may have been where that isn't known.
    """

    agent: str
    credibility_ppm: int
    family: str = ""
    cap_mc: int = 0
    said: list[str] = []
    jobs: list[str] = []
    paid_mc: int = 0

    @property
    def vote(self) -> int:
        """Which of the two answers it is for, 0 or 1; -1 for none."""
        return _VOTES.get(" ".join(self.said), -1)


class Sitting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A panel, called or heard.

    Attributes:
        broker: Who asks.
        capability: Of the judges, in full.
        groups: Of which two groups of answers, the more likely one first.
        chances_ppm: How likely each of the two is, before.
        seats: The judges.
    """

    broker: str
    capability: str
    groups: list[int]
    chances_ppm: list[int]
    seats: list[Seat]

    @property
    def cap_mc(self) -> int:
        """Reserved for it."""
        return sum(seat.cap_mc for seat in self.seats)

    @property
    def paid_mc(self) -> int:
        """Paid for it."""
        return sum(seat.paid_mc for seat in self.seats)

    @property
    def lost(self) -> "Sitting":
        """The same, if nobody knows what came of it: all that was promised counts as paid."""
        seats = [msgspec.structs.replace(seat, paid_mc=seat.cap_mc) for seat in self.seats]
        return msgspec.structs.replace(self, seats=seats)

    @property
    def votes(self) -> tuple[int, int]:
        """Votes for the first of the two answers, and for the second."""
        cast = [seat.vote for seat in self.seats]
        return cast.count(0), cast.count(1)

    @property
    def favours(self) -> int:
        """Which of the two answers the panel is for, 0 or 1; -1 if it isn't of one mind."""
        first, second = self.votes
        if min(first, second) > 0 or max(first, second) < VOTES_MIN:
            return -1
        return 0 if first else 1


def weighed(sitting: Sitting, rules: Rules = RULES) -> tuple[int, int]:
    """Return how likely each of the two answers is after the panel, in millionths.

    No answer becomes more likely by a panel than anybody is believed, nor by one that isn't of
    one mind.
    """
    first_ppm, second_ppm = sitting.chances_ppm
    side = sitting.favours
    if side < 0:
        return first_ppm, second_ppm
    for_ppm, against_ppm = (first_ppm, second_ppm) if side == 0 else (second_ppm, first_ppm)
    both_ppm = for_ppm + against_ppm
    judges = [seat.credibility_ppm / _MILLION for seat in sitting.seats if seat.vote == side]
    weight = for_ppm * panel_odds(judges, rules)
    moved_ppm = round(both_ppm * weight / (weight + against_ppm)) if weight else for_ppm
    cap_ppm = round(rules.credibility_max * _MILLION)
    best_ppm = max(for_ppm, min(moved_ppm, cap_ppm))
    rest_ppm = both_ppm - best_ppm
    return (best_ppm, rest_ppm) if side == 0 else (rest_ppm, best_ppm)


def panel_odds(judges: Sequence[float], rules: Rules = RULES) -> float:
    """Return by what judges of one mind multiply the odds between two answers.

    Never below 1: who is believed less than a coin has no say, and makes nothing less likely.

    Args:
        judges: How far each of them is believed.
        rules: See there.
    """
    alike = replace(rules, rho=1.0)
    ranked = sorted(judges)
    found = max(1.0, odds_alone(ranked[0])) if ranked else 1.0
    for one in ranked[1:]:
        found *= max(1.0, agreeing(one, alike, echo=True))
    return found
