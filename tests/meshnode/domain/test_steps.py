"""What a broker does next: whole jobs in virtual time, with all that goes wrong."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain import steps
from meshnode.domain.facts import (
    Cancelled,
    Delivered,
    Expanded,
    Fact,
)
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.step_kinds import Call, End, Expand, MakeAward, View, Wake
from meshnode.domain.steps import (
    EVENTS_RESERVED,
    PROVIDER_GRACE_MS,
    next_steps,
)
from meshnode.domain.values import canonical, parse
from meshnode.ports import JsonValue
from protocol.graph import Source, SubTask, TaskGraph
from protocol.journal import Event
from protocol.keys import digest
from protocol.limits import BATCHES_MAX, EVENTS_MAX, FAN_OUT_MAX, PARTS_MAX
from tests.meshnode.domain.contractors import Traits
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.journals import Run, contractors_of
from tests.meshnode.domain.random_graphs import (
    CAPABILITIES,
    evaluate,
    random_graph,
    random_inputs,
)
from tests.meshnode.domain.random_runs import Invariants, random_run
from tests.meshnode.domain.test_fold import AWARDED, FAILED, other, state_after


@settings(max_examples=120)
@given(st.integers(0, 2**32))
def test_every_job_ends_within_its_bounds(seed: int) -> None:
    note(f"seed {seed}")
    run, graph, inputs = random_run(seed)
    state = run.run()
    assert state.done is not None
    note(f"{state.done}")
    assert run.now_ms <= state.required_plan.deadline_ms + 100, "it ends with its deadline"
    assert all(unit.current is None for unit in state.units.values())
    if state.done.state == "completed":
        outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
        assert outputs == evaluate(graph, inputs)
    else:
        assert state.done.state == "failed"
        assert state.done.code
        assert state.done.text


def test_the_worlds_above_see_all_kinds_of_end() -> None:
    ends = set()
    for seed in range(60):
        done = random_run(seed)[0].run().done
        assert done is not None
        ends.add(done.code or done.state)
    assert {"completed", "budget.exceeded", "input.invalid", "deadline"} <= ends
    assert ends & {"agent.failed", "output.rejected", "agent.output_invalid"}


def test_the_worlds_above_have_hedges_that_win_and_that_lose() -> None:
    won = lost = 0
    for seed in range(60):
        run = random_run(seed)[0]
        run.kill_after = lambda _: False
        state = run.run()
        hedges = [a for unit in state.units.values() for a in unit.attempts if a.hedge]
        assert len(hedges) == state.hedges
        won += sum(attempt.error is None for attempt in hedges)
        lost += sum(a.error is not None and a.error.code == "award.superseded" for a in hedges)
        assert all(a.paid_mc is None for a in hedges if a.error is not None and not a.verdict)
        if state.hedges and state.done is not None and state.done.state == "completed":
            assert verify_provenance(run.export()).cost_mc == state.spent_mc
    assert won > 3
    assert lost > 3


def calm(seed: int, **traits: object) -> tuple[Run, TaskGraph, Mapping[str, JsonValue]]:
    """A job with contractors that do well."""
    rng = Random(seed)
    graph, inputs = random_graph(rng, tasks_max=4), random_inputs(rng)
    kinds = [Traits(capability=c) for c in CAPABILITIES for _ in range(2)]
    kinds = [replace(kind, **traits) for kind in kinds]  # type: ignore[arg-type]  # its fields
    return Run(graph, inputs, contractors_of(seed, *kinds)), graph, inputs


@pytest.mark.parametrize("seed", range(8))
def test_honest_contractors_make_what_the_graph_says(seed: int) -> None:
    run, graph, inputs = calm(seed)
    state = run.run()
    assert state.done is not None
    assert state.done.state == "completed"
    outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
    assert outputs == evaluate(graph, inputs)


@pytest.mark.parametrize("offers", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_a_broker_killed_after_any_event_comes_to_the_same_end(seed: int, offers: bool) -> None:
    whole, graph, inputs = calm(seed, offers=offers, repeats=1.0, bid_ms=100)
    whole.run()
    expected = evaluate(graph, inputs)
    for count in range(1, len(whole.events), 1 + len(whole.events) // 40):
        run, _, _ = calm(seed, offers=offers, repeats=1.0, bid_ms=100)
        run.watch = Invariants()
        run.kill_after = lambda n, count=count: n == count  # type: ignore[misc]  # binds the loop's count
        state = run.run()
        assert run.kills == 1
        assert state.done is not None
        assert state.done.state == "completed"
        outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
        assert outputs == expected


def test_a_broker_killed_after_every_event_still_ends_well() -> None:
    for seed in range(6):
        run, graph, inputs = calm(seed)
        run.watch = Invariants()
        run.kill_after = lambda _: True
        state = run.run()
        assert run.kills == len(run.events)
        assert state.done is not None
        outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
        assert outputs == evaluate(graph, inputs)


@pytest.mark.parametrize("seed", range(12))
def test_a_cancelled_job_stops_every_open_award_and_begins_nothing(seed: int) -> None:
    graph, inputs = mapped(12, batch_items_max=1)
    traits = [Traits(latency_ms=2_000, offers=n > 0, busy=0.2) for n in range(3)]
    run = Run(graph, inputs, contractors_of(seed, *traits))
    run.watch = Invariants()
    at_ms = Random(seed).randrange(1, 4_000)
    out: set[bytes] = set()

    def cancel() -> None:
        out.update(
            digest(unit.current.award)
            for unit in run.state.units.values()
            if unit.current is not None and unit.current.award
        )
        run.record(Cancelled(reason="owner", text="enough"))

    run.later(at_ms, cancel)
    state = run.run()
    assert state.done is not None
    assert (state.done.state, state.done.code) == ("cancelled", "owner")
    assert run.stopped == out
    assert run.now_ms < START_MS + at_ms + 100


# --- single decisions ---

QUERY = "work.a"


def mapped(
    count: int, *, gathered: bool = True, **fields: object
) -> tuple[TaskGraph, dict[str, JsonValue]]:
    """One map over ``count`` items, and a sub-task that takes all of its outputs."""
    source = Source(kind="input", name="docs", pointer="/list")
    each = SubTask(
        id="each",
        capability=QUERY,
        inputs={"x": source},
        each=["x"],
        **fields,  # type: ignore[arg-type]  # its fields
    )
    last = SubTask(
        id="last", capability=QUERY, inputs={"all": Source(kind="task", name="each")}
    )
    graph = TaskGraph(
        name="map",
        subtasks=[each, last] if gathered else [each],
        outputs={"o": Source(kind="task", name="each")},
    )
    return graph, {"docs": {"list": list(range(count)), "title": ""}}


def test_no_more_batches_run_at_once_than_the_limit_even_when_the_first_fails() -> None:
    graph, inputs = mapped(100, batch_items_max=1, attempts_max=10)
    most = 0

    def watch(run: Run, event: Event, fact: Fact) -> None:
        nonlocal most
        invariants(run, event, fact)
        most = max(most, len(invariants.open))

    for seed in range(3):
        invariants = Invariants()
        run = Run(
            graph,
            inputs,
            contractors_of(
                seed,
                *[
                    Traits(concurrency=50, fails=0.2, busy=0.1, latency_ms=n * 100 + 50)
                    for n in range(6)
                ],
            ),
        )
        run.watch = watch
        run.run()
    assert most == FAN_OUT_MAX


def planned(graph: TaskGraph, inputs: Mapping[str, JsonValue]) -> JobState:
    return state_after(Run(graph, inputs, []).planned)


def candidates(*some: Candidate) -> View:
    return View(candidates={QUERY: list(some), "work.b": []})


def candidate(peer: str = "p", **fields: object) -> Candidate:
    known = Candidate(
        peer=peer, agent="a", capability="work.a@1", price_mc=1, latency_ms=10, concurrency=4
    )
    return msgspec.structs.replace(known, **fields)


def test_a_map_over_nothing_is_finished_without_a_provider() -> None:
    graph, inputs = mapped(0)
    (first, _) = next_steps(planned(graph, inputs), START_MS, candidates())
    assert first == Expand("each", ())


def test_a_capability_without_a_provider_ends_the_job_after_a_grace() -> None:
    graph, inputs = mapped(3)
    state = planned(graph, inputs)
    begin_ms = state.planned_ms
    assert next_steps(state, begin_ms, candidates()) == [Wake(begin_ms + PROVIDER_GRACE_MS)]
    (end,) = next_steps(state, begin_ms + PROVIDER_GRACE_MS, candidates())
    assert isinstance(end, End)
    assert end.reason == "capability.not_offered"
    assert "work.a" in end.text
    assert "'each'" in end.text


def test_unequal_lists_end_the_job_and_name_both() -> None:
    graph, inputs = mapped(3)
    task = graph.subtasks[0]
    two = Source(kind="value", value=canonical([1, 2]))
    graph.subtasks[0] = other_task(task, inputs={**task.inputs, "y": two}, each=["x", "y"])
    (end,) = next_steps(planned(graph, inputs), START_MS, candidates(candidate()))
    assert isinstance(end, End)
    assert end.reason == "input.invalid"
    assert "x has 3" in end.text
    assert "y has 2" in end.text


def test_a_list_that_nobody_measured_ends_the_job_and_is_not_taken_for_empty() -> None:
    graph, inputs = mapped(3)
    run = Run(graph, inputs, [])
    ref = type(run.planned.inputs["docs"])(artifact=b"x", size=1)
    state = state_after(other(run.planned, inputs={"docs": ref}))
    (end,) = next_steps(state, START_MS, candidates(candidate()))
    assert isinstance(end, End)
    assert "x has no list" in end.text


def other_task(task: SubTask, **fields: object) -> SubTask:
    return SubTask(**{**{f: getattr(task, f) for f in task.__struct_fields__}, **fields})


def sizes_for(graph: TaskGraph, inputs: Mapping[str, JsonValue], *some: Candidate) -> object:
    return next_steps(planned(graph, inputs), START_MS, candidates(*some))[0]


def test_a_gathered_map_makes_no_more_batches_than_an_award_has_parts() -> None:
    graph, inputs = mapped(2_000)
    step = sizes_for(graph, inputs, candidate(concurrency=5_000))
    assert isinstance(step, Expand)
    assert len(step.sizes) <= PARTS_MAX
    assert sum(step.sizes) == 2_000


def test_more_batches_than_allowed_end_the_job_and_say_what_to_raise() -> None:
    graph, inputs = mapped(PARTS_MAX + 1, batch_items_max=1)
    step = sizes_for(graph, inputs, candidate())
    assert isinstance(step, End)
    assert "batch_items_max" in step.text
    graph, inputs = mapped(PARTS_MAX + 1, batch_items_max=1, gathered=False)
    assert isinstance(sizes_for(graph, inputs, candidate()), Expand)
    graph, inputs = mapped(BATCHES_MAX + 1, batch_items_max=1, gathered=False)
    assert isinstance(sizes_for(graph, inputs, candidate()), End)


def expanded(count: int, **fields: object) -> JobState:
    """A map whose batches hold one item each."""
    graph, inputs = mapped(count)
    run = Run(graph, inputs, [])
    return state_after(
        other(run.planned, **fields), Expanded(subtask="each", sizes=[1] * count)
    )


def test_what_one_pass_awards_counts_against_the_budget_at_once() -> None:
    state = expanded(5, budget_mc=3)
    offer = candidate(
        offer=b"offer", offer_expires_ms=START_MS + 60_000, price_mc=1, concurrency=50
    )
    steps = next_steps(state, START_MS, candidates(offer))
    assert [type(step) for step in steps] == [MakeAward, MakeAward, MakeAward, Wake]


def test_a_budget_that_never_suffices_ends_the_job() -> None:
    state = expanded(1, budget_mc=3)
    (end,) = next_steps(state, START_MS, candidates(candidate(price_mc=4)))
    assert isinstance(end, End)
    assert end.reason == "budget.exceeded"


def test_a_peer_with_a_full_queue_gets_nothing_more() -> None:
    state = expanded(1)
    known = candidates(candidate(concurrency=1))
    full = View(candidates=known.candidates, load={"p/a": 2})
    assert [type(s) for s in next_steps(state, START_MS, full)] == [Wake]


def test_a_pass_over_a_large_job_looks_at_what_may_change_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Candidate] = []

    def has_no_room(one: Candidate, _: Mapping[str, int]) -> bool:
        asked.append(one)
        return False

    monkeypatch.setattr(steps, "has_room", has_no_room)
    for count in (2, 1_000):
        asked.clear()
        found = next_steps(expanded(count), START_MS, candidates(candidate()))
        assert [type(step) for step in found] == [Wake]
        assert len(asked) == 1, "where one finds no room, none of its size does"


def test_a_pass_over_a_large_job_begins_no_more_than_may_run() -> None:
    offer = candidate(offer=b"offer", offer_expires_ms=START_MS + 60_000, concurrency=999)
    found = next_steps(expanded(1_000, budget_mc=10_000), START_MS, candidates(offer))
    begun = [step.unit for step in found if isinstance(step, MakeAward)]
    assert begun == [f"each/{number}" for number in range(FAN_OUT_MAX)]


def test_a_candidate_that_takes_smaller_awards_only_is_passed_over() -> None:
    graph, inputs = mapped(4)
    run = Run(graph, inputs, [])
    state = state_after(run.planned, Expanded(subtask="each", sizes=[4]))
    big, small = candidate("big"), candidate("small", items_max=3, alive=True)
    (call, _) = next_steps(state, START_MS, candidates(small, big))
    assert isinstance(call, Call)
    assert [c.peer for c in call.candidates] == ["big"]


def test_past_the_deadline_a_job_ends_and_does_nothing_else() -> None:
    state = expanded(1)
    steps = next_steps(state, state.required_plan.deadline_ms, candidates(candidate()))
    assert [type(step) for step in steps] == [End]


def test_a_result_that_came_counts_although_it_came_twice() -> None:
    run, _, _ = calm(1, repeats=1.0)
    seen: list[str] = []
    run.watch = lambda _run, _event, fact: (
        seen.append(fact.unit) if isinstance(fact, Delivered) else None
    )
    run.run()
    assert len(seen) == len(set(seen)) > 0


def failed_once(code: str, *, blame: str = "peer") -> JobState:
    """A unit that peer ``p`` was awarded, and that came to nothing."""
    award = other(AWARDED, unit="each/0", price_cap_mc=1)
    failure = other(FAILED, unit="each/0", code=code, text="it did", blame=blame)
    graph, inputs = mapped(1)
    run = Run(graph, inputs, [])
    return state_after(run.planned, Expanded(subtask="each", sizes=[1]), award, failure)


def test_an_award_that_reached_nobody_is_no_try() -> None:
    def never_sent(attempt: int) -> list[Fact]:
        award = other(AWARDED, unit="each/0", price_cap_mc=1, attempt=attempt)
        code = "transport.unreachable"
        return [award, other(FAILED, unit="each/0", code=code, attempt=attempt)]

    graph, inputs = mapped(1)
    run = Run(graph, inputs, [])
    facts = [fact for attempt in range(10) for fact in never_sent(attempt)]
    state = state_after(run.planned, Expanded(subtask="each", sizes=[1]), *facts)
    (step, _) = next_steps(state, START_MS + 60_000, candidates(candidate("q")))
    assert isinstance(step, Call)


def who(step: object) -> list[str]:
    assert isinstance(step, Call)
    return [c.peer for c in step.candidates]


LATER_MS = START_MS + 10_000


def test_a_peer_whose_agent_failed_is_not_asked_for_the_same_again() -> None:
    state = failed_once("agent.failed")
    both = candidates(candidate("p", alive=True), candidate("q"))
    assert who(next_steps(state, LATER_MS, both)[0]) == ["q"]
    (end,) = next_steps(state, LATER_MS, candidates(candidate("p")))
    assert isinstance(end, End)
    assert end.reason == "agent.failed"
    assert "every provider of work.a failed, the last: it did" in end.text


def test_a_peer_that_was_lost_is_asked_again_if_nobody_else_is_there() -> None:
    state = failed_once("peer.lost")
    both = candidates(candidate("p", alive=True), candidate("q"))
    assert who(next_steps(state, LATER_MS, both)[0]) == ["q"]
    assert who(next_steps(state, LATER_MS, candidates(candidate("p")))[0]) == ["p"]


def test_an_input_that_no_agent_takes_ends_the_job_at_once() -> None:
    state = failed_once("input.invalid", blame="input")
    (end,) = next_steps(state, LATER_MS, candidates(candidate("q")))
    assert isinstance(end, End)
    assert (end.reason, "each/0: it did" in end.text) == ("input.invalid", True)


def test_after_a_failure_there_is_a_pause() -> None:
    state = failed_once("peer.lost")
    ended_ms = state.units["each/0"].ended_ms
    (wake,) = next_steps(state, ended_ms, candidates(candidate("q")))
    assert isinstance(wake, Wake)
    assert wake.at_ms > ended_ms
    assert who(next_steps(state, wake.at_ms, candidates(candidate("q")))[0]) == ["q"]


def test_a_journal_that_is_nearly_full_ends_its_job_while_it_can_say_so() -> None:
    graph, inputs = mapped(3)
    state, view = planned(graph, inputs), candidates(candidate())
    state.seq = EVENTS_MAX - EVENTS_RESERVED - 1
    assert not [s for s in next_steps(state, START_MS, view) if isinstance(s, End)]
    state.seq += 1
    (end,) = next_steps(state, START_MS, view)
    assert isinstance(end, End)
    assert end.reason == "journal.full"


def test_a_good_provider_that_is_busy_is_waited_for_and_a_bad_one_is_better_than_none() -> None:
    state = expanded(1)
    good, bad = candidate("p", concurrency=1), candidate("q", troubled=True)
    busy = replace(candidates(good, bad), load={good.agent_id: 2})
    assert not [step for step in next_steps(state, START_MS, busy) if isinstance(step, Call)]
    (call, _) = next_steps(state, START_MS, candidates(bad))
    assert who(call) == ["q"]
    (call, _) = next_steps(state, START_MS, candidates(good, bad))
    assert who(call) == ["p"]
