"""What nodes wrote down as owed: each ledger says what its receipts say, and two sides agree.

Read from the disks, as :mod:`simulations.money` reads the receipts.  It holds while no
receipt is past its time: postings go with their receipts, and balances stay.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from meshnode.domain.ledger import DUE, Kind, Posting, account, fold
from meshnode.ports import read_sum
from meshnode.services.ledger import BALANCES, HISTORY, POSTINGS, read_posting
from simulations.estate import Estate, Holder

_RECEIPTS: Final = frozenset({"earned", "spent"})


class Paid(Protocol):
    """A payment, as a receipt has it."""

    @property
    def broker(self) -> str:
        """PeerId."""

    @property
    def contractor(self) -> str:
        """PeerId."""

    @property
    def paid_mc(self) -> int:
        """How much."""


def check_ledgers(
    mesh: Estate,
    *,
    paid: Mapping[str, Paid],
    got: Mapping[str, Paid],
    advances: Mapping[str, Mapping[str, tuple[Kind, str, int]]] | None = None,
) -> Iterator[str]:
    """What is owed is what receipts say, at both sides; nothing comes from nowhere.

    Args:
        mesh: At rest.
        paid: Award -> what its broker's receipt says.
        got: Award -> what its contractor's receipt says.
        advances: PeerId -> what else it must say, by key of the posting.
    """
    wanted: dict[str, dict[str, tuple[Kind, str, int]]] = {}  # PeerId -> award -> posting
    for peer, rows in (advances or {}).items():
        wanted.setdefault(peer, {}).update(rows)
    for award, payment in paid.items():
        row: tuple[Kind, str, int] = ("spent", payment.contractor, payment.paid_mc)
        wanted.setdefault(payment.broker, {})[award] = row
    for award, payment in got.items():
        row = ("earned", payment.broker, payment.paid_mc)
        if payment.broker != payment.contractor:
            wanted.setdefault(payment.contractor, {})[award] = row
    for member in mesh.members.values():
        yield from _check_book(mesh, member, wanted.get(member.peer, {}))
    yield from _check_sides(mesh)


def amounts(member: Holder) -> dict[str, int]:
    """Return what is in each account, as the disk of ``member`` has it."""
    cells = member.disk.tables.get(BALANCES, {})
    return {name: read_sum(raw) for name, raw in cells.items()}


def postings(member: Holder) -> list[Posting]:
    """Return every posting on the disk of ``member``."""
    return [read_posting(raw) for raw in member.disk.tables.get(HISTORY, {}).values()]


def _check_book(
    mesh: Estate, member: Holder, wanted: Mapping[str, tuple[Kind, str, int]]
) -> Iterator[str]:
    """One node's ledger is what its receipts and settlements say."""
    name, held, posted = member.name, amounts(member), postings(member)
    there = {
        posting.key: (posting.kind, posting.peer, posting.amount_mc)
        for posting in posted
        if posting.kind in _RECEIPTS
    }
    due = {award: row for award, row in wanted.items() if row[2] and row[1] != member.peer}
    for award in sorted(due.keys() | there.keys()):
        if due.get(award) != there.get(award):
            yield (
                f"{name} posted {_told(mesh, there.get(award))} for award {award[:12]}, its"
                f" receipt says {_told(mesh, due.get(award))}"
            )
    if member.disk.tables.get(POSTINGS, {}).keys() != {posting.key for posting in posted}:
        yield f"{name} has other keys than postings in its ledger"
    if held != fold(posted).amounts():
        yield f"{name} has balances of {held}, its postings make {fold(posted).amounts()}"
    if total_mc := sum(held.values()):
        yield f"the accounts of {name} make {total_mc} mc, and not nothing"


def _check_sides(mesh: Estate) -> Iterator[str]:
    """What one node says that another owes it, that one says that it owes."""
    dues = {member.peer: _dues(member) for member in mesh.members.values()}
    place = {peer: number for number, peer in enumerate(dues)}
    # Only those who have an account with each other: a pair of others owes nothing.
    pairs = {
        (one, other) if place[one] < place[other] else (other, one): None
        for one, there in dues.items()
        for other in there
        if other in place and other != one
    }
    for one, other in pairs:
        owed_mc, owes_mc = dues[one].get(other, 0), -dues[other].get(one, 0)
        if owed_mc != owes_mc:
            yield (
                f"{mesh.name(one)} says that {mesh.name(other)} owes it {owed_mc} mc, and"
                f" {mesh.name(other)} that it owes {owes_mc} mc"
            )


def _dues(member: Holder) -> dict[str, int]:
    """Return what each peer owes ``member``, by its disk."""
    of = account(DUE, "")
    return {
        name.removeprefix(of): amount_mc
        for name, amount_mc in amounts(member).items()
        if name.startswith(of)
    }


def _told(mesh: Estate, row: tuple[Kind, str, int] | None) -> str:
    if row is None:
        return "nothing"
    kind, peer, amount_mc = row
    return f"{amount_mc} mc {kind} ({mesh.name(peer)})"
