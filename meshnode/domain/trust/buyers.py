"""Buyers as a contractor sees them: who takes results and signs no receipt gets little.

A contractor delivers before it is paid, so what it can lose to a buyer is what is out: results
that the buyer has, or will have, and hasn't signed a receipt for.  For a buyer of whom nothing
is known that is one small amount; it grows by a quarter of what the buyer has settled:

    exposure cap = (first + settled / 4) · fairness
    fairness = min(1, (accepted + supported + 4) / (accepted + supported + 4 · unsupported + 4))

A rejection with a verdict and what proves it is *supported* and costs a buyer nothing.  One
without is not, and a result that was taken and for which no receipt came in time counts the
same, and stays out for good: so all that is ever lost to one buyer is at most its cap.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

#: Of a buyer of whom nothing is known, millicredits.
FIRST_MC: Final = 1_000
#: Of what a buyer has settled, what it may have out.
_SETTLED_SHARE: Final = 4
#: How much more an unsupported rejection weighs than a deal that went well.
_UNSUPPORTED_WEIGHT: Final = 4
#: Deals that went well, given in advance.
_PRIOR: Final = 4

#: What a contractor learns of a buyer: a result was ``delivered`` to it; it ``accepted`` one
#: and signed the receipt; it rejected one and proved why (``rejected``) or didn't
#: (``unsupported``); it signed nothing in time (``refused``).
BuyerKind = Literal["delivered", "accepted", "rejected", "unsupported", "refused"]


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


@dataclass(slots=True)
class Buyer:
    """The fold of what was learned, in its order; amounts in millicredits.

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
        """Fold in the next event."""
        match event.kind:
            case "delivered":
                self.open_mc += event.amount_mc
            case "accepted":
                self.open_mc -= event.amount_mc
                self.settled_mc += event.amount_mc
                self.accepted += 1
            case "rejected":
                self.open_mc -= event.amount_mc
                self.supported += 1
            case "unsupported" | "refused":
                self.lost_mc += event.amount_mc
                self.unsupported += 1

    @property
    def fairness(self) -> float:
        """How far its rejections are supported, from 0 to 1."""
        fair = self.accepted + self.supported + _PRIOR
        return fair / (fair + _UNSUPPORTED_WEIGHT * self.unsupported)

    def exposure_max_mc(self, first_mc: int = FIRST_MC) -> int:
        """Return what may be out at it, millicredits."""
        return int((first_mc + self.settled_mc // _SETTLED_SHARE) * self.fairness)

    def may_have(self, amount_mc: int, *, first_mc: int = FIRST_MC) -> bool:
        """Tell whether a result of that price may be awarded by it, beside what is out."""
        return self.open_mc + amount_mc <= self.exposure_max_mc(first_mc)
