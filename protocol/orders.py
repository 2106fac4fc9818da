"""Orders: sub-tasks for a node that is away, and what came of them, in letters.

An order is an award without a lease.  Nobody renews anything while broker and contractor
are never up at the same time, so what a lease does is done by time alone: the contractor
begins before the award expires or never, and ends by its deadline; the broker gives the
work to nobody else before that has passed by its own clock too, and the skew.

What the work takes is in the order, and what it makes in the outcome: there may be nobody
to fetch from.

Specified in protocol/spec/92-orders.md; vectors in protocol/vectors/orders.json.
"""

from typing import Final, NamedTuple

import msgspec

from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import (
    Expired,
    LocalProtocolError,
    Malformed,
    RemoteProtocolError,
    TooLarge,
    WrongAudience,
)
from protocol.keys import digest
from protocol.messages import Award, Refuse, Result, read_message
from protocol.receipts import Receipt
from protocol.signing import peek

#: Kinds of the letters that carry them; with an :class:`Order` and an :class:`Outcome` as
#: their body, or the envelope of an acceptance or a cancel.
ORDER: Final = "application/x-meshnode.order"
OUTCOME: Final = "application/x-meshnode.outcome"
ACCEPTED: Final = "application/x-meshnode.acceptance"
CALLED_OFF: Final = "application/x-meshnode.cancel"


class Order(msgspec.Struct, frozen=True, array_like=True):
    """Body of a letter: do this.

    Attributes:
        award: Envelope of an award without a lease.
        enclosed: The artifacts that its inputs name, each once, in the order of their hashes.
    """

    award: bytes
    enclosed: list[bytes]


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """Body of a letter: this came of it.

    Attributes:
        refuse: Envelope; empty if it was done.
        result: Envelope; empty if it was refused.
        receipt: Envelope of the contractor's half; likewise.
        output: What the result names, if that hasn't it in itself; else empty.
    """

    refuse: bytes
    result: bytes
    receipt: bytes
    output: bytes = b""


class Answer(NamedTuple):
    """An outcome, read.

    Attributes:
        award: Hash of the award's envelope.
        outcome: As it came.
        refuse: No to it, or None.
        result: What came of it, or None.
    """

    award: bytes
    outcome: Outcome
    refuse: Refuse | None
    result: Result | None


_ORDER: Final = msgspec.msgpack.Decoder(Order)
_OUTCOME: Final = msgspec.msgpack.Decoder(Outcome)


def write_order(award: bytes, enclosed: list[bytes], *, network: str) -> bytes:
    """Return the body of an order.

    Args:
        award: Envelope.
        enclosed: Artifacts that its inputs name.
        network: Network id.

    Raises:
        TooLarge: No letter holds it.
        LocalProtocolError: It breaks another rule.
    """
    body = encode(Order(award, sorted(enclosed, key=digest)))
    try:
        read_order(body, network=network)
    except TooLarge:
        raise
    except RemoteProtocolError as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    return body


def read_order(body: bytes, *, network: str) -> tuple[Order, Award]:
    """Return the order in a letter's body, after every check that needs no clock.

    Raises:
        TooLarge: More than a letter holds.
        RemoteProtocolError: No order, or against the rules.
    """
    _fits(body)
    order = decode_as(body, _ORDER)
    award = read_message(order.award, Award, network=network)
    header = award.h
    _need(award.lease_ms == 0, "an order has no lease")
    _need(not award.cfp, "nobody was called for an order")
    _need(not header.charter, "an order is of a job without a charter")
    _need(header.budget.subtasks == 0, "nothing of an order is handed on")
    _need(not award.tickets and not award.result_key, "an order has all that it needs in it")
    _need(header.expires_ms <= header.deadline_ms, "it may begin after its deadline")
    lasts_ms = header.deadline_ms - header.issued_ms
    _need(lasts_ms <= limits.ORDER_LIFETIME_MS_MAX, "its deadline is over 7 days off")
    _need(len(order.enclosed) <= limits.ENCLOSED_MAX, "too much is enclosed")
    parts = [part for binding in award.inputs.values() for part in binding.parts]
    named = {(part.artifact, part.size) for part in parts if part.artifact}
    there = [(digest(data), len(data)) for data in order.enclosed]
    _need(there == sorted(named), "what is enclosed is not what its inputs name")
    return order, award


def check_order_time(award: Award, *, audience: str, now_ms: int) -> None:
    """Refuse an order that is not for ``audience``, or may not be begun any more.

    No skew is allowed after its expiry: the broker counts on that.  One from the future
    says that the two clocks differ by more than the broker waits.

    Args:
        award: Read before.
        audience: This node's PeerId.
        now_ms: Unix time of this node's own clock.

    Raises:
        WrongAudience: For somebody else.
        Expired: Lapsed, or issued in the future.
    """
    header = award.h
    if header.audience != audience:
        raise WrongAudience(f"this order is for {header.audience[:60]}")
    if now_ms >= header.expires_ms:
        raise Expired(f"this order was to be begun before {header.expires_ms}")
    if header.issued_ms > now_ms + limits.SKEW_MS_MAX:
        raise Expired(f"this order was issued in the future, at {header.issued_ms}")


def free_ms(award: Award) -> int:
    """Return from when on the work may be given to another, Unix time by the broker's clock."""
    return award.h.deadline_ms + limits.SKEW_MS_MAX


def write_outcome(outcome: Outcome, *, network: str) -> bytes:
    """Return the body of an outcome.

    Raises:
        TooLarge: No letter holds it.
        LocalProtocolError: It breaks another rule.
    """
    body = encode(outcome)
    try:
        read_outcome(body, network=network)
    except TooLarge:
        raise
    except RemoteProtocolError as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    return body


def read_outcome(body: bytes, *, network: str) -> Answer:
    """Return the outcome in a letter's body; what the award asked for isn't looked at.

    Raises:
        TooLarge: More than a letter holds.
        RemoteProtocolError: No outcome, or its parts are of different things.
    """
    _fits(body)
    outcome = decode_as(body, _OUTCOME)
    if outcome.refuse:
        refuse = read_message(outcome.refuse, Refuse, network=network)
        _need(not (outcome.result or outcome.receipt or outcome.output), "refused, and done")
        return Answer(refuse.of, outcome, refuse, None)
    result = read_message(outcome.result, Result, network=network)
    receipt = read_message(outcome.receipt, Receipt, network=network)
    _need(peek(outcome.result).i == peek(outcome.receipt).i, "result and receipt of two nodes")
    _need(receipt.award == result.award, "result and receipt of two awards")
    _need(receipt.result == digest(outcome.result), "the receipt is of another result")
    apart = result.state == "completed" and not result.inline
    _need(apart == bool(outcome.output), "an output comes once, and with a result that has one")
    if apart:
        there = (digest(outcome.output), len(outcome.output))
        _need(there == (result.output, result.size), "the output is not the one named")
    return Answer(result.award, outcome, None, result)


def _fits(body: bytes) -> None:
    if len(body) > limits.LETTER_BODY_SIZE_MAX:
        raise TooLarge(len(body), limits.LETTER_BODY_SIZE_MAX)


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"order: {otherwise}")
