"""What a result owes to the proposal or standing offer that its award goes by.

An order, which goes by letter, binds neither: its cap is all that limits its price.
"""

from typing import TypeAlias

from meshnode.domain.facts import Delivered
from meshnode.domain.tokens import result_trouble, told
from protocol.limits import SKEW_MS_MAX
from protocol.messages import Award, Proposal, Result, StandingOffer
from protocol.receipts import Receipt

#: What an award binds, unless it is an order.
Bound: TypeAlias = Proposal | StandingOffer


def says(fact: Delivered) -> tuple[object, ...]:
    """Return what an event says of a result."""
    return (
        *(fact.output, fact.size, fact.lengths, fact.price_mc),
        *(fact.run_ms, fact.below, fact.tokens),
    )


def result_says(award: Award, result: Result, receipt: Receipt) -> tuple[object, ...]:
    """Return what it says itself, in the same order."""
    below = sum(row.awards for row in receipt.below)
    return (
        *(result.output, result.size, result.lengths, result.price_mc),
        *(result.metering.run_ms, below, told(award, result, receipt)),
    )


def result_beyond(award: Award, terms: Bound | None, result: Result, receipt: Receipt) -> str:
    """Return how a result isn't within what its award binds, or nothing."""
    if trouble := result_trouble(award, result, receipt):
        return trouble
    if terms is None:
        return ""
    if result.price_mc > terms.price_mc * award.items:
        return "it costs more than was offered"
    if not _in_time(award, terms, result, receipt):
        return "the offer had lapsed when it was taken"
    return ""


def _in_time(award: Award, terms: Bound, result: Result, receipt: Receipt) -> bool:
    """Tell whether the terms held when the award was made.

    Clocks of two nodes may be any distance apart, so either the broker's word (when it
    signed the award) or the contractor's own (when it says it got it) will do.
    """
    got_ms = result.h.issued_ms - receipt.latency_ms
    first_ms = terms.h.issued_ms - SKEW_MS_MAX
    last_ms = terms.h.expires_ms + SKEW_MS_MAX
    return any(first_ms <= at_ms < last_ms for at_ms in (award.h.issued_ms, got_ms))
