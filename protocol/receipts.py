"""Receipts: what two nodes agree happened, each half signed by the one it binds.

The contractor signs its half with the result, before it knows the verdict: what
was done, for which award, what it charges.  The broker's half binds the first by
hash and adds verdict and payment.  Both nodes keep both: neither half weighs
anything alone, and two broker halves for one award are proof of equivocation.

Specified in protocol/spec/60-contracts.md, "Receipts"; vectors in
protocol/vectors/receipts.json.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec

from protocol import limits
from protocol.codec import Count, Hash
from protocol.errors import BadSignature, Malformed, WrongAudience
from protocol.keys import digest
from protocol.messages import Award, Message, Result, read_message

Verdict = Literal["verified", "agreed", "contested", "unverified", "rejected"]


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a contractor had another node do under its award, for one sub-task.

    What a row cost is paid out of what the row above it cost: only rows of one level
    may be added up.

    Attributes:
        level: 1 where the contractor awarded it itself, 2 where that contractor did, …
        subtask: Ids of the sub-tasks on the way down, joined by ``/``.
        peer: Who did it; empty where nobody has accounted for it.
        cost_mc: What it was paid.
        awards: How many were made to it.
        tokens: Model tokens read and written there, as it said.
    """

    level: Annotated[int, msgspec.Meta(ge=1, le=limits.HOPS_MAX)]
    subtask: Annotated[str, msgspec.Meta(max_length=limits.SPENT_TEXT_SIZE_MAX)]
    peer: str
    cost_mc: Count = 0
    awards: Count = 0
    tokens: Count = 0


class Receipt(Message, frozen=True, kw_only=True):
    """The contractor's half.

    Attributes:
        award: Hash of the award's envelope.
        result: Hash of the result's envelope.
        capability: Full name.
        agent: Which agent did it.
        cost_mc: Charged, within the award's cap.
        latency_ms: Award received to result ready.
        voucher_mc: All that the broker owes the contractor with this charge, ever.
        below: What others did under the award.
    """

    TYPE: ClassVar[str] = "receipt"

    award: Hash
    result: Hash
    capability: str
    agent: str
    cost_mc: Count
    latency_ms: Count
    voucher_mc: Count = 0
    below: Annotated[list[Spent], msgspec.Meta(max_length=limits.SPENT_ROWS_MAX)] = (
        msgspec.field(default_factory=list)
    )


class Acceptance(Message, frozen=True, kw_only=True):
    """The broker's half: acceptance, not completion, is what pays.

    Attributes:
        award: Hash of the award's envelope.
        receipt: Hash of the contractor's half, its envelope.
        verdict: What the broker found.
        check: Kind of the check behind the verdict, or empty.
        paid_mc: 0 when rejected.
    """

    TYPE: ClassVar[str] = "acceptance"

    award: Hash
    receipt: Hash
    verdict: Verdict
    check: str
    paid_mc: Count


def check_receipt(
    award: bytes, result: bytes, receipt: bytes, acceptance: bytes, *, network: str
) -> tuple[Award, Result, Receipt, Acceptance]:
    """Return the four messages of a finished contract, all links between them proved.

    Of a job with a charter a later broker may accept what an earlier one awarded; whether
    it is that epoch's broker isn't looked at here.

    Args:
        award: Envelope, as are the others.
        result: The contractor's.
        receipt: The contractor's half.
        acceptance: The broker's half.
        network: Network id.

    Raises:
        Malformed: A hash, name or amount doesn't fit the others.
        WrongAudience: One of them is meant for a third party.
        RemoteProtocolError: An envelope is forged or of another type.
    """
    awarded = read_message(award, Award, network=network)
    delivered = read_message(result, Result, network=network)
    claimed = read_message(receipt, Receipt, network=network)
    accepted = read_message(acceptance, Acceptance, network=network)
    _check_sides(awarded, delivered, claimed, accepted)
    name = digest(award)
    if {delivered.award, claimed.award, accepted.award} != {name}:
        raise Malformed("they are not about the same award")
    if claimed.result != digest(result) or accepted.receipt != digest(receipt):
        raise Malformed("a half binds another result or receipt")
    if len({_work(message) for message in (awarded, delivered, claimed, accepted)}) != 1:
        raise Malformed("the headers name different jobs, sub-tasks or replicas")
    if (claimed.capability, claimed.agent) != (awarded.capability, awarded.agent):
        raise Malformed("the receipt claims another capability or agent than was awarded")
    if delivered.state != "completed":
        raise Malformed("there is no receipt for work that was not completed")
    if claimed.cost_mc != delivered.price_mc or claimed.cost_mc > awarded.price_cap_mc:
        raise Malformed("the charge is not the result's, or above the award's cap")
    if trouble := beyond(awarded, claimed.below):
        raise Malformed(f"more was done below than the award allows: {trouble}")
    if 0 < awarded.h.budget.tokens < tokens_used(delivered, claimed):
        raise Malformed("more model tokens were used than the award allows")
    paid_mc = 0 if accepted.verdict == "rejected" else claimed.cost_mc
    if accepted.paid_mc != paid_mc:
        raise Malformed("paid is neither the charge nor, when rejected, nothing")
    return awarded, delivered, claimed, accepted


def check_halves(
    receipt: bytes, acceptance: bytes, *, network: str
) -> tuple[Receipt, Acceptance]:
    """Return both halves of a receipt, proved to be about one award and to fit together.

    Neither award nor result need be shown for that, and with them nothing of what the work
    was about: both sides have signed the award's hash, and the contractor that of its
    result.  What they agreed on beforehand isn't looked at here.

    Args:
        receipt: The contractor's half, its envelope.
        acceptance: The broker's: of the one that the first half is meant for.
        network: Network id.

    Raises:
        Malformed: A hash, name or amount doesn't fit the other half.
        WrongAudience: One of them is meant for a third party.
        RemoteProtocolError: An envelope is forged or of another type.
    """
    claimed = read_message(receipt, Receipt, network=network)
    accepted = read_message(acceptance, Acceptance, network=network)
    if (claimed.h.issuer, claimed.h.audience) != (accepted.h.audience, accepted.h.issuer):
        raise WrongAudience("a half is meant for somebody else than the other's signer")
    if claimed.award != accepted.award or _work(claimed) != _work(accepted):
        raise Malformed("the halves are about different work")
    if accepted.receipt != digest(receipt):
        raise Malformed("the broker's half binds another receipt")
    paid_mc = 0 if accepted.verdict == "rejected" else claimed.cost_mc
    if accepted.paid_mc != paid_mc:
        raise Malformed("paid is neither the charge nor, when rejected, nothing")
    return claimed, accepted


def beyond(awarded: Award, below: Sequence[Spent]) -> str:
    """Return what ``below`` has more of than ``awarded`` allows, or nothing.

    Each level is held against its own award by the one who made that: from here the first
    level's cost can be seen, and how many awards there were, and how deep.
    """
    budget = awarded.h.budget
    level = max((row.level for row in below), default=0)
    awards = sum(row.awards for row in below)
    cost_mc = sum(row.cost_mc for row in below if row.level == 1)
    tokens = sum(row.tokens for row in below)
    if level > awarded.h.hops:
        return f"brokers below: {level}, allowed: {awarded.h.hops} hops"
    if awards > budget.subtasks:
        return f"awards below: {awards}, allowed: {budget.subtasks}"
    if cost_mc > budget.cost_mc:
        return f"spent below: {cost_mc} mc, allowed: {budget.cost_mc} mc"
    if 0 < budget.tokens < tokens:
        return f"model tokens used below: {tokens}, allowed: {budget.tokens}"
    return ""


def tokens_used(result: Result, receipt: Receipt) -> int:
    """Return the model tokens that were used for an award, there and below."""
    metering = result.metering
    below = sum(row.tokens for row in receipt.below)
    return metering.tokens_in + metering.tokens_out + below


def _check_sides(
    awarded: Award, delivered: Result, claimed: Receipt, accepted: Acceptance
) -> None:
    broker, contractor = awarded.h.issuer, awarded.h.audience
    if {delivered.h.issuer, claimed.h.issuer} != {contractor}:
        raise BadSignature("result and receipt are the contractor's to sign")
    if accepted.h.issuer != broker and not _may_succeed(awarded, accepted):
        raise BadSignature("the acceptance is the broker's to sign")
    if {delivered.h.audience, claimed.h.audience} != {broker} or (
        accepted.h.audience != contractor
    ):
        raise WrongAudience("a half is meant for somebody else than the other side")


def _may_succeed(awarded: Award, accepted: Acceptance) -> bool:
    """Tell whether the acceptance can be by a later broker of the job.

    That it is that epoch's broker is for a certificate to prove (85-failover.md).
    """
    of, by = awarded.h, accepted.h
    return bool(of.charter) and by.charter == of.charter and by.epoch > of.epoch


def _work(message: Message) -> tuple[str, str, int]:
    return message.h.job, message.h.subtask, message.h.replica
