"""Examples of records: what can't be chance, what may be compared, who is heard."""

import msgspec
import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from meshnode.domain.spot_checks import (
    OUTCOME_LIFETIME_MS,
    Outcome,
    Owner,
    Purse,
    Spotted,
    chance_of,
    comparable,
    is_belied,
    spotted,
    told,
)
from protocol.likeness import EXACT, Likeness
from protocol.records import CallLimits, Capability, Measured

NOW_MS = 1_000_000_000_000
SCHEMA = b'{"type":"object"}'


def offer(right: int = 4, *, deterministic: bool = False, **more: object) -> Capability:
    """Return an offer whose record claims ``right`` of four examples."""
    return msgspec.structs.replace(
        Capability(
            agent="shout",
            name="text.shout@1",
            description="Shouts.",
            examples=[],
            input_schema=SCHEMA,
            output_schema=SCHEMA,
            price_mc=1,
            limits=CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
            measured=Measured(samples=4, latency_ms=1, at_ms=NOW_MS, tried=4, right=right),
            deterministic=deterministic,
        ),
        **more,
    )


def did(*right: bool, at_ms: int = NOW_MS) -> list[Outcome]:
    return [Outcome(at_ms, one) for one in right]


@pytest.mark.parametrize(
    ("own", "claimed", "overclaims"),
    [
        (did(False), offer(), False),
        (did(False, False), offer(), False),
        (did(False, False, False), offer(), True),
        (did(*[False] * 3, *[True] * 13), offer(), False),
        (did(False), offer(deterministic=True), True),
        (did(True, True), offer(deterministic=True), False),
        (did(False), offer(3, deterministic=True), False),
        (did(*[False] * 9), offer(0), False),
        (did(*[False] * 9, at_ms=NOW_MS - OUTCOME_LIFETIME_MS), offer(), False),
        (did(*[False] * 9), offer(measured=Measured()), False),
        (did(*[False] * 9), None, False),
        ([], offer(), False),
    ],
    ids=[
        *("once may be chance", "twice too", "three times isn't", "three of sixteen may be"),
        *("who always answers alike has no chance", "nor needs it", "nor claimed it"),
        *(
            "who claims nothing keeps its word",
            "long ago",
            "no claim",
            "no record",
            "not asked",
        ),
    ],
)
def test_to_overclaim_is_more_than_chance(
    own: list[Outcome], claimed: Capability | None, *, overclaims: bool
) -> None:
    assert spotted(own, claimed, now_ms=NOW_MS).overclaims == overclaims


@given(st.integers(0, 16), st.integers(0, 16), st.integers(0, 4), st.integers(1, 4))
def test_the_more_came_right_the_less_is_it_an_overclaim(
    right: int, asked: int, claimed: int, tried: int
) -> None:
    right, claimed = min(right, asked), min(claimed, tried)
    chance = chance_of(right, asked, claimed, tried)
    assert 0.0 < chance <= 1.0
    if right < asked:
        assert chance <= chance_of(right + 1, asked, claimed, tried)


def test_it_is_told_by_name() -> None:
    assert told(Spotted()) == ""
    seen = spotted(did(False, True, False, False, False, False), offer(), now_ms=NOW_MS)
    line = "claims 4 of 4 of its examples right, 1 of 6 seen"
    assert told(seen) == f"{line}; it overclaims"
    both = Spotted(tried=4, right=4, asked=6, came_right=1, others=3, unlike=1)
    assert told(both) == f"{line}; 1 of 3 examples of others answered otherwise"


NORMALISED = Likeness("normalised")


@pytest.mark.parametrize(
    ("one", "other", "like"),
    [
        (offer(like=NORMALISED), offer(like=NORMALISED), NORMALISED),
        (offer(like=EXACT), offer(like=EXACT), EXACT),
        (offer(like=NORMALISED), offer(like=EXACT), None),
        (offer(), offer(), None),
        (offer(deterministic=True), offer(deterministic=True), EXACT),
        (offer(deterministic=True), offer(), None),
        (offer(deterministic=True), offer(deterministic=True, model_family="smollm2"), None),
        (offer(like=Likeness("embedding", alike_pct=90)),) * 2 + (None,),
        (offer(like=EXACT), offer(like=EXACT, input_schema=b"{}"), None),
        (offer(like=EXACT), offer(like=EXACT, name="text.shout@2"), None),
    ],
)
def test_only_where_one_answer_is_right_are_others_held_against_it(
    one: Capability, other: Capability, like: Likeness | None
) -> None:
    assert comparable(one, other) == comparable(other, one) == like


def test_an_owner_is_heard_while_it_is_believed_and_not_gainsaid() -> None:
    assert Owner("p/a", 0.8).is_heard()
    assert not Owner("p/a", 0.79).is_heard()
    assert not Owner("p/a", 0.9, overclaims=True).is_heard()
    assert Owner("p/a", 0.9, gainsaid=1).is_heard()
    assert not Owner("p/a", 0.9, gainsaid=2).is_heard()
    assert Owner("p/a", 0.9, gainsaid=2, alike=1).is_heard()


@pytest.mark.parametrize(
    ("owner", "agent", "lost"),
    [(0.98, 0.4, True), (0.85, 0.4, False), (0.95, 0.9, False), (0.9, 0.95, False)],
)
def test_who_is_believed_less_loses_and_only_against_who_is_all_but_sure(
    owner: float, agent: float, *, lost: bool
) -> None:
    assert is_belied(Owner("p/a", owner), "q/a", agent) == lost


def test_a_purse_holds_what_was_saved_and_few_calls_at_once() -> None:
    purse = Purse()
    for _ in range(5):
        purse.earn(0.5, 3.0, calls_max=2.0)
    assert (purse.calls, purse.mc) == (2.0, 12.0), "two calls at what they cost"
    assert purse.affords(2, 12)
    assert not purse.affords(3, 0)
    assert not purse.affords(1, 13)
    purse.pay(1, 20)
    assert not purse.affords(1, 0), "what was spent too much is made up first"
    purse.earn(1.0, 8.0, calls_max=2.0)
    assert purse.affords(2, 0)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 5.0), st.integers(0, 100), st.integers(0, 9)), min_size=1
    )
)
def test_a_purse_never_holds_more_than_some_calls_at_the_mean_price(
    works: list[tuple[float, int, int]],
) -> None:
    """Each work: calls saved up, the price of each, and what a check costs after it."""
    note(str(works))
    purse = Purse()
    for calls, price_mc, check_mc in works:
        purse.earn(calls, calls * price_mc, calls_max=4.0)
        assert purse.mc <= 4.0 * purse.earned_mc / purse.earned_calls + 1e-6
        assert purse.calls <= 4.0
        if purse.affords(1, check_mc):
            purse.pay(1, check_mc)


def test_who_is_cheap_to_check_does_not_pay_for_one_dear_check() -> None:
    purse = Purse()
    for _ in range(1_000):
        purse.earn(1.0, 3.0, calls_max=4.0)
        purse.pay(1, 0)
    assert not purse.affords(0, 13)
