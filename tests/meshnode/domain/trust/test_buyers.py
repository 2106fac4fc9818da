"""What a contractor can lose to a buyer."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.trust.buyers import (
    FIRST_MC,
    Buyer,
    BuyerEvidence,
    BuyerKind,
    beyond_cap,
)

ENDS: tuple[BuyerKind, ...] = ("accepted", "rejected", "unsupported", "refused")


def after(*rows: tuple[BuyerKind, int]) -> Buyer:
    buyer = Buyer()
    for kind, amount_mc in rows:
        buyer.learn(BuyerEvidence(kind, amount_mc))
    return buyer


def deals(end: BuyerKind, count: int, amount_mc: int) -> list[tuple[BuyerKind, int]]:
    return [row for _ in range(count) for row in (("delivered", amount_mc), (end, amount_mc))]


@given(st.lists(st.tuples(st.sampled_from(ENDS), st.integers(1, 3_000)), max_size=60))
def test_no_more_is_ever_lost_than_was_allowed(rows: list[tuple[BuyerKind, int]]) -> None:
    """Whatever the buyer does, if it is given only what it may have."""
    buyer, allowed_mc = Buyer(), FIRST_MC
    for end, amount_mc in rows:
        if not buyer.may_have(amount_mc):
            continue
        allowed_mc = max(allowed_mc, buyer.exposure_max_mc())
        buyer.learn(BuyerEvidence("delivered", amount_mc))
        buyer.learn(BuyerEvidence(end, amount_mc))
        assert buyer.lost_mc <= buyer.open_mc <= allowed_mc
    assert allowed_mc <= FIRST_MC + buyer.settled_mc // 4


def test_who_takes_and_refuses_gets_nothing_after_its_first() -> None:
    assert Buyer().may_have(FIRST_MC)
    assert not Buyer().may_have(FIRST_MC + 1)
    assert not after(*deals("refused", 1, FIRST_MC)).may_have(1)
    small = after(*deals("refused", 2, 200))
    assert small.lost_mc == 400
    assert not small.may_have(100), "two refusals leave a third of the first amount"


def test_what_it_settles_widens_what_it_may_have() -> None:
    fair = after(*deals("accepted", 20, 1_000))
    assert fair.fairness == 1.0
    assert fair.exposure_max_mc() == FIRST_MC + 5_000
    assert fair.may_have(6_000)


def test_a_rejection_with_its_proof_costs_a_buyer_nothing_and_without_it_does() -> None:
    supported = after(*deals("rejected", 10, 500))
    assert supported.exposure_max_mc() == Buyer().exposure_max_mc()
    assert supported.open_mc == 0
    unsupported = after(*deals("accepted", 4, 500), *deals("unsupported", 2, 500))
    assert unsupported.fairness == 0.5
    assert unsupported.lost_mc == 1_000


@given(st.lists(st.tuples(st.sampled_from(("delivered", *ENDS)), st.integers(0, 500))))
def test_a_restart_changes_nothing(rows: list[tuple[BuyerKind, int]]) -> None:
    kept = [msgspec.msgpack.encode(BuyerEvidence(*row)) for row in rows]
    buyer = Buyer()
    for data in kept:
        buyer.learn(msgspec.msgpack.decode(data, type=BuyerEvidence))
    assert buyer == after(*rows)


@given(
    st.lists(st.tuples(st.sampled_from(ENDS), st.integers(1, 3_000)), max_size=30), st.data()
)
def test_the_order_in_which_it_is_learned_changes_nothing(
    rows: list[tuple[BuyerKind, int]], data: st.DataObject
) -> None:
    whole = [row for kind, mc in rows for row in (("delivered", mc), (kind, mc))]
    assert after(*whole) == after(*data.draw(st.permutations(whole)))  # type: ignore[arg-type]


def test_a_late_receipt_takes_back_what_was_lost() -> None:
    late: list[tuple[BuyerKind, int]] = [("late", 300), ("accepted", 300)]
    assert after(*deals("refused", 1, 300), *late) == after(*deals("accepted", 1, 300))


def said(
    buyer: Buyer, calls: int, *, call_mc: int = 100, **more: int
) -> tuple[str, int] | None:
    terms = {"in_work_mc": 0, "first_mc": FIRST_MC, **more}
    no = beyond_cap(buyer, call_mc=call_mc, calls=calls, **terms)
    return None if no is None else (no.reason, no.retry_ms)


def test_a_refusal_says_whether_receipts_help_or_less_or_nothing() -> None:
    stranger, waits = Buyer(), after(("delivered", 1_000))
    assert said(stranger, 10) is None
    assert said(stranger, 11) == ("items", 0)
    assert said(waits, 1) == ("unsettled", 1_000)
    assert said(stranger, 1, in_work_mc=1_000) == ("unsettled", 1_000)
    assert said(waits, 12) == ("unsettled", 1_000), "settled, it may have 1,250"
    assert said(waits, 13) == ("items", 0)
    assert said(after(*deals("refused", 5, 200)), 1) == ("unsettled", 0)


def test_one_call_may_always_be_the_first_and_free_ones_are_never_refused() -> None:
    dear = 7 * FIRST_MC
    assert said(Buyer(), 1, call_mc=dear) is None
    assert said(Buyer(), 2, call_mc=dear) == ("items", 0)
    assert said(after(("delivered", dear)), 1, call_mc=dear) == ("unsettled", 1_000)
    taker = after(*deals("refused", 1, dear))
    assert said(taker, 1, call_mc=dear) == ("unsettled", 0)
    assert said(taker, 100, call_mc=0) is None
    assert said(taker, 100, first_mc=0) is None
