"""Postings have two sides, count once, and add up to nothing, in whatever order."""

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.ledger import DUE, Balances, Kind, Posting, Standing, account, fold
from protocol.limits import NUMBER_MAX

KINDS: list[Kind] = ["earned", "spent", "paid", "received"]


@st.composite
def _postings(draw: st.DrawFn) -> list[Posting]:
    """Draw postings, each with a key of its own."""
    count = draw(st.integers(0, 20))
    return [
        Posting(
            key=f"{number}",
            peer=draw(st.sampled_from(["ann", "bob", "cid"])),
            kind=draw(st.sampled_from(KINDS)),
            amount_mc=draw(st.integers(1, NUMBER_MAX)),
            at_ms=draw(st.integers(0, 10**13)),
        )
        for number in range(count)
    ]


@given(_postings())
def test_all_accounts_together_are_nothing(postings: list[Posting]) -> None:
    assert sum(fold(postings).amounts().values()) == 0
    for posting in postings:
        assert sum(amount_mc for _, amount_mc in posting.sides()) == 0


@given(_postings(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_matters(postings: list[Posting], rng: Random) -> None:
    again = [*postings, *postings[::2]]
    rng.shuffle(again)
    assert fold(again).amounts() == fold(postings).amounts()


@given(_postings())
def test_what_is_due_is_what_its_reasons_make(postings: list[Posting]) -> None:
    balances = fold(postings)
    for peer in balances.peers():
        found = balances.standing(peer)
        owed_mc = found.earned_mc - found.spent_mc + found.paid_mc - found.received_mc
        assert found.due_mc == owed_mc == balances.due_mc(peer)
        assert min(found.earned_mc, found.spent_mc, found.paid_mc, found.received_mc) >= 0


@given(_postings())
def test_balances_go_on_from_their_rows(postings: list[Posting]) -> None:
    half = len(postings) // 2
    later = Balances(fold(postings[:half]).amounts())
    for posting in postings[half:]:
        later.add(posting)
    assert later.amounts() == fold(postings).amounts()


@given(_postings())
def test_two_sides_of_each_posting_mirror_each_other(postings: list[Posting]) -> None:
    """What one node earned another spent, and so on: then each owes what the other is owed."""
    mirror: dict[Kind, Kind] = {
        "earned": "spent",
        "spent": "earned",
        "paid": "received",
        "received": "paid",
    }
    theirs = fold(msgspec.structs.replace(p, kind=mirror[p.kind]) for p in postings)
    ours = Counter(fold(postings).amounts())
    for peer in ("ann", "bob", "cid"):
        assert theirs.due_mc(peer) == -ours[account(DUE, peer)]


def test_who_was_never_paid_stands_at_nothing() -> None:
    assert Balances().standing("ann") == Standing(0, 0, 0, 0, 0)
    assert Balances().peers() == []


@pytest.mark.parametrize("amount_mc", [0, -1, NUMBER_MAX + 1])
def test_what_moves_nothing_or_too_much_is_no_posting(amount_mc: int) -> None:
    with pytest.raises(ValueError, match="a posting of"):
        Posting(key="k", peer="ann", kind="paid", amount_mc=amount_mc, at_ms=0)
