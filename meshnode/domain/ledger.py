"""Who owes whom: postings of two sides each, and the balances that they add up to.

Credit is between two nodes: what one owes the other, by receipts that both signed, less
what was settled.  Each priced receipt is one posting, keyed by its award's hash, so that
the same receipt counts once however often it comes; a settlement is one, keyed by an id of
its own.  A posting takes from one account what it gives to another, so all accounts
together are zero at every node, whatever was posted and in whatever order.

The accounts are kept for each peer: ``due`` is what it owes this node (below zero, what
this node owes it), and the others say why.  Amounts are whole millicredits.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from meshnode.domain.admission import No
from protocol.limits import NUMBER_MAX

#: Reason of a refusal (60-contracts.md), and the code of what then fails.
CREDIT: Final = "credit"
EXHAUSTED: Final = "credit.exhausted"
#: Peers that are named to people.
_NAMED_MAX: Final = 3

#: What a peer owes this node: the other side of each posting.
DUE: Final = "due"

#: This node worked for the peer, or it for this node; this node paid it, or it this node.
Kind = Literal["earned", "spent", "paid", "received"]
#: What each does to what the peer owes.
_SIGNS: Final[Mapping[Kind, int]] = {"earned": 1, "spent": -1, "paid": 1, "received": -1}


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that moves from one account to another.

    Attributes:
        key: Hash of the award, in hex, with a suffix for what an heir paid under it, or the
            settlement's id: what is posted once.
        peer: Between whom and this node.
        kind: Why; names the account beside ``due``.
        amount_mc: More than 0.
        at_ms: When it was written down here, Unix time.
        job: Of a receipt, whose it is; empty for a settlement.
        unit: Likewise.
        note: What the owner said of a settlement, or what else it is about.
    """

    key: str
    peer: str
    kind: Kind
    amount_mc: int
    at_ms: int
    job: str = ""
    unit: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what moves nothing."""
        if not 0 < self.amount_mc <= NUMBER_MAX:
            raise ValueError(f"a posting of {self.amount_mc} mc")

    def sides(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return both accounts with what is added to each; together nothing."""
        due_mc = _SIGNS[self.kind] * self.amount_mc
        return (account(DUE, self.peer), due_mc), (account(self.kind, self.peer), -due_mc)


@dataclass(frozen=True, slots=True)
class Standing:
    """How this node and one peer stand.

    Attributes:
        due_mc: What the peer owes this node; below zero, what this node owes it.
        earned_mc: For work that this node did for it, or paid others for.
        spent_mc: For work that it did, or paid others for.
        paid_mc: What this node paid it.
        received_mc: What it paid.
    """

    due_mc: int
    earned_mc: int
    spent_mc: int
    paid_mc: int
    received_mc: int


def account(name: str, peer: str) -> str:
    """Return the account of that name with ``peer``."""
    return f"{name}/{peer}"


class Balances:
    """What postings add up to.  It doesn't know which those were: see :func:`fold`."""

    def __init__(self, amounts: Mapping[str, int] | None = None) -> None:
        self._amounts = dict(amounts or {})

    def add(self, posting: Posting) -> None:
        """Take in a posting that isn't in it yet."""
        for name, amount_mc in posting.sides():
            self._amounts[name] = self._amounts.get(name, 0) + amount_mc

    def due_mc(self, peer: str) -> int:
        """Return what ``peer`` owes this node; below zero, what this node owes it."""
        return self._amounts.get(account(DUE, peer), 0)

    def standing(self, peer: str) -> Standing:
        """Return how ``peer`` and this node stand; all zero if nothing ever happened."""

        def moved(kind: Kind) -> int:
            return -_SIGNS[kind] * self._amounts.get(account(kind, peer), 0)

        return Standing(
            due_mc=self.due_mc(peer),
            earned_mc=moved("earned"),
            spent_mc=moved("spent"),
            paid_mc=moved("paid"),
            received_mc=moved("received"),
        )

    def peers(self) -> list[str]:
        """Return everyone with whom anything was ever posted."""
        return sorted({name.partition("/")[2] for name in self._amounts})

    def amounts(self) -> dict[str, int]:
        """Return every account with what is in it; the sum of all is zero."""
        return dict(self._amounts)


def fold(postings: Iterable[Posting]) -> Balances:
    """Return what ``postings`` add up to, each key taken once."""
    balances = Balances()
    taken: set[str] = set()
    for posting in postings:
        if posting.key not in taken:
            taken.add(posting.key)
            balances.add(posting)
    return balances


def beyond(
    limit_mc: int, *, due_mc: int, reserved_mc: int, more_mc: int, payee: str
) -> No | None:
    """Return why a peer may not have ``more_mc`` of work on credit, if that is so.

    Args:
        limit_mc: What it may owe; 0 for no limit.
        due_mc: What it owes.
        reserved_mc: What it will owe for what it has in work, at most.
        more_mc: What it would owe beside; work that costs nothing is never refused.
        payee: PeerId of the node that says so.
    """
    if not limit_mc or not more_mc or due_mc + reserved_mc + more_mc <= limit_mc:
        return None
    work = f" and has {reserved_mc} mc of work that it hasn't accepted" if reserved_mc else ""
    return No(
        CREDIT,
        f"this node lets one peer owe it {limit_mc} mc: yours owes {due_mc} mc{work}, and"
        f" {more_mc} mc more were asked for; its owner settles with `meshnode ledger settle"
        f" {payee} AMOUNT`",
    )


def exhausted(unit: str, peers: Collection[str]) -> tuple[str, str]:
    """Return code and text for a unit that all could do whom this node may owe no more."""
    named = sorted(peers)[:_NAMED_MAX]
    more = f" and {len(peers) - len(named)} more" if len(peers) > len(named) else ""
    return EXHAUSTED, (
        f"sub-task {unit}: this node owes {', '.join(named)}{more} as much as"
        " ledger.owing_max_mc lets it, or would: settle with `meshnode ledger settle PEER"
        " AMOUNT`, or raise that"
    )
