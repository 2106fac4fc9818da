"""Matching and batching: an order that doesn't depend on chance, and sums that add up."""

from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.domain.facts import Proposed, Ranked
from meshnode.domain.matching import (
    CALL_GUESS_MS,
    DIAL_GUESS_MS,
    MS_PER_MC,
    Candidate,
    batch_sizes,
    finish_ms,
    first,
    has_room,
    matches,
    proposed,
    rank,
    why_lost,
)

candidates = st.builds(
    Candidate,
    peer=st.sampled_from([f"peer-{n}/a" for n in range(20)]),
    agent=st.sampled_from(["a", "b"]),
    capability=st.just("work.a@1"),
    price_mc=st.integers(0, 50),
    latency_ms=st.integers(0, 2_000),
    concurrency=st.integers(1, 8),
    alive=st.booleans(),
    troubled=st.booleans(),
)
crowds = st.lists(candidates, max_size=12, unique_by=lambda c: (c.peer, c.agent))
loads = st.dictionaries(st.sampled_from([f"peer-{n}" for n in range(20)]), st.integers(0, 9))


@given(st.integers(0, 5_000), st.integers(0, 200), st.integers(1, 1_000))
def test_batches_hold_every_item_once_and_none_too_many(
    count: int, slots: int, items_max: int
) -> None:
    sizes = batch_sizes(count, slots=slots, items_max=items_max)
    assert sum(sizes) == count
    assert all(1 <= size <= items_max for size in sizes)
    assert len(set(sizes[:-1])) <= 1, "only the last one may be smaller"
    if count:
        needed = -(-count // items_max)
        assert len(sizes) <= max(2 * max(1, slots), needed)


@given(crowds, loads, st.integers(1, 50), st.randoms(use_true_random=False))
def test_the_order_is_by_the_facts_and_not_by_who_came_first(
    crowd: list[Candidate], load: dict[str, int], calls: int, rng: object
) -> None:
    shuffled = list(crowd)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    first = rank(crowd, key="job/unit", calls=calls, load=load)
    assert first == rank(shuffled, key="job/unit", calls=calls, load=load)
    assert sorted(c.peer for c, _ in first) == sorted(c.peer for c in crowd)


@given(crowds.filter(bool), loads, st.integers(1, 3), st.integers(0, 3))
def test_the_first_is_the_first_of_all(
    crowd: list[Candidate], load: dict[str, int], calls: int, alike: int
) -> None:
    crowd += [replace(each, peer=f"{each.peer}/{n}") for each in crowd for n in range(alike)]
    chosen = first(crowd, key="job/unit", calls=calls, load=load)
    assert chosen == rank(crowd, key="job/unit", calls=calls, load=load)[0][0]


@given(crowds, loads, st.integers(1, 50))
def test_a_tie_is_broken_by_a_hash_of_job_unit_and_peer(
    crowd: list[Candidate], load: dict[str, int], calls: int
) -> None:
    def place(row: tuple[Candidate, Ranked]) -> tuple[bool, int, bytes, str]:
        one, told = row
        drawn = sha256(f"job/unit\0{one.peer}".encode()).digest()
        return one.troubled, told.finish_ms + MS_PER_MC * told.price_mc, drawn, one.agent

    # Of each, some that differ by their peers alone.
    crowd += [replace(each, peer=f"{each.peer}/{n}") for each in crowd for n in range(3)]
    rows = rank(crowd, key="job/unit", calls=calls, load=load)
    assert rows == sorted(rows, key=place)


@given(crowds, loads, st.integers(1, 50))
def test_nobody_in_trouble_goes_before_others_nor_the_slow_before_the_fast(
    crowd: list[Candidate], load: dict[str, int], calls: int
) -> None:
    rows = rank(crowd, key="k", calls=calls, load=load)
    for (one, told), (two, told_two) in pairwise(rows):
        assert one.troubled <= two.troubled
        if one.troubled == two.troubled:
            cost = told.finish_ms + MS_PER_MC * told.price_mc
            assert cost <= told_two.finish_ms + MS_PER_MC * told_two.price_mc
        assert told.price_mc == one.price_mc * calls
        assert told.finish_ms == finish_ms(one, calls, load)
        assert told.finish_ms == told.parts_ms
        assert min(told.run_ms, told.wait_ms, told.queue_ms, told.dial_ms, told.call_ms) >= 0
        assert (told.agent, told.troubled) == (one.agent, one.troubled)


def test_equals_are_spread_over_the_units_of_a_job() -> None:
    crowd = [
        Candidate(
            peer=f"p{n}",
            agent="a",
            capability="work.a@1",
            price_mc=0,
            latency_ms=9,
            concurrency=1,
        )
        for n in range(5)
    ]
    firsts = {rank(crowd, key=f"j/u/{n}", calls=1, load={})[0][0].peer for n in range(60)}
    assert len(firsts) == 5


@given(candidates, st.integers(1, 20), st.integers(0, 30))
def test_more_waiting_never_means_sooner_done(one: Candidate, calls: int, load: int) -> None:
    assert finish_ms(one, calls, {one.agent_id: load}) <= finish_ms(
        one, calls, {one.agent_id: load + 1}
    )


def test_a_node_without_a_session_costs_a_dial_and_not_its_place() -> None:
    far = Candidate(
        peer="far", agent="a", capability="work.a@1", price_mc=0, latency_ms=500, concurrency=1
    )
    near = replace(far, peer="near", alive=True)
    busy = {near.agent_id: 1}
    assert finish_ms(far, 1, {}) == finish_ms(near, 1, {}) + DIAL_GUESS_MS
    assert rank([far, near], key="k", calls=1, load={})[0][0] is near
    assert rank([far, near], key="k", calls=1, load=busy)[0][0] is far


def test_room_ends_one_beyond_what_runs_at_once() -> None:
    one = Candidate(
        peer="p", agent="a", capability="work.a@1", price_mc=0, latency_ms=1, concurrency=2
    )
    assert has_room(one, {"p/a": 2})
    assert not has_room(one, {"p/a": 3})
    assert has_room(one, {"q": 9})


@pytest.mark.parametrize(
    ("query", "name", "answers"),
    [
        ("work.a", "work.a@1", True),
        ("work.a@1", "work.a@1", True),
        ("work.a@2", "work.a@1", False),
        ("work", "work.a@1", True),
        ("work.a", "work.ab@1", False),
        ("work.a.b", "work.a@1", False),
        ("work.a@1", "work.a.b@1", True),
    ],
)
def test_a_query_is_answered_by_the_same_or_a_more_special_name(
    query: str, name: str, answers: bool
) -> None:
    assert matches(query, name) is answers


@pytest.mark.parametrize(
    ("price_mc", "finish_ms", "why"),
    [
        (100, 1_000, "tie"),
        (101, 1_000, "price"),
        (100, 1_001, "latency"),
        (101, 1_005, "price"),
        (101, 1_006, "latency"),
        (300, 500, "price"),
        (1, 9_000, "latency"),
        (99, 1_000, "other"),
    ],
)
def test_a_loser_lost_by_what_weighed_most(price_mc: int, finish_ms: int, why: str) -> None:
    ranked = [
        Ranked(peer="winner", price_mc=100, finish_ms=1_000),
        Ranked(peer="loser", price_mc=price_mc, finish_ms=finish_ms),
    ]
    assert why_lost(ranked, "winner", "loser") == why


def test_a_loser_that_could_not_be_paid_lost_by_the_budget() -> None:
    ranked = [Ranked(peer="winner", price_mc=100, finish_ms=1_000)]
    assert why_lost(ranked, "winner", "loser") == "budget"
    assert why_lost([], "winner", "loser") == "other"


def test_who_has_no_standing_offer_is_later_by_a_call() -> None:
    plain = Candidate("p", "a", "work.a@1", 1, 400, 1, alive=True)
    offering = replace(plain, offer=b"offer")
    assert finish_ms(plain, 2, {}) - finish_ms(offering, 2, {}) == CALL_GUESS_MS
    far_better = replace(plain, peer="q", latency_ms=100)
    (best, _), _ = rank([offering, far_better], key="job/unit", calls=2, load={})
    assert best == far_better


def test_who_was_seen_to_be_slow_is_not_quick_for_proposing_it() -> None:
    proposal = Proposed(
        unit="a/0",
        attempt=0,
        peer="p",
        proposal=b"x",
        agent="a",
        capability="x.y@1",
        price_mc=1,
        eta_ms=20,
        expires_ms=0,
    )
    claimed = Candidate("p", "a", "x.y@1", 1, 900, 1)
    assert proposed(proposal, 2, [claimed]).latency_ms == 10, (
        "its word is as good as its record"
    )
    slow = proposed(proposal, 2, [replace(claimed, watched=True)])
    assert (slow.latency_ms, slow.watched) == (900, True)
    busy = proposed(replace(proposal, eta_ms=9_000), 2, [replace(claimed, watched=True)])
    assert busy.latency_ms == 4_500
