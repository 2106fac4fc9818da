"""What is done so that brokers don't all run to the same agent, decision by decision."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace as replace_view
from itertools import islice
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.domain.attempts import pause_ms
from meshnode.domain.crowding import (
    SUBSET,
    TURNED_MAX,
    WAIT_MAX_MS,
    WAIT_MIN_MS,
    Need,
    limit_ms,
    place,
    subset,
    wait_max_ms,
    wait_ms,
)
from meshnode.domain.facts import Expanded, Fact, Failed
from meshnode.domain.job import JobState
from meshnode.domain.matching import LATENCY_GUESS_MS, MS_PER_MC, Candidate, lead, rank
from meshnode.domain.plan_parts import GoldPlan
from meshnode.domain.queues import QUEUE_MS_MAX, Queues
from meshnode.domain.replanning import looked_for
from meshnode.domain.step_kinds import Call, End, MakeAward, View
from meshnode.domain.steps import next_steps
from protocol.limits import NUMBER_MAX
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.test_fold import AWARDED, FAILED, other, state_after
from tests.meshnode.domain.test_matching import crowds, loads
from tests.meshnode.domain.test_steps import QUERY, candidate, candidates, mapped

# --- whom a broker looks at ---------------------------------------------------------------


def crowd(count: int, **fields: object) -> list[Candidate]:
    return [candidate(f"p{number}", **fields) for number in range(count)]


def test_a_broker_looks_at_some_that_could_begin_and_no_further() -> None:
    known = iter(crowd(40))
    assert [one.peer for one in subset(known, load={})] == [f"p{n}" for n in range(SUBSET)]
    assert next(known).peer == f"p{SUBSET}", "the rest was not even made"


def test_who_has_work_of_this_broker_or_failed_it_is_seen_beside_those() -> None:
    known = crowd(40)
    known[1] = replace(known[1], troubled=True)
    load = {known[0].agent_id: 1, known[30].agent_id: 1}
    seen = subset(known, load=load, count=4)
    assert [one.peer for one in seen] == [f"p{n}" for n in range(6)]


def test_where_there_are_few_all_are_seen() -> None:
    assert len(subset(crowd(5), load={})) == 5


def test_many_agents_of_one_node_are_one_of_those() -> None:
    twins = [replace(candidate("p0"), agent=f"a{number}") for number in range(30)]
    seen = subset([*twins, *crowd(10)[1:]], load={}, count=4)
    assert [one.peer for one in seen][-4:] == ["p0", "p1", "p2", "p3"]
    assert len(seen) == 33


def test_whom_the_work_does_not_fit_is_seen_beside_those() -> None:
    known = crowd(40)
    known[0] = replace(known[0], price_mc=61)
    known[1] = replace(known[1], items_max=4)
    known[2] = replace(known[2], troubled=True)
    need = Need(calls=5, price_max_mc=60)
    seen = subset(known, load={}, count=4, fits=need.is_met_by)
    assert [one.peer for one in seen] == [f"p{n}" for n in range(7)]


def test_each_node_is_looked_at_by_about_equally_many_brokers() -> None:
    peers, brokers = [f"peer-{n}" for n in range(200)], [b"salt-%d" % n for n in range(500)]
    seen = Counter(
        peer
        for broker in brokers
        for peer in sorted(peers, key=lambda p: place(broker, p))[:SUBSET]
    )
    # 40 on the mean, binomial: a deviation of 6.
    assert len(seen) == 200
    assert 40 - 5 * 6.1 < min(seen.values()) < max(seen.values()) < 40 + 5 * 6.1


def test_who_comes_or_goes_moves_nobody_else() -> None:
    peers = [f"peer-{n}" for n in range(50)]
    before = sorted(peers, key=lambda p: place(b"salt", p))
    after = sorted(peers[1:], key=lambda p: place(b"salt", p))
    assert [peer for peer in before if peer != peers[0]] == after


# --- how long an award may wait -----------------------------------------------------------


@given(crowds.filter(bool), loads, st.integers(1, 3))
def test_the_lead_is_what_parts_the_first_from_the_second(
    known: list[Candidate], load: Mapping[str, int], calls: int
) -> None:
    best, ahead_ms = lead(known, key="job/unit", calls=calls, load=load)
    rows = rank(known, key="job/unit", calls=calls, load=load)
    assert best == rows[0][0]
    costs = [row.finish_ms + MS_PER_MC * row.price_mc for c, row in rows if not c.troubled]
    costs = costs or [row.finish_ms + MS_PER_MC * row.price_mc for _, row in rows]
    assert ahead_ms == (costs[1] - costs[0] if len(costs) > 1 else None)
    if ahead_ms is not None and rows[0][0].troubled == rows[1][0].troubled:
        limit = wait_max_ms([row for _, row in rows], turned=0)
        assert limit == limit_ms(ahead_ms, best.queue_ms, turned=0)


def test_it_may_wait_until_the_second_would_be_done_sooner() -> None:
    fast = candidate("p", latency_ms=1_000, queue_ms=300, alive=True)
    slow = candidate("q", latency_ms=5_000, price_mc=101, alive=True)
    rows = [row for _, row in rank([fast, slow], key="k", calls=1, load={})]
    ahead_ms = 5_000 - 1_300 + 100 * MS_PER_MC
    assert wait_max_ms(rows, turned=0) == ahead_ms + 300 + WAIT_MIN_MS
    assert wait_max_ms(rows, turned=TURNED_MAX - 1) == wait_max_ms(rows, turned=0)
    assert wait_max_ms(rows, turned=TURNED_MAX) == 0, "it comes to an end"
    assert wait_max_ms(rows[:1], turned=0) == 0, "there is nobody else"


def test_no_limit_is_beyond_what_an_award_can_say() -> None:
    honest = candidate("p", latency_ms=1_000)
    liar = candidate("q", latency_ms=NUMBER_MAX, price_mc=200)
    rows = [row for _, row in rank([honest, liar], key="k", calls=30, load={})]
    assert wait_max_ms(rows, turned=TURNED_MAX - 1) == WAIT_MAX_MS


def test_a_wait_is_as_long_as_the_calls_before_it_take() -> None:
    assert wait_ms(0, concurrency=1, latency_ms=100) == 0
    assert wait_ms(1, concurrency=1, latency_ms=100) == 100
    assert wait_ms(3, concurrency=4, latency_ms=100) == 0, "there is a slot"
    assert wait_ms(4, concurrency=4, latency_ms=100) == 25
    assert wait_ms(11, concurrency=4, latency_ms=100) == 200
    assert wait_ms(1, concurrency=0, latency_ms=0) == LATENCY_GUESS_MS


def test_what_a_busy_agent_says_is_its_queue_until_it_fades_or_work_comes_back() -> None:
    seen = Queues()
    seen.told("p/a", wait_ms=4_000, now_s=1.0)
    assert seen.wait_ms("p/a", now_s=1.0) == 4_000
    seen.told("p/a", wait_ms=500, now_s=2.0)
    assert seen.wait_ms("p/a", now_s=2.0) == 500, "the latest counts, as it was said"
    seen.saw("p/a", took_ms=1_100, run_ms=1_000, ahead_ms=0, now_s=2.0)
    assert seen.wait_ms("p/a", now_s=2.0) == 250
    seen.told("p/a", wait_ms=0, now_s=2.0)
    assert seen.wait_ms("p/a", now_s=2.0) == 0
    seen.told("p/a", wait_ms=NUMBER_MAX, now_s=2.0)
    assert seen.wait_ms("p/a", now_s=2.0) == QUEUE_MS_MAX, "more isn't believed"


# --- in a job -----------------------------------------------------------------------------

OFFER = {"offer": b"offer", "offer_expires_ms": START_MS + 60_000, "alive": True}
FAST = candidate("p", latency_ms=1_000, **OFFER)
SLOW = candidate("q", latency_ms=5_000, **OFFER)
#: What the fast one is better by, and a way.
LIMIT_MS = 4_000 + WAIT_MIN_MS


def one_unit(*facts: Fact, **plan: object) -> JobState:
    graph, inputs = mapped(1)
    run = Run(graph, inputs, [])
    planned = other(run.planned, **plan)
    return state_after(planned, Expanded(subtask="each", sizes=[1]), *facts)


def awarded(state: JobState, view: View, now_ms: int = START_MS) -> MakeAward:
    step = next_steps(state, now_ms, view)[0]
    assert isinstance(step, MakeAward), step
    return step


def refused(number: int, *, wait_max_ms: int, peer: str = "p") -> list[Fact]:
    """An award that was refused for want of time, or of room where it might wait for ever."""
    award = other(
        AWARDED, unit="each/0", attempt=number, peer=peer, price_cap_mc=1,
        wait_max_ms=wait_max_ms,
    )  # fmt: skip
    failed = other(
        FAILED,
        unit="each/0",
        attempt=number,
        peer=peer,
        blame="broker",
        code="node.crowded" if wait_max_ms else "node.busy",
    )
    return [award, failed]


def test_an_award_waits_no_longer_than_another_contractor_would_be_worth() -> None:
    step = awarded(one_unit(), candidates(FAST, SLOW))
    assert (step.candidate.peer, step.wait_max_ms) == ("p", LIMIT_MS)


def test_it_waits_for_any_time_where_nobody_else_is_or_own_work_is_there() -> None:
    assert awarded(one_unit(), candidates(FAST)).wait_max_ms == 0
    ours = View(candidates=candidates(FAST, SLOW).candidates, load={FAST.agent_id: 1})
    step = awarded(one_unit(), ours)
    assert (step.candidate.peer, step.wait_max_ms) == ("p", 0)


def test_who_is_called_for_a_proposal_says_itself_when_it_would_be_done() -> None:
    plain = [replace(one, offer=b"") for one in (FAST, SLOW)]
    assert isinstance(next_steps(one_unit(), START_MS, candidates(*plain))[0], Call)


def test_a_refused_unit_goes_elsewhere_at_once() -> None:
    state = one_unit(*refused(0, wait_max_ms=LIMIT_MS))
    queued = replace(FAST, queue_ms=9_000)
    ended_ms = state.units["each/0"].ended_ms
    step = awarded(state, candidates(queued, SLOW), ended_ms)
    assert (step.candidate.peer, step.wait_max_ms) == ("q", 5_000 + WAIT_MIN_MS)


def test_a_refused_unit_goes_back_if_the_others_are_no_sooner() -> None:
    state = one_unit(*refused(0, wait_max_ms=LIMIT_MS))
    queued = replace(FAST, queue_ms=2_000)
    step = awarded(state, candidates(queued, SLOW), state.units["each/0"].ended_ms)
    assert (step.candidate.peer, step.wait_max_ms) == ("p", 2_000 + 2_000 + WAIT_MIN_MS)


def test_nothing_else_is_looked_for_because_one_was_busy() -> None:
    graph, inputs = mapped(1, instead=["work.b"])
    planned = other(Run(graph, inputs, []).planned, replans_max=1)

    def others(limit_ms: int) -> list[str]:
        facts = refused(0, wait_max_ms=limit_ms)
        state = state_after(planned, Expanded(subtask="each", sizes=[1]), *facts)
        return list(looked_for(state, candidates(FAST, SLOW)))

    assert others(LIMIT_MS) == []
    assert others(0) == ["work.b"]


def test_after_some_refusals_it_waits_wherever_it_is_sent() -> None:
    facts = [
        fact for number in range(TURNED_MAX) for fact in refused(number, wait_max_ms=LIMIT_MS)
    ]
    state = one_unit(*facts)
    step = awarded(state, candidates(FAST, SLOW), state.units["each/0"].ended_ms)
    assert step.wait_max_ms == 0


def test_who_has_no_room_at_all_is_left_alone_for_a_while() -> None:
    state = one_unit(*refused(0, wait_max_ms=0))
    ended_ms = state.units["each/0"].ended_ms
    view = candidates(FAST, SLOW)
    assert not isinstance(next_steps(state, ended_ms, view)[0], MakeAward)
    rested_ms = ended_ms + 2 * pause_ms(0, tried=False)
    assert awarded(state, view, rested_ms).candidate.peer == "q"


def test_a_unit_that_was_begun_is_no_refusal_whatever_its_result_says() -> None:
    begun = [
        other(fact, blame="peer") if isinstance(fact, Failed) else fact
        for fact in refused(0, wait_max_ms=LIMIT_MS)
    ]
    state = one_unit(*begun)
    assert state.units["each/0"].turned == 0
    ended_ms = state.units["each/0"].ended_ms
    assert not isinstance(next_steps(state, ended_ms, candidates(FAST, SLOW))[0], MakeAward)


def gold_view(load: Mapping[str, int] = MappingProxyType({})) -> View:
    """A gold for the slow one, which would be the second choice of a usual task."""
    beside = {QUERY: [FAST, replace(SLOW, peer="r", latency_ms=7_000), SLOW]}
    return View(candidates=candidates(SLOW).candidates, beside=beside, load=load)


def test_a_gold_may_wait_as_long_as_a_usual_task_given_to_the_same_agent() -> None:
    gold = GoldPlan(expected=[])
    assert awarded(one_unit(gold=gold), gold_view()).wait_max_ms == WAIT_MIN_MS
    full = {FAST.agent_id: FAST.concurrency + 1}  # so a usual one would go to the slow one
    usual = awarded(one_unit(), View(candidates=gold_view().beside, load=full))
    assert usual.candidate.peer == "q"
    told = awarded(one_unit(gold=gold), gold_view(full))
    assert told.wait_max_ms == usual.wait_max_ms == 2_000 + WAIT_MIN_MS


def test_a_gold_waits_for_any_time_where_a_usual_task_would() -> None:
    gold = GoldPlan(expected=[])
    assert awarded(one_unit(gold=gold), gold_view({SLOW.agent_id: 1})).wait_max_ms == 0
    alone = replace_view(gold_view(), beside={QUERY: [SLOW]})
    assert awarded(one_unit(gold=gold), alone).wait_max_ms == 0
    compared = GoldPlan(expected=[], numbered=True)
    assert awarded(one_unit(gold=compared), gold_view()).wait_max_ms == 0


def test_a_gold_that_its_agent_has_no_time_for_does_not_come_back() -> None:
    state = one_unit(*refused(0, wait_max_ms=WAIT_MIN_MS), gold=GoldPlan(expected=[]))
    (end,) = next_steps(state, state.units["each/0"].ended_ms, candidates(FAST))
    assert isinstance(end, End)
    assert end.reason == "node.crowded"
    state = one_unit(*refused(0, wait_max_ms=0), gold=GoldPlan(expected=[]))
    assert not isinstance(next_steps(state, START_MS, candidates(FAST))[0], End)


def test_the_fold_keeps_how_long_an_award_might_wait() -> None:
    state = one_unit(*islice(refused(0, wait_max_ms=77), 1))
    assert state.units["each/0"].attempts[0].wait_max_ms == 77
    assert state.units["each/0"].turned == 0, "it is out"
    assert one_unit(*refused(0, wait_max_ms=77)).units["each/0"].turned == 1
