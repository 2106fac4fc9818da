"""Buyers that take results and refuse receipts."""

import pytest

from meshnode.domain.trust.buyers import FIRST_MC
from simulations.trust.fraud import PRICE_MC, Refusal, play_refusal


def test_the_same_seed_is_the_same_course() -> None:
    assert play_refusal(Refusal(guarded=True), seed=1) == play_refusal(
        Refusal(guarded=True), seed=1
    )


@pytest.mark.parametrize("patience", [0, 10, 40])
def test_who_looks_at_the_buyer_loses_what_one_may_have_out(patience: int) -> None:
    guarded, open_handed = (
        play_refusal(Refusal(guarded=guarded, patience=patience), seed=1)
        for guarded in (True, False)
    )
    assert guarded.lost_max_mc <= FIRST_MC + guarded.paid_mc / 4
    assert open_handed.lost_max_mc > 3 * guarded.lost_max_mc
    assert open_handed.lost_max_mc >= PRICE_MC


def test_honest_buyers_whose_receipts_get_lost_are_served() -> None:
    assert play_refusal(Refusal(guarded=True), seed=2).turned_away < 0.01
