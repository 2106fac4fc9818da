"""The urgent goes first, and a slow agent gets nothing that a busy fast one ends sooner."""

from collections.abc import Mapping, Sequence
from random import Random

import msgspec
import pytest

from meshnode.bench.dags import draw
from meshnode.bench.heft import Problem, upward_ranks
from meshnode.domain.facts import Expanded, Fact, Planned
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.priorities import by_urgency
from meshnode.domain.step_kinds import MakeAward, View, Wake
from meshnode.domain.steps import next_steps
from protocol.graph import Source, SubTask, TaskGraph, encode_graph
from tests.meshnode.domain.test_fold import AWARDED, DELIVERED, FAILED, other

BEGIN_MS = 1_000_000
NOW_MS = BEGIN_MS + 400
QUERY = "work.a"


def agent(peer: str, latency_ms: int, **fields: object) -> Candidate:
    known = Candidate(
        peer=peer,
        agent="agent",
        capability="work.a@1",
        price_mc=0,
        latency_ms=latency_ms,
        concurrency=1,
        offer=b"offer",
        offer_expires_ms=BEGIN_MS + 600_000,
        alive=True,
    )
    return msgspec.structs.replace(known, **fields)


def job(graph: TaskGraph, *facts: Fact, budget_mc: int = 1_000) -> JobState:
    state = JobState("j")
    planned = Planned(
        owner="me",
        graph=encode_graph(graph),
        inputs={},
        budget_mc=budget_mc,
        deadline_ms=BEGIN_MS + 3_600_000,
        idempotency_key="",
        epoch=0,
        hedges_pct=0,
    )
    for fact in (planned, *facts):
        state.add(fact, at_ms=BEGIN_MS)
    return state


def graph_of(parents: Mapping[str, Sequence[str]]) -> TaskGraph:
    """Return a graph of tasks, each of a capability of its own name."""
    tasks = [
        SubTask(
            id=name,
            capability=f"work.{name}",
            inputs={above: Source(kind="task", name=above) for above in drawn},
        )
        for name, drawn in parents.items()
    ]
    outputs = {name: Source(kind="task", name=name) for name in parents}
    return TaskGraph(name="g", subtasks=tasks, outputs=outputs)


def offered(**latencies_ms: int) -> dict[str, list[Candidate]]:
    return {f"work.{name}": [agent("p", ms)] for name, ms in latencies_ms.items()}


# --- who goes first ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("latencies_ms", "order"),
    [
        ({"a": 100, "b": 100, "c": 100}, ["b", "a"]),
        ({"a": 300, "b": 100, "c": 100}, ["a", "b"]),
        ({"a": 200, "b": 100, "c": 100}, ["a", "b"]),  # equal: as the graph has them
        ({"a": 900, "b": 500}, ["b", "a"]),  # nobody knows c: half a second
    ],
)
def test_what_the_longest_way_leads_through_goes_first(
    latencies_ms: dict[str, int], order: list[str]
) -> None:
    state = job(graph_of({"a": [], "b": [], "c": ["b"]}))
    assert by_urgency(state, ["a", "b"], offered(**latencies_ms)) == order


def test_what_is_under_way_is_not_sorted() -> None:
    state = job(
        graph_of({"a": [], "b": [], "c": ["b"]}),
        Expanded(subtask="b", sizes=[-1]),
        other(AWARDED, unit="b/0"),
    )
    assert by_urgency(state, ["a", "b"], offered(a=1, b=1, c=1)) == ["a", "b"]


def test_a_map_takes_as_long_as_its_rounds() -> None:
    state = job(
        graph_of({"a": [], "b": [], "c": ["b"]}),
        Expanded(subtask="a", sizes=[4, 4, 1]),
        Expanded(subtask="b", sizes=[-1]),
    )
    seen = offered(a=100, b=300, c=300)
    assert by_urgency(state, ["a", "b"], seen) == ["a", "b"], "nine, one after the other"
    two = agent("p", 100, concurrency=5), agent("q", 100, concurrency=4)
    assert by_urgency(state, ["a", "b"], {**seen, "work.a": two}) == ["b", "a"], "one round"


@pytest.mark.parametrize("seed", range(10))
def test_the_order_is_that_of_hefts_upward_ranks(seed: int) -> None:
    rng = Random(seed)
    dag = draw("layers", rng)
    names = [f"t{number:02}" for number in range(len(dag.parents))]
    costs = [[float(rng.randint(1, 10_000))] for _ in names]
    links = {(above, task): 0.0 for task, drawn in enumerate(dag.parents) for above in drawn}
    ranks = dict(zip(names, upward_ranks(Problem(costs, links)), strict=True))
    parents = {
        name: [names[above] for above in drawn]
        for name, drawn in zip(names, dag.parents, strict=True)
    }
    seen = offered(**{name: int(cost) for name, (cost,) in zip(names, costs, strict=True)})
    ready = [name for name in names if not parents[name]]
    found = by_urgency(job(graph_of(parents)), ready, seen)
    assert found == sorted(ready, key=lambda name: -ranks[name])


# --- whom it is worth waiting for -------------------------------------------------


def awarded(unit: int, peer: str) -> Fact:
    return other(AWARDED, unit=f"a/{unit}", peer=peer, price_cap_mc=0)


def decided(
    state: JobState, *found: Candidate, now_ms: int = NOW_MS, **out: int
) -> tuple[list[tuple[str, str]], int]:
    """Return who is awarded what, and when the broker looks again."""
    load = {f"{peer}/agent": count for peer, count in out.items()}
    steps = next_steps(state, now_ms, View(candidates={QUERY: found}, load=load))
    awards = [(s.unit, s.candidate.peer) for s in steps if isinstance(s, MakeAward)]
    (wake,) = [step for step in steps if isinstance(step, Wake)]
    return awards, wake.at_ms


#: Five units, of which the fast agent has two: one that runs, one that waits there.
MAP = graph_of({"a": []})
BUSY = (Expanded(subtask="a", sizes=[1] * 5), awarded(0, "fast"), awarded(1, "fast"))


def test_a_fast_one_that_is_busy_is_waited_for_where_it_is_sooner() -> None:
    fast, slow = agent("fast", 1_000), agent("slow", 4_500)
    awards, wake_ms = decided(job(MAP, *BUSY), fast, slow, fast=2)
    assert awards == [("a/4", "slow")], "two wait, and a third would wait for longer"
    assert wake_ms == BEGIN_MS + 3_000


def test_a_free_one_that_is_sooner_has_it_at_once() -> None:
    fast, slow = agent("fast", 1_000), agent("slow", 2_900)
    awards, _ = decided(job(MAP, *BUSY), fast, slow, fast=2)
    assert awards == [("a/2", "slow")], "and there the next would wait for as long"


def test_who_has_not_ended_when_it_should_have_is_not_waited_for() -> None:
    fast, slow = agent("fast", 1_000), agent("slow", 60_000)
    state = job(MAP, *BUSY)
    assert decided(state, fast, slow, now_ms=BEGIN_MS + 2_999, fast=2)[0] == []
    awards, _ = decided(state, fast, slow, now_ms=BEGIN_MS + 3_000, fast=2)
    assert awards == [("a/2", "slow"), ("a/3", "slow")]


@pytest.mark.parametrize(
    ("facts", "fast", "budget_mc"),
    [
        (BUSY[:1], agent("fast", 1_000), 10),  # another job keeps it busy
        ([*BUSY, *(other(DELIVERED, unit=f"a/{n}") for n in (0, 1))],
         agent("fast", 1_000), 10),  # likewise
        (BUSY, agent("fast", 1_000, price_mc=11), 10),  # it can't be paid
        (BUSY, agent("fast", 1_000, troubled=True), 10),
        (BUSY, agent("fast", 0), 10),  # nobody knows how long it takes
    ],
)  # fmt: skip
def test_nobody_waits_for(facts: Sequence[Fact], fast: Candidate, budget_mc: int) -> None:
    state = job(MAP, *facts, budget_mc=budget_mc)
    awards, _ = decided(state, fast, agent("slow", 60_000), fast=2)
    assert awards
    assert {peer for _, peer in awards} == {"slow"}


def test_what_failed_once_waits_for_nobody() -> None:
    gone = awarded(2, "gone"), other(FAILED, unit="a/2", peer="gone", code="peer.lost")
    state = job(MAP, *BUSY, *gone)
    awards, _ = decided(state, agent("fast", 1_000), agent("slow", 60_000), fast=2)
    assert awards == [("a/2", "slow")]
