"""One contract: from call to receipt, as a table that both sides follow.

Broker and contractor run the same table; a message that has no row is out of turn.

Specified in protocol/spec/60-contracts.md, whose table a test compares with
:data:`TRANSITIONS`.
"""

from enum import Enum
from typing import Final

from protocol.errors import OutOfTurn


class ContractState(Enum):
    """Where one contract stands."""

    IDLE = "idle"
    CALLED = "called"
    PROPOSED = "proposed"
    AWARDED = "awarded"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"


S = ContractState

#: States that nothing leaves.
FINAL: Final = frozenset({S.ACCEPTED, S.REJECTED, S.REFUSED, S.FAILED, S.CANCELLED, S.LAPSED})

#: (state, message) -> state.  ``lapse`` is the passing of a deadline or a lease;
#: ``offer`` is a standing offer taken instead of a call; a repeated ``award`` is
#: answered again and changes nothing, nor does a ``decline``: a proposal stands until
#: it lapses.
TRANSITIONS: Final[dict[tuple[ContractState, str], ContractState]] = {
    (S.IDLE, "cfp"): S.CALLED,
    (S.IDLE, "offer"): S.PROPOSED,
    (S.CALLED, "proposal"): S.PROPOSED,
    (S.CALLED, "refuse"): S.REFUSED,
    (S.CALLED, "lapse"): S.LAPSED,
    (S.PROPOSED, "award"): S.AWARDED,
    (S.PROPOSED, "decline"): S.PROPOSED,
    (S.PROPOSED, "lapse"): S.LAPSED,
    (S.AWARDED, "award"): S.AWARDED,
    (S.AWARDED, "refuse"): S.REFUSED,
    (S.AWARDED, "progress"): S.AWARDED,
    (S.AWARDED, "result"): S.DELIVERED,
    (S.AWARDED, "failure"): S.FAILED,
    (S.AWARDED, "cancel"): S.CANCELLED,
    (S.AWARDED, "lapse"): S.LAPSED,
    (S.DELIVERED, "award"): S.DELIVERED,
    (S.DELIVERED, "result"): S.DELIVERED,
    (S.DELIVERED, "acceptance"): S.ACCEPTED,
    (S.DELIVERED, "rejection"): S.REJECTED,
    (S.DELIVERED, "cancel"): S.CANCELLED,
    (S.DELIVERED, "lapse"): S.LAPSED,
}


def advance(state: ContractState, message: str) -> ContractState:
    """Return the state after ``message``.

    Raises:
        OutOfTurn: ``message`` may not come while ``state``.
    """
    after = TRANSITIONS.get((state, message))
    if after is None:
        raise OutOfTurn(message, state.value)
    return after
