"""What a patch of a plan may never be: for who writes a journal, and for who reads one."""

from typing import Any

import msgspec
import pytest

from meshnode.domain.audit import Audit
from meshnode.domain.facts import (
    Cancelled,
    Expanded,
    Fact,
    Planned,
    Replanned,
    from_event,
    to_event,
)
from meshnode.domain.provenance import verify_provenance
from protocol.errors import Malformed, OutOfTurn
from protocol.graph import Check, Source, SubTask, TaskGraph, encode_graph
from protocol.journal import Segment, decode_event, encode_event
from protocol.limits import REPLANS_MAX
from tests.meshnode.domain.contractors import NETWORK, Pen
from tests.meshnode.domain.exports import signed_export
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.patched import patched_run
from tests.meshnode.domain.test_fold import (
    AWARDED,
    CALLED,
    CHARGED,
    DELIVERED,
    FAILED,
    PLANNED,
    VERIFIED,
    again,
    other,
    state_after,
)


def task(**fields: Any) -> SubTask:
    return SubTask(**{"id": "a", "capability": "work.a@1", "inputs": {}, **fields})


OWNERS = task()
USER = SubTask(
    id="b", capability="work.u@1", inputs={"x": Source(kind="task", name="a", pointer="/n")}
)
NOT_OFFERED = "capability.not_offered"


def plan(first: SubTask = OWNERS, *others: SubTask, **fields: object) -> Planned:
    tasks = [first, *(others or (USER,))]
    outputs = {"made": Source(kind="task", name="a", pointer="/n")}
    graph = TaskGraph(name="two", subtasks=tasks, outputs=outputs)
    return other(  # type: ignore[return-value]  # a plan as the other one
        PLANNED,
        graph=encode_graph(graph),
        **{"replans_max": REPLANS_MAX, "deadline_ms": 10**9, **fields},
    )


PLAN = plan()
EXPANDED = Expanded(subtask="a", sizes=[-1])
PATCH = Replanned(
    subtask="a",
    was="work.a@1",
    capability="work.a@2",
    code=NOT_OFFERED,
    considered={"work.a@2": 1},
)
FAILED_ON = [PLAN, EXPANDED, AWARDED, FAILED]
PATCHED_ON = [*FAILED_ON, PATCH]


def patch_to(version: int, was: int) -> Replanned:
    name = f"work.a@{version}"
    return other(  # type: ignore[return-value]  # a patch as the other one
        PATCH, was=f"work.a@{was}", capability=name, considered={name: 1}
    )


def to(name: str) -> Replanned:
    return other(PATCH, capability=name, considered={name: 1})  # type: ignore[return-value]  # as above


# --- what the fold refuses --------------------------------------------------------

ILLEGAL: dict[str, tuple[list[Any], str]] = {
    "a sub-task that isn't there": ([PLAN, other(PATCH, subtask="z")], "no sub-task"),
    "one that is finished": (
        [PLAN, EXPANDED, AWARDED, DELIVERED, VERIFIED, CHARGED, PATCH], "is finished",
    ),
    "one that is called for": ([PLAN, EXPANDED, CALLED, PATCH], "at work"),
    "one that is out": ([PLAN, EXPANDED, AWARDED, PATCH], "at work"),
    "one that is checked": ([PLAN, EXPANDED, AWARDED, DELIVERED, PATCH], "at work"),
    "more often than the owner allows": (
        [plan(replans_max=1), PATCH, patch_to(3, 2)], "1 of 1 patches",
    ),
    "where the owner allows none": ([plan(replans_max=0), PATCH], "0 of 0 patches"),
    "more often than anybody may": (
        [plan(replans_max=9), *(patch_to(n + 2, n + 1) for n in range(REPLANS_MAX + 1))],
        f"{REPLANS_MAX} of {REPLANS_MAX}",
    ),
    "to other work": (
        [PLAN, other(PATCH, capability="work.b@2", considered={"work.b@2": 1})], "may not do",
    ),
    "to less special work": (
        [PLAN, other(PATCH, capability="work@2", considered={"work@2": 1})], "may not do",
    ),
    "to any version": (
        [PLAN, other(PATCH, capability="work.a", considered={"work.a": 1})], "may not do",
    ),
    "to what it has": (
        [PLAN, other(PATCH, capability="work.a@1", considered={"work.a@1": 1})], "may not do",
    ),
    "back to what it had": ([PLAN, PATCH, patch_to(1, 2)], "may not do"),
    "of what it never had": ([PLAN, other(PATCH, was="work.a@3")], "needs work.a@1"),
    "to what nobody offers": ([PLAN, other(PATCH, considered={})], "nobody was seen"),
    "to what the owner didn't name": (
        [plan(task(instead=["work.c"])), to("work.b@2")], "may not do",
    ),
    "to another version than the owner named": (
        [plan(task(instead=["work.b@1"])), to("work.b@2")], "may not do",
    ),
    "past a check that all that are named would slip": (
        [plan(task(checks=[Check(kind="recompute")], instead=["work.b"])), to("work.b@2")],
        "may not do",
    ),
    "where any version would do": (
        [plan(task(capability="work.a")), other(PATCH, was="work.a")], "may not do",
    ),
    "past a check that it would slip": (
        [plan(task(checks=[Check(kind="recompute")])), PATCH], "may not do",
    ),
    "of a job that is being ended": ([PLAN, Cancelled(reason="owner"), PATCH], "being ended"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "why"), ILLEGAL.values(), ids=ILLEGAL.keys())
def test_no_patch_may_replace(facts: list[Fact], why: str) -> None:
    state_after(*facts[:-1])  # what goes before is in order
    with pytest.raises(OutOfTurn, match=why):
        state_after(*facts)


@pytest.mark.parametrize(
    "more", ["budget_mc", "deadline_ms", "hops", "readers", "checks", "inputs", "outputs"]
)
def test_a_patch_that_says_more_is_none(more: str) -> None:
    event = to_event(PATCH, seq=4, at_ms=0)
    assert from_event(event) == PATCH
    event.data[more] = 1
    with pytest.raises(Malformed, match=more):
        from_event(event)


def test_a_patch_changes_what_one_sub_task_needs_and_nothing_else() -> None:
    before, after = state_after(*FAILED_ON), state_after(*PATCHED_ON)
    assert after.tasks["a"] == msgspec.structs.replace(OWNERS, capability="work.a@2")
    assert after.tasks["b"] == before.tasks["b"]
    assert (after.plan, after.graph, after.path, after.producers) == (
        before.plan, before.graph, before.path, before.producers,
    )  # fmt: skip


def test_failures_before_a_patch_count_no_more_and_attempts_go_on() -> None:
    state = state_after(*PATCHED_ON)
    assert state.units["a/0"].failures() == []
    more = [again(fact, 1) for fact in (AWARDED, DELIVERED, VERIFIED, CHARGED)]
    done = state_after(*PATCHED_ON, *more)
    assert done.charges == {"j/a/0/0": 5}, "the key is what it would have been"
    with pytest.raises(OutOfTurn, match="attempt 1"):
        state_after(*PATCHED_ON, AWARDED)


# --- what an audit refuses --------------------------------------------------------

LIES: dict[str, tuple[dict[str, Any], str]] = {
    "more money": ({"budget_mc": 10**9}, "budget_mc"),
    "other work": ({"capability": "work.b@2", "considered": {"work.b@2": 1}}, "may not do"),
    "work that any version may do": ({"subtask": "b", "was": "work.a"}, "may not do"),
    "a capability that wasn't needed": ({"was": "work.a@7"}, "needs work.a@1"),
    "no reason": ({"code": ""}, "doesn't say why"),
}


def forged(run: Run, *, plan: dict[str, Any] | None = None, **lie: Any) -> bytes:
    events = [decode_event(body) for body in run.events]
    for event in events:
        if event.kind == "replanned":
            event.data.update(lie)
        if event.kind == "planned":
            event.data.update(plan or {})
    bodies = [encode_event(event) for event in events]
    return signed_export(Pen("broker"), "job-1", bodies, "completed")


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES.keys())
def test_a_journal_whose_patch_may_not_be_is_refused(lie: dict[str, Any], why: str) -> None:
    run = patched_run()
    verify_provenance(forged(run))
    with pytest.raises(Malformed, match=why):
        verify_provenance(forged(run, **lie))


def test_a_journal_with_a_patch_more_than_its_plan_allows_is_refused() -> None:
    run = patched_run()
    with pytest.raises(Malformed, match="0 of 0 patches"):
        verify_provenance(forged(run, plan={"replans_max": 0}))


@pytest.mark.parametrize("charter", [b"", b"c" * 32])
def test_under_a_charter_only_an_elected_broker_plans_anew(charter: bytes) -> None:
    audit = Audit(
        Segment(
            job="j", network=NETWORK, epoch=0, writer="me", charter=charter, parent=b"",
            opened_ms=0,
        )
    )  # fmt: skip
    audit.take(to_event(PLAN, seq=0, at_ms=0))
    patched = to_event(PATCH, seq=1, at_ms=1)
    if not charter:
        audit.take(patched)
        return
    with pytest.raises(Malformed, match="not elected"):
        audit.take(patched)


def test_a_journal_whose_patch_is_left_out_is_refused() -> None:
    run = patched_run()
    events = [decode_event(body) for body in run.events]
    kept = [event for event in events if event.kind != "replanned"]
    bodies = [
        encode_event(msgspec.structs.replace(event, seq=n)) for n, event in enumerate(kept)
    ]
    with pytest.raises(Malformed, match="does not answer"):
        verify_provenance(signed_export(Pen("broker"), "job-1", bodies, "completed"))
