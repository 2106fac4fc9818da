"""Buyers that take the result and refuse the receipt: what that costs those who work for them.

Contractors serve whoever asks, or those whom ``meshnode.domain.trust.buyers`` lets have
another result.  Fraud is naive, from the first result on, or patient: as many deals in which
it pays with each contractor come first.  Honest buyers pay; a wrong result they reject with
what proves it, and of some receipts nothing is heard: a node went down.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from meshnode.domain.trust.buyers import Buyer, BuyerEvidence, BuyerKind

PRICE_MC: Final = 200
#: Results that are wrong, and receipts of honest buyers that never come.
_WRONG: Final = 0.04
_LOST: Final = 0.01


@dataclass(frozen=True, slots=True)
class Refused:
    """What came of a market with buyers that refuse.

    Attributes:
        lost_max_mc: Most that one contractor lost to one cheat.
        lost_mc: What a contractor lost to all cheats, on average.
        paid_mc: What a cheat paid a contractor before, on average.
        turned_away: Share of honest buyers' requests that were refused.
    """

    lost_max_mc: int
    lost_mc: float
    paid_mc: float
    turned_away: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """How it is played.

    Attributes:
        guarded: Contractors look at the buyer first.
        patience: Deals with a contractor that a cheat pays for before it refuses.
        contractors: How many.
        honest: Buyers that pay.
        cheats: Buyers that don't.
        rounds: In each, every buyer asks one contractor.
    """

    guarded: bool
    patience: int = 0
    contractors: int = 10
    honest: int = 20
    cheats: int = 10
    rounds: int = 600


def play_refusal(refusal: Refusal, *, seed: int) -> Refused:
    """Play it; the same seed is the same course."""
    rng = Random(f"trust/{seed}/refusal")
    views = [
        [Buyer() for _ in range(refusal.honest + refusal.cheats)]
        for _ in range(refusal.contractors)
    ]
    asked = away = 0
    for _ in range(refusal.rounds):
        for buyer in range(refusal.honest + refusal.cheats):
            view = views[rng.randrange(refusal.contractors)][buyer]
            is_honest = buyer < refusal.honest
            asked += is_honest
            if refusal.guarded and not view.may_have(PRICE_MC):
                away += is_honest
                continue
            view.learn(BuyerEvidence("delivered", PRICE_MC))
            kind = _reply(view, rng, refusal, is_honest=is_honest)
            view.learn(BuyerEvidence(kind, PRICE_MC))
    lost = [view.lost_mc for row in views for view in row[refusal.honest :]]
    paid = [view.settled_mc for row in views for view in row[refusal.honest :]]
    return Refused(
        lost_max_mc=max(lost),
        lost_mc=sum(lost) / refusal.contractors,
        paid_mc=sum(paid) / len(paid),
        turned_away=away / max(1, asked),
    )


def _reply(view: Buyer, rng: Random, refusal: Refusal, *, is_honest: bool) -> BuyerKind:
    draw = rng.random()
    if is_honest:
        return "refused" if draw < _LOST else "rejected" if draw < _WRONG else "accepted"
    return "refused" if view.accepted >= refusal.patience else "accepted"
