"""Buyers as a contractor sees them: who takes results and signs no receipt gets little.

A contractor delivers before it is paid, so what it can lose to a buyer is what is out: results
that the buyer has, or will have, and hasn't signed a receipt for.  For a buyer of whom nothing
is known that is one small amount; it grows by a quarter of what the buyer has settled:

    exposure cap = (first + settled / 4) · fairness
    fairness = min(1, (accepted + supported + 4) / (accepted + supported + 4 · unsupported + 4))

A rejection with a verdict and what proves it is *supported* and costs a buyer nothing.  One
without is not, and a result that was taken and for which no receipt came in time counts the
same, and stays out for good: so all that is ever lost to one buyer is at most its cap.  A
receipt that comes late takes that back.

All of it is sums of whole numbers, so the order in which things are learned doesn't matter,
and a store can add them up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

import msgspec

from meshnode.domain.admission import ITEMS, No

#: Reason of a refusal (60-contracts.md), and the code of what then fails.
UNSETTLED: Final = "unsettled"
UNPAID: Final = "credit.unsettled"
#: A buyer whose receipts are on their way may ask again after this, milliseconds.
RETRY_MS: Final = 1_000
#: Of a buyer of whom nothing is known, millicredits.
FIRST_MC: Final = 1_000
#: Of what a buyer has settled, what it may have out.
SETTLED_SHARE: Final = 4
#: How much more an unsupported rejection weighs than a deal that went well.
_UNSUPPORTED_WEIGHT: Final = 4
#: Deals that went well, given in advance.
_PRIOR: Final = 4

#: What a contractor learns of a buyer: a result was ``delivered`` to it; it ``accepted`` one
#: and signed the receipt; it rejected one and proved why (``rejected``) or didn't
#: (``unsupported``); it signed nothing in time (``refused``), or did so in the end (``late``,
#: before what it signed).
BuyerKind = Literal["delivered", "accepted", "rejected", "unsupported", "refused", "late"]


class BuyerEvidence(msgspec.Struct, frozen=True, gc=False):
    """One thing that was learned of a buyer.

    Attributes:
        kind: What.
        amount_mc: Of the result, its price.
        source: Hash of the award; empty for none.
    """

    kind: BuyerKind
    amount_mc: int = 0
    source: bytes = b""


#: What each kind adds: the amount so many times, and so many.
_EFFECTS: Final[Mapping[BuyerKind, Mapping[str, int]]] = {
    "delivered": {"open_mc": 1},
    "accepted": {"open_mc": -1, "settled_mc": 1, "accepted": 1},
    "rejected": {"open_mc": -1, "supported": 1},
    "unsupported": {"lost_mc": 1, "unsupported": 1},
    "refused": {"lost_mc": 1, "unsupported": 1},
    "late": {"lost_mc": -1, "unsupported": -1},
}


def effects(event: BuyerEvidence) -> dict[str, int]:
    """Return what ``event`` adds to which sum of a :class:`Buyer`."""
    return {
        name: times * event.amount_mc if name.endswith("_mc") else times
        for name, times in _EFFECTS[event.kind].items()
    }


@dataclass(slots=True)
class Buyer:
    """The sums of what was learned; amounts in millicredits.

    Attributes:
        settled_mc: Receipts that it signed, what they came to.
        open_mc: Delivered and not signed for.
        lost_mc: Of that, what it will never sign for.
        accepted: Results that it signed for.
        supported: Rejections with a proof.
        unsupported: Rejections without one, and results that it signed nothing for.
    """

    settled_mc: int = 0
    open_mc: int = 0
    lost_mc: int = 0
    accepted: int = 0
    supported: int = 0
    unsupported: int = 0

    def learn(self, event: BuyerEvidence) -> None:
        """Take in another event."""
        self.add(effects(event))

    def add(self, sums: Mapping[str, int]) -> None:
        """Add to sums by their names."""
        for name, amount in sums.items():
            setattr(self, name, getattr(self, name) + amount)

    @classmethod
    def together(cls, several: Iterable["Buyer"]) -> Self:
        """Return what is known of one buyer under several keys."""
        found = cls()
        for one in several:
            found.add({name: getattr(one, name) for name in cls.__slots__})
        return found

    @property
    def waiting_mc(self) -> int:
        """Of what is out, what it may still sign for."""
        return self.open_mc - self.lost_mc

    @property
    def fairness(self) -> float:
        """How far its rejections are supported, from 0 to 1."""
        fair = self.accepted + self.supported + _PRIOR
        return fair / (fair + _UNSUPPORTED_WEIGHT * self.unsupported)

    def exposure_max_mc(self, first_mc: int = FIRST_MC) -> int:
        """Return what may be out at it, millicredits."""
        return int((first_mc + self.settled_mc // SETTLED_SHARE) * self.fairness)

    def may_have(self, amount_mc: int, *, first_mc: int = FIRST_MC) -> bool:
        """Tell whether a result of that price may be awarded by it, beside what is out."""
        return self.open_mc + amount_mc <= self.exposure_max_mc(first_mc)

    def could_have(
        self, amount_mc: int, *, in_work_mc: int = 0, first_mc: int = FIRST_MC
    ) -> bool:
        """Tell whether it may once it has settled all that is out or in work and not lost."""
        settled_mc = self.settled_mc + self.waiting_mc + in_work_mc
        best = Buyer(
            settled_mc=settled_mc,
            accepted=self.accepted,
            supported=self.supported,
            unsupported=self.unsupported,
        )
        return self.lost_mc + amount_mc <= best.exposure_max_mc(first_mc)


def beyond_cap(
    buyer: Buyer, *, in_work_mc: int, call_mc: int, calls: int, first_mc: int
) -> No | None:
    """Return why a buyer may not have more work now, if that is so.

    Where nothing but receipts that are still to come stands in the way it says when to ask
    again.  One call may always be the first, whatever it costs.

    Args:
        buyer: What is known of it.
        in_work_mc: What it has in work here, at most.
        call_mc: Price of one call.
        calls: That it wants.
        first_mc: What it may have out if nothing is known of it; 0 for no cap at all.
    """
    more_mc = call_mc * calls
    if not first_mc or not more_mc:
        return None
    first_mc = max(first_mc, call_mc)
    if buyer.may_have(in_work_mc + more_mc, first_mc=first_mc):
        return None
    out_mc = buyer.open_mc + in_work_mc
    lost = f", {buyer.lost_mc} mc of it too late" if buyer.lost_mc else ""
    text = (
        f"this node lets a buyer like yours have {buyer.exposure_max_mc(first_mc)} mc of work"
        f" that it hasn't accepted: yours has {out_mc} mc{lost}, and {more_mc} mc more were"
        " asked for"
    )
    if buyer.could_have(more_mc, in_work_mc=in_work_mc, first_mc=first_mc):
        return No(UNSETTLED, text, RETRY_MS)
    if buyer.could_have(call_mc, in_work_mc=in_work_mc, first_mc=first_mc):
        return No(ITEMS, f"{text}: ask for fewer items at once")
    return No(UNSETTLED, text)
