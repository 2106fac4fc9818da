"""What is owed for jobs with standbys: charges, and what their heirs advance to the owner.

A charge counts when a majority of the job's members has it, and not before: its receipt and
its posting are written down then, together.  So what a broker charged and nobody else ever
knew of is owed to nobody, and the broker that went on charges it for its own part; nothing
has to be taken back.

Who accepts a result pays its contractor.  An heir does so for the job's owner, which owes
it just that: both post it when the job has ended, from the same journal, each charge once.
The owner holds every such charge against what the contractor signed, and all together, with
what its panels cost, against what the job may cost: an heir's word alone makes no debt.
"""

from collections.abc import Iterator
from typing import Final

import trio

from meshnode.domain.facts import Charged, Judged, from_event
from meshnode.domain.units import Attempt
from meshnode.ports import Put
from meshnode.services.bodies import RECEIPTS, ReceiptRow
from meshnode.services.context import Context
from meshnode.services.journals import JobJournal
from meshnode.services.ledger import POSTINGS, Ledger
from meshnode.services.receipts import DUE, Receipts, receipt_time, receipt_writes
from protocol.errors import Malformed, RemoteProtocolError
from protocol.keys import digest
from protocol.receipts import check_receipt
from protocol.signing import peek

_SPENDING: Final = frozenset({Charged.KIND, Judged.KIND})


class Charges:
    """See the module."""

    def __init__(self, context: Context, *, receipts: Receipts, ledger: Ledger) -> None:
        self._context = context
        self._receipts = receipts
        self._ledger = ledger
        self._turn = trio.Lock()  # nothing is looked for twice before it is written

    async def keep(self, journal: JobJournal, fact: Charged) -> None:
        """Write down a charge of this node's own that can't be lost any more, and send it.

        Raises:
            StoreError: The disk refused.
        """
        attempt = _attempt_of(journal, fact)
        award = digest(attempt.award)
        posting = self._ledger.receipt(
            "spent", attempt.peer, award, fact.paid_mc, job=journal.job, unit=fact.unit
        )
        async with self._turn:
            if await self._context.store.read(RECEIPTS, award.hex()) is not None:
                return  # all of it is one commit
            await self._ledger.commit(
                posting,
                Put(DUE, award.hex(), attempt.peer.encode()),
                *receipt_writes(
                    award, _row(attempt, fact), now_ms=self._context.clock.now_ms()
                ),
            )
        self._receipts.deliver(award, attempt.peer, fact.acceptance)

    async def keep_all(self, journal: JobJournal) -> None:
        """Do so with all that this node charged, as far as it isn't done.

        Raises:
            StoreError: The disk refused.
        """
        for fact in _facts(journal):
            if isinstance(fact, Charged) and peek(fact.acceptance).i == self._context.peer:
                await self.keep(journal, fact)

    async def close(self, journal: JobJournal) -> None:
        """Write down all that is owed for a job that has ended.

        Raises:
            StoreError: The disk refused.
        """
        if journal.state.elected is not None:
            await self.keep_all(journal)
            await self._advance(journal)

    async def _advance(self, journal: JobJournal) -> None:
        """Post what heirs paid for the owner, if this node is one of them.

        Raises:
            StoreError: The disk refused.
        """
        plan, left_mc = journal.state.required_plan, journal.state.required_plan.budget_mc
        for fact in _facts(journal):
            if isinstance(fact, Judged):  # a panel's judges are paid beside the contractors
                left_mc -= _panel_mc(fact)
                continue
            heir = peek(fact.acceptance).i
            left_mc -= fact.paid_mc
            if heir == plan.owner or self._context.peer not in {heir, plan.owner}:
                continue
            try:
                self._check(journal, fact, left_mc)
            except RemoteProtocolError as exc:
                self._context.emit("advance.refused", job=journal.job, peer=heir, why=str(exc))
                continue
            peer = heir if plan.owner == self._context.peer else plan.owner
            await self._post(journal, fact, peer)

    def _check(self, journal: JobJournal, fact: Charged, left_mc: int) -> None:
        """Hold an heir's charge against what its contractor signed, and the budget."""
        row = _row(_attempt_of(journal, fact), fact)
        *_, accepted = check_receipt(
            row.award, row.result, row.receipt, row.acceptance, network=self._context.network
        )
        if accepted.paid_mc != fact.paid_mc or left_mc < 0:
            raise Malformed("it is more than was accepted, or than the job may cost")

    async def _post(self, journal: JobJournal, fact: Charged, peer: str) -> None:
        own = journal.state.required_plan.owner == self._context.peer
        award = digest(_attempt_of(journal, fact).award)
        posting = self._ledger.advance(
            "spent" if own else "earned",
            peer,
            award,
            fact.paid_mc,
            job=journal.job,
            unit=fact.unit,
        )
        if posting is None:
            return
        async with self._turn:
            if await self._context.store.read(POSTINGS, posting.key) is None:
                now_ms = self._context.clock.now_ms()
                await self._ledger.commit(posting, receipt_time(posting.key, now_ms=now_ms))


def _facts(journal: JobJournal) -> Iterator[Charged | Judged]:
    """Yield what the job spent, and what else there was to it."""
    for event in journal.events():
        if event.kind in _SPENDING:
            fact = from_event(event)
            assert isinstance(fact, Charged | Judged)
            yield fact


def _panel_mc(fact: Judged) -> int:
    """Return what a judgement takes of the budget: its panel's promise, or gives back of it."""
    if fact.sitting is None:
        return 0
    promised_mc = fact.sitting.cap_mc
    return fact.sitting.paid_mc - promised_mc if fact.outcome else promised_mc


def _attempt_of(journal: JobJournal, fact: Charged) -> Attempt:
    return journal.state.units[fact.unit].attempts[fact.attempt]


def _row(attempt: Attempt, fact: Charged) -> ReceiptRow:
    delivered = attempt.delivered
    assert delivered is not None, "the fold lets nothing else be charged"
    return ReceiptRow(attempt.award, delivered.result, delivered.receipt, fact.acceptance)
