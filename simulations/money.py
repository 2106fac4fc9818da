"""Where the money went: what brokers paid is what contractors were paid, and no more.

Every disk is read: receipts of both sides, the charges in the journals, what contractors
count as earned, and the ledgers (:mod:`simulations.ledgers`).  They must tell one story,
mesh-wide and job by job.  Nothing here asks a node; signatures are checked once for each
contract, at the broker's copy.

A job with standbys may have had several brokers: what was charged is what its one story
says (:mod:`simulations.heritage`), whoever charged it, and each of them has the receipts of
its own part.

It is meant for when all is at rest: a receipt on its way is money that nobody has.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from meshnode.domain.facts import Charged, Fact, Judged, Planned, from_event
from meshnode.domain.tallies import Tally
from meshnode.services.bodies import RECEIPT_ROW, RECEIPTS
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.served import SERVED
from protocol.codec import decode_as
from protocol.errors import ProtocolError
from protocol.journal import decode_event
from protocol.messages import read_message
from protocol.receipts import Acceptance, check_receipt
from simulations.checkers import kind_of
from simulations.estate import Estate, Holder
from simulations.heritage import Postings, advances, is_chartered, read_stories
from simulations.ledgers import check_ledgers

_TALLY: Final = msgspec.msgpack.Decoder(Tally)
_KINDS: Final = frozenset({Planned.KIND, Charged.KIND, Judged.KIND})
_PANEL: Final = "panel/"


@dataclass(frozen=True, slots=True)
class Payment:
    """One side's copy of a finished contract, as far as it is about money."""

    broker: str
    contractor: str
    job: str
    paid_mc: int


@dataclass(slots=True)
class Account:
    """One job, as its broker's disk has it.

    Attributes:
        broker: Name of its node; of the owner's, if it had several.
        budget_mc: What it may cost.
        charged_mc: By its journal.
        panels_mc: What its panels cost, by its journal.
        keys: What was charged, how often.
        paid_mc: By the broker's receipts.
    """

    broker: str
    budget_mc: int = 0
    charged_mc: int = 0
    panels_mc: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    paid_mc: int = 0


@dataclass(slots=True)
class Books:
    """All of a mesh's money.

    Attributes:
        network_id: Which mesh.
        paid: Award -> what its broker's receipt says.
        got: Award -> what its contractor's receipt says.
        jobs: (PeerId, or charter in hex, and job id) -> account.
        advances: PeerId -> what its ledger must say beside receipts.
        promised_mc: (PeerId, job id) -> what that broker promised judges, by the journal.
        earned_mc: Node -> what it counts as earned from others.
        troubles: What could not be read.
    """

    network_id: str
    paid: dict[str, Payment] = field(default_factory=dict)
    got: dict[str, Payment] = field(default_factory=dict)
    jobs: dict[tuple[str, str], Account] = field(default_factory=dict)
    promised_mc: Counter[tuple[str, str]] = field(default_factory=Counter)
    earned_mc: Counter[str] = field(default_factory=Counter)
    advances: Mapping[str, Postings] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    @property
    def paid_mc(self) -> int:
        """What all brokers paid."""
        return sum(payment.paid_mc for payment in self.paid.values())

    @property
    def got_mc(self) -> int:
        """What all contractors were paid."""
        return sum(payment.paid_mc for payment in self.got.values())


def read_books(mesh: Estate) -> Books:
    """Return what the disks of ``mesh`` say."""
    books = Books(mesh.network_id)
    for member in mesh.members.values():
        for log, entries in member.disk.logs.items():
            if log.startswith("job/") and not is_chartered(entries):
                job = log.removeprefix("job/")
                account = books.jobs.setdefault((member.peer, job), Account(member.name))
                for body in entries[1:]:
                    if kind_of(body) in _KINDS:
                        _count(books, account, job, from_event(decode_event(body)))
        for award, raw in member.disk.tables.get(RECEIPTS, {}).items():
            _read_receipt(books, member, award, raw)
        for raw in member.disk.tables.get(SERVED, {}).values():
            books.earned_mc[member.name] += _TALLY.decode(raw).earned_mc
    _read_stories(books, mesh)
    return books


def _read_stories(books: Books, mesh: Estate) -> None:
    stories, troubles = read_stories(mesh)
    for story in stories:
        account = books.jobs.setdefault((story.charter.hex(), story.job), Account(""))
        for fact in story.facts():
            if isinstance(fact, Planned):
                account.broker = mesh.name(fact.owner)
            _count(books, account, story.job, fact)
    books.troubles += troubles
    books.advances = advances(stories)


def _count(books: Books, account: Account, job: str, fact: Fact) -> None:
    if isinstance(fact, Planned):
        account.budget_mc = fact.budget_mc
    elif isinstance(fact, Charged):
        account.charged_mc += fact.paid_mc
        accepted = read_message(fact.acceptance, Acceptance, network=books.network_id)
        account.keys[fact.key] += accepted.verdict != "rejected"
    elif isinstance(fact, Judged) and fact.sitting is not None:
        if fact.outcome:
            account.panels_mc += fact.sitting.paid_mc
        else:
            books.promised_mc[fact.sitting.broker, job] += fact.sitting.cap_mc


def _read_receipt(books: Books, member: Holder, award: str, raw: bytes) -> None:
    row = decode_as(raw, RECEIPT_ROW)
    try:
        accepted = read_message(row.acceptance, Acceptance, network=books.network_id)
        head = accepted.h
        payment = Payment(head.issuer, head.audience, head.job, accepted.paid_mc)
        if head.issuer == member.peer:
            check_receipt(
                row.award, row.result, row.receipt, row.acceptance, network=books.network_id
            )
            if award in books.paid:
                books.troubles.append(f"award {award[:12]} was paid by two brokers")
            books.paid[award] = payment
            whose = head.charter.hex() or member.peer
            account = books.jobs.setdefault((whose, head.job), Account(member.name))
            account.paid_mc += accepted.paid_mc
        if head.audience == member.peer:
            books.got[award] = payment
    except ProtocolError as exc:
        books.troubles.append(f"{member.name}: the receipt of {award[:12]} is none: {exc}")


def check_money(mesh: Estate) -> Iterator[str]:
    """Every millicredit that was paid was got, none twice, and no job spent too much."""
    books = read_books(mesh)
    yield from books.troubles
    yield from _check_contracts(mesh, books)
    for (_, job), account in books.jobs.items():
        if account.paid_mc != account.charged_mc:
            yield (
                f"job {job} of {account.broker}: receipts of {account.paid_mc} mc, the"
                f" journal charges {account.charged_mc} mc"
            )
        cost_mc = account.charged_mc + account.panels_mc
        if cost_mc > account.budget_mc:
            yield (
                f"job {job} of {account.broker} was charged {cost_mc} of {account.budget_mc} mc"
                ", its panels counted in"
            )
        if again := [key for key, times in account.keys.items() if times > 1]:
            yield f"job {job} of {account.broker} was charged twice for {again}"
    yield from _check_panels(mesh, books)
    yield from _check_earnings(mesh, books)
    yield from check_ledgers(mesh, paid=books.paid, got=books.got, advances=books.advances)
    if books.paid_mc != books.got_mc:
        yield f"brokers paid {books.paid_mc} mc, contractors got {books.got_mc} mc"


def _check_contracts(mesh: Estate, books: Books) -> Iterator[str]:
    for award, payment in books.paid.items():
        name = mesh.name(payment.contractor)
        got = books.got.get(award)
        if got is None:
            yield f"{name} never got {payment.paid_mc} mc for award {award[:12]}"
        elif got != payment:
            yield (
                f"award {award[:12]}: {mesh.name(payment.broker)} says that it paid"
                f" {payment.paid_mc} mc, {name} that it got {got.paid_mc} mc"
            )
    for award, payment in books.got.items():
        if award not in books.paid:
            name = mesh.name(payment.contractor)
            yield f"{name} got {payment.paid_mc} mc for {award[:12]} that nobody paid"


def _check_panels(mesh: Estate, books: Books) -> Iterator[str]:
    """A broker pays judges what it promised them at most, in a journal that counts."""
    paid_mc: Counter[tuple[str, str]] = Counter()
    for member in mesh.members.values():
        for key, raw in member.disk.tables.get(KEYS, {}).items():
            if key.startswith(_PANEL):
                account = books.jobs.get((member.peer, read_key(raw)[0]), Account(""))
                paid_mc[member.peer, key.split("/")[1]] += account.charged_mc
    for (peer, job), paid in paid_mc.items():
        if paid > (most := books.promised_mc[peer, job]):
            yield f"{mesh.name(peer)} paid judges of job {job} {paid} mc, and promised {most}"


def _check_earnings(mesh: Estate, books: Books) -> Iterator[str]:
    """What a node counts as earned is in its receipts; its own business doesn't count."""
    got_mc: Counter[str] = Counter()
    for payment in books.got.values():
        if payment.broker != payment.contractor:
            got_mc[mesh.name(payment.contractor)] += payment.paid_mc
    for name in mesh.members:
        if got_mc[name] != books.earned_mc[name]:
            yield (
                f"{name} counts {books.earned_mc[name]} mc as earned, its receipts say"
                f" {got_mc[name]} mc"
            )
