"""Three members can come to nothing in which an epoch has two brokers, or fencing fails.

All walks within bounds are walked (:mod:`tests.meshnode.domain.failover_worlds`); and the
walks find what is wrong with rules that leave one of the precautions out.
"""

import os

import pytest
from typing_extensions import override

from meshnode.domain.failover import Asked, Rules, Seat, Seen, Turn
from tests.meshnode.domain.failover_worlds import Bounds, Walk, World, mandate

NIGHT = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
#: Walks of minutes.
AT_NIGHT = [
    Bounds(asks=3, crashes=1, drifts=1),
    Bounds(asks=3, epochs=3, crashes=1),
    Bounds(asks=4),
] * NIGHT
CONTRACTS_AT_NIGHT = [
    Bounds(asks=2, crashes=2, contracts=True),
    Bounds(asks=3, contracts=True),
] * NIGHT


def walked(walk: Walk, *counts: int) -> list[World]:
    """Every world, none of which breaks a claim."""
    worlds = list(walk.worlds(walk.start(*counts)))
    assert [world.broken for world in worlds if world.broken] == []
    return worlds


def found(walk: Walk) -> str:
    """What the walk finds broken."""
    return next(world.broken for world in walk.worlds(walk.start()) if world.broken)


def epochs_won(worlds: list[World]) -> int:
    """The most epochs won in one of them."""
    return max(len(world.won) for world in worlds)


# --- the rules ---


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(asks=3),
        Bounds(asks=2, crashes=1, drifts=1),
        *AT_NIGHT,
    ],
    ids=str,
)
def test_an_epoch_has_one_broker_and_one_acts_at_a_time(bounds: Bounds) -> None:
    worlds = walked(Walk(Rules(mandate()), bounds))
    assert epochs_won(worlds) == bounds.epochs, "the walks come to where the job has passed on"
    winners = {who for world in worlds for epoch, who in world.won if epoch == 1}
    assert winners == {"A", "B", "C"}


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(asks=2, drifts=2, drifts_free=True, contracts=True),
        *CONTRACTS_AT_NIGHT,
    ],
    ids=str,
)
def test_a_contractor_that_has_seen_an_epoch_takes_nothing_lower(bounds: Bounds) -> None:
    worlds = walked(Walk(Rules(mandate()), bounds))
    assert {world.taken for world in worlds} == {0, 1, 2}
    late = [world for world in worlds if world.taken == 2 and len(world.awards) == 2]
    assert late, "an award of the loser is still about when the winner's is taken"


def test_clocks_that_drift_by_more_than_the_allowance_let_two_act() -> None:
    """Which is why it isn't claimed."""
    rules = Rules(mandate())
    walk = Walk(rules, Bounds(asks=2, drifts=2, drifts_free=True))
    assert any(
        sum(rules.may_act(seat, now_ms=0) for seat in world.seats) == 2
        for world in walk.worlds(walk.start())
    )


def test_who_has_less_of_the_journal_than_a_majority_never_wins() -> None:
    worlds = walked(Walk(Rules(mandate()), Bounds(asks=2)), 5, 5, 4)
    winners = {who for world in worlds for _, who in world.won}
    assert winners == {"A", "B"}


# --- rules that leave something out ---


class GrantsTwice(Rules):
    """Grants an epoch to whoever asks for it, also when it gave it to another."""

    @override
    def may_grant(self, seat: Seat, asked: Asked, *, now_ms: int) -> bool:
        again = asked.epoch == seat.promise.epoch
        return again or super().may_grant(seat, asked, now_ms=now_ms)


class Forgets(Rules):
    """Doesn't write down what it grants."""

    @override
    def restarted(self, seat: Seat, *, now_ms: int) -> Seat:
        return self.seat(seat.me, seat.position, now_ms=now_ms)


class BreaksLeases(Rules):
    """Grants a later epoch while it has promised to wait."""

    @override
    def may_grant(self, seat: Seat, asked: Asked, *, now_ms: int) -> bool:
        free = seat._replace(promise=seat.promise._replace(until_ms=0))
        return super().may_grant(free, asked, now_ms=now_ms)


class GoesOn(Rules):
    """Acts on a lease of its own making: nobody else need hold it."""

    @override
    def acts_until_ms(self, seat: Seat) -> int:
        asks = seat.candidacy
        won = asks is not None and self.has_won(seat)
        return asks.asked_ms + self.mandate.lease_ms if won and asks else 0


class HoldsOn(Rules):
    """Goes on asking for an epoch after it has granted a later one to another."""

    @override
    def asked(self, seat: Seat, asked: Asked, *, now_ms: int) -> Turn:
        turn = super().asked(seat, asked, now_ms=now_ms)
        return turn._replace(seat=turn.seat._replace(candidacy=seat.candidacy))


@pytest.mark.parametrize(
    ("rules", "bounds", "broken"),
    [
        (GrantsTwice(mandate()), Bounds(asks=2), "an epoch has two brokers"),
        (
            Forgets(mandate()),
            Bounds(asks=2, crashes=1, drifts_free=True),
            "an epoch has two brokers",
        ),
        (BreaksLeases(mandate()), Bounds(asks=2), "one acts beyond its lease"),
        (HoldsOn(mandate()), Bounds(asks=3), "one acts beyond its lease"),
        (GoesOn(mandate()), Bounds(asks=3), "one acts beyond its lease"),
        (Rules(mandate(skew_ms=0)), Bounds(asks=2, drifts=1), "one acts beyond its lease"),
    ],
    ids=["grants twice", "forgets", "breaks leases", "holds on", "goes on", "no allowance"],
)
def test_the_walk_finds_what_is_wrong(rules: Rules, bounds: Bounds, broken: str) -> None:
    assert found(Walk(rules, bounds)) == broken


def test_the_walk_finds_a_contractor_without_fencing() -> None:
    def takes_all(seen: Seen | None, award: Seen) -> bool:
        return True

    walk = Walk(Rules(mandate()), Bounds(asks=2, contracts=True), admits=takes_all)
    assert found(walk) == "epoch 1 was taken after 2"
