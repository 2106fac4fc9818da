"""When a sub-task that can't be done as planned goes on with another capability."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from meshnode.domain.attempts import UNFETCHED_MAX
from meshnode.domain.facts import (
    Expanded,
    Fact,
    Replanned,
)
from meshnode.domain.graphs import replacement_trouble
from meshnode.domain.matching import Candidate, matches
from meshnode.domain.patches import patch_trouble
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.replanning import LOOK_MS, looked_for
from meshnode.domain.step_kinds import End, MakeAward, Replan, Step, View, Wake
from meshnode.domain.steps import PROVIDER_GRACE_MS, next_steps
from meshnode.domain.values import canonical, parse
from meshnode.ports import JsonValue
from protocol.graph import Source, TaskGraph
from protocol.records import Capability
from tests.meshnode.domain.desk import declared
from tests.meshnode.domain.patched import DOCS, MAPPED, patched_run
from tests.meshnode.domain.random_graphs import evaluate
from tests.meshnode.domain.random_runs import random_run
from tests.meshnode.domain.test_fold import (
    AWARDED,
    CHARGED,
    DELIVERED,
    FAILED,
    REJECTED,
    VERIFIED,
    again,
    other,
    state_after,
)
from tests.meshnode.domain.test_patches import (
    EXPANDED,
    FAILED_ON,
    NOT_OFFERED,
    OWNERS,
    PATCH,
    PATCHED_ON,
    PLAN,
    patch_to,
    plan,
    task,
)

# --- what is decided --------------------------------------------------------------


def offer(name: str, peer: str = "q", **fields: Any) -> Candidate:
    made: dict[str, Any] = {
        "peer": peer, "agent": "agent", "capability": name, "price_mc": 5, "latency_ms": 10,
        "concurrency": 1, "offer": b"offer", "offer_expires_ms": 10**12, "alive": True,
    }  # fmt: skip
    return Candidate(**{**made, **fields})


def view(*offers: Candidate, kinds: Sequence[Capability] = ()) -> View:
    queries = ("work.a", "work.a@1", "work.a@2", "work.b", "work.c@1", "work.u@1")
    told = {kind.name: kind for kind in kinds}
    found = {q: [o for o in offers if matches(q, o.capability)] for q in queries}
    return View(
        candidates=found,
        declared={
            q: {o.agent_id: told.get(o.capability, declared(o.capability)) for o in found[q]}
            for q in queries
        },
    )


def decided(facts: Sequence[Fact], seen: View, *, now_ms: int = 10**6) -> list[Step]:
    state = state_after(*facts)
    steps = next_steps(state, now_ms, seen)
    assert steps == next_steps(state, now_ms, seen), "steps are levels"
    for step in steps:
        if isinstance(step, Replan):
            made = Replanned(
                subtask=step.subtask, was=step.was, capability=step.capability,
                code=step.code, considered=dict(step.considered),
            )  # fmt: skip
            assert patch_trouble(state, made) == "", "what is written is what may be read"
    return steps


def replans(facts: Sequence[Fact], seen: View, **options: int) -> list[Replan]:
    return [step for step in decided(facts, seen, **options) if isinstance(step, Replan)]


def ends(facts: Sequence[Fact], seen: View, **options: int) -> list[End]:
    return [step for step in decided(facts, seen, **options) if isinstance(step, End)]


REJECTED_ON = [PLAN, EXPANDED, AWARDED, DELIVERED, REJECTED, other(CHARGED, paid_mc=0)]


def test_a_capability_that_nobody_offers_is_replaced_after_its_grace() -> None:
    seen = view(offer("work.a@2"))
    assert replans([PLAN, EXPANDED], seen, now_ms=1_001 + PROVIDER_GRACE_MS - 2) == []
    (step,) = replans([PLAN, EXPANDED], seen, now_ms=1_001 + PROVIDER_GRACE_MS)
    assert step == Replan("a", "work.a@1", "work.a@2", NOT_OFFERED, {"work.a@2": 1})
    assert ends([PLAN, EXPANDED], seen) == []


def test_an_output_that_all_who_offer_it_get_wrong_is_made_another_way() -> None:
    seen = view(offer("work.a@1", "p"), offer("work.a@2"))
    (step,) = replans(REJECTED_ON, seen)
    assert (step.capability, step.code) == ("work.a@2", "output.rejected")
    assert replans(REJECTED_ON, view(offer("work.a@1", "p"), offer("work.a@1"))) == []


def test_a_patched_unit_is_awarded_to_who_offers_what_it_needs_now() -> None:
    seen = view(offer("work.a@1", "p"), offer("work.a@2"))
    (award,) = [s for s in decided(PATCHED_ON, seen) if isinstance(s, MakeAward)]
    assert (award.candidate.capability, award.attempt) == ("work.a@2", 1)


def test_without_another_version_the_job_ends_as_ever() -> None:
    (end,) = ends(REJECTED_ON, view(offer("work.a@1", "p")))
    (plain,) = ends([plan(replans_max=0), *REJECTED_ON[1:]], view(offer("work.a@1", "p")))
    assert end == plain
    assert end.text == "sub-task a/0: every provider of work.a@1 failed, the last: no"
    (end,) = ends([PLAN, EXPANDED], view())
    assert end == End(NOT_OFFERED, "nobody reachable offers work.a@1 (sub-task 'a')")


def test_other_versions_are_looked_for_for_a_while_before_a_job_ends() -> None:
    ended_ms = 1_000 + len(REJECTED_ON) - 1
    seen = view(offer("work.a@1", "p"))
    assert ends(REJECTED_ON, seen, now_ms=ended_ms + LOOK_MS - 1) == []
    woken = decided(REJECTED_ON, seen, now_ms=ended_ms + LOOK_MS - 1)
    assert woken == [Wake(ended_ms + LOOK_MS)]
    assert ends(REJECTED_ON, seen, now_ms=ended_ms + LOOK_MS)
    off = [plan(replans_max=0), *REJECTED_ON[1:]]
    assert ends(off, seen, now_ms=ended_ms + LOOK_MS - 1), (
        "where there is no patch, nothing is waited for"
    )


def test_a_broker_that_was_restarted_looks_around_before_it_ends_a_job() -> None:
    facts = [plan(task(attempts_max=1)), EXPANDED, AWARDED, other(FAILED, code="agent.failed")]
    woken = 10**6
    for seen, look_ms in (
        (view(), PROVIDER_GRACE_MS),  # not even who failed is known yet
        (view(offer("work.a@1", "p")), LOOK_MS),
    ):
        begun = replace(seen, since_ms=woken)
        assert ends(facts, begun, now_ms=woken + look_ms - 1) == []
        assert ends(facts, begun, now_ms=woken + look_ms)


def test_what_is_at_work_is_waited_for() -> None:
    mapped = plan(
        task(inputs={"x": Source(kind="value", value=b"[1,2,3]")}, each=["x"]), hedges_pct=0
    )
    two = [mapped, other(EXPANDED, sizes=[1, 1, 1]), AWARDED, other(AWARDED, unit="a/1")]
    seen = view(offer("work.a@1", "p", concurrency=1), offer("work.a@2"))
    bad = other(FAILED, code="agent.failed")
    assert replans([*two, bad], seen) == []
    assert ends([*two, bad], seen) == []
    fine = [other(f, unit="a/1", key="j/a/1/0") if f is CHARGED else other(f, unit="a/1")
            for f in (DELIVERED, VERIFIED, CHARGED)]  # fmt: skip
    (award,) = [s for s in decided([*two, bad, *fine], seen) if isinstance(s, MakeAward)]
    assert award.unit == "a/2", "units that may do well as planned are begun as planned"
    assert replans([*two, bad, *fine], seen) == [], "and waited for"
    state = state_after(*two, bad, *fine, PATCH)
    assert state.units["a/1"].accepted is not None, "what was accepted stays"


@pytest.mark.parametrize("begun", [[], [AWARDED, other(FAILED, code="agent.failed")]])
def test_who_takes_smaller_batches_does_not_take_over(begun: list[Fact]) -> None:
    mapped = plan(task(inputs={"x": Source(kind="value", value=b"[1,2,3]")}, each=["x"]))
    facts = [mapped, other(EXPANDED, sizes=[3]), *begun]
    assert replans(facts, view(offer("work.a@2", items_max=2))) == []
    assert replans(facts, view(offer("work.a@2", items_max=3)))


def test_an_input_that_cannot_be_had_is_no_reason_for_another_version() -> None:
    seen = view(offer("work.a@1", "p"), offer("work.a@2"))
    lost = other(FAILED, blame="artifact", code="artifact.unavailable")
    facts = [PLAN, EXPANDED]
    for attempt in range(UNFETCHED_MAX + 1):
        facts += [again(AWARDED, attempt), again(lost, attempt)]
    assert replans(facts, seen) == []
    assert [end.reason for end in ends(facts, seen)] == ["artifact.unavailable"]


def test_a_bad_input_is_no_reason_for_another_version() -> None:
    seen = view(offer("work.a@1", "p"), offer("work.a@2"))
    bad = [*FAILED_ON[:-1], other(FAILED, blame="input", code="input.invalid")]
    assert replans(bad, seen) == []
    assert [end.reason for end in ends(bad, seen)] == ["input.invalid"]


def test_the_last_patch_is_the_last_also_for_two_sub_tasks_at_once() -> None:
    alone = task(id="c", capability="work.a@1")
    facts = [plan(OWNERS, alone, replans_max=1), EXPANDED, Expanded(subtask="c", sizes=[-1])]
    seen = view(offer("work.a@2"))
    steps = decided(facts, seen)
    assert [type(step) for step in steps] == [End], "one patch can't help both"
    assert len(replans([plan(OWNERS, alone), *facts[1:]], seen)) == 2


def test_after_the_last_patch_the_job_ends() -> None:
    seen = view(offer("work.a@9"))
    spent = [PLAN, EXPANDED, PATCH, patch_to(3, 2), patch_to(4, 3)]
    (end,) = ends(spent, seen)
    assert end.text == "nobody reachable offers work.a@4 (sub-task 'a')"


def test_what_a_patch_asks_for_is_waited_for_anew() -> None:
    patched = [PLAN, EXPANDED, PATCH]
    assert ends(patched, view(), now_ms=1_002 + PROVIDER_GRACE_MS - 1) == []
    (end,) = ends(patched, view(), now_ms=1_002 + PROVIDER_GRACE_MS)
    assert "work.a@2" in end.text


def test_the_nearest_version_that_fits_is_taken_and_the_others_are_told() -> None:
    names = ("work.a.fast@2", "work.a@9", "work.a@3", "work.a@2")
    for count, wanted in ((4, "work.a@2"), (3, "work.a@3"), (2, "work.a@9"), (1, names[0])):
        (step,) = replans([PLAN, EXPANDED], view(*map(offer, names[:count])))
        assert step.capability == wanted
        assert step.considered == dict.fromkeys(names[:count], 1)


def test_what_the_owner_named_comes_first_in_the_owners_order() -> None:
    offers = [offer("work.a@2"), offer("work.b@1"), offer("work.b@2"), offer("work.c@1")]
    named = [plan(task(instead=["work.c@1", "work.b"])), EXPANDED]
    for count, wanted in ((4, "work.c@1"), (3, "work.b@1"), (1, "work.a@2")):
        (step,) = replans(named, view(*offers[:count]))
        assert step.capability == wanted
        assert set(step.considered) == {one.capability for one in offers[:count]}
    assert looked_for(state_after(*named), view()) == ["work.a", "work.b", "work.c@1"]


def test_what_names_no_version_is_replaced_only_by_what_the_owner_named() -> None:
    facts = [plan(task(capability="work.a", instead=["work.b"])), EXPANDED]
    (step,) = replans(facts, view(offer("work.b@2")))
    assert (step.was, step.capability) == ("work.a", "work.b@2")
    (end,) = ends([plan(task(capability="work.a")), EXPANDED], view(offer("work.b@2")))
    assert end.reason == NOT_OFFERED


NUMBER: JsonValue = {"type": "number"}
TEXT: JsonValue = {"type": "string"}


def shape(fields: JsonValue, **more: JsonValue) -> bytes:
    return canonical({"type": "object", "properties": fields, **more})


def test_a_version_whose_types_do_not_fit_is_left_alone() -> None:
    takes = declared("work.u@1", input_schema=shape({"x": NUMBER}))
    user = offer("work.u@1", "u")
    texts = declared("work.a@2", output_schema=shape({"n": TEXT}))
    seen = view(offer("work.a@2"), user, kinds=[texts, takes])
    assert replans([PLAN, EXPANDED], seen) == []
    assert ends([PLAN, EXPANDED], seen)
    fits = declared("work.a@3", output_schema=shape({"n": NUMBER}))
    seen = view(offer("work.a@2"), offer("work.a@3", "r"), user, kinds=[texts, fits, takes])
    (step,) = replans([PLAN, EXPANDED], seen)
    assert (step.capability, step.considered) == ("work.a@3", {"work.a@2": 0, "work.a@3": 1})


def test_who_declares_something_odd_keeps_nobody_else_from_the_work() -> None:
    seen = view(offer("work.a@2"), offer("work.a@2", "odd"))
    odd = declared("work.a@2", input_schema=shape({}, required=["key"]))
    by_agent = {**seen.declared["work.a"], "odd/agent": odd}
    told = replace(seen, declared={**seen.declared, "work.a": by_agent})
    assert [step.considered for step in replans([PLAN, EXPANDED], told)] == [{"work.a@2": 1}]
    alone = replace(told, candidates={"work.a": [offer("work.a@2", "odd")]})
    assert replans([PLAN, EXPANDED], alone) == []


MISFITS: dict[str, Capability] = {
    "an output that its owner named is missing": declared(
        "work.a@2", output_schema=shape({"m": NUMBER}, additionalProperties=False)
    ),
    "it asks for more": declared("work.a@2", input_schema=shape({}, required=["key"])),
    "it takes no such input": declared(
        "work.a@2", input_schema=shape({"y": NUMBER}, additionalProperties=False)
    ),
    "a constant is of another type": declared("work.a@2", input_schema=shape({"c": TEXT})),
    "a list is none": declared("work.a@2", output_schema=shape({"n": NUMBER, "l": NUMBER})),
}


@pytest.mark.parametrize("kind", MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_the_graph_is_no_replacement(kind: Capability) -> None:
    user = task(id="m", inputs={"x": Source(kind="task", name="a", pointer="/l")}, each=["x"])
    made = task(inputs={"c": Source(kind="value", value=b"1")})
    outputs = {"made": Source(kind="task", name="a", pointer="/n")}
    graph = TaskGraph(name="g", subtasks=[made, user], outputs=outputs)
    others = {"m": [declared("work.m@1", input_schema=shape({"x": NUMBER}))]}
    assert replacement_trouble(graph, made, declared("work.a@2"), others) == ""
    assert replacement_trouble(graph, made, kind, others)


def test_what_contractors_say_has_no_say() -> None:
    said = "use work.b@2 instead; replans_max=99; budget_mc=10000000"
    seen = view(offer("work.a@1", "p"), offer("work.a@2"), offer("work.b@2"))
    quiet = replans([*FAILED_ON[:-1], other(FAILED, code="agent.failed")], seen)
    loud = replans([*FAILED_ON[:-1], other(FAILED, code="agent.failed", text=said)], seen)
    assert loud == quiet != []
    rejected = other(REJECTED, detail=said)
    assert replans([*REJECTED_ON[:-2], rejected, REJECTED_ON[-1]], seen) == replans(
        REJECTED_ON, seen
    )


def test_others_are_looked_for_only_for_what_is_in_trouble() -> None:
    fine = view(offer("work.a@1", "p"))
    assert looked_for(state_after(PLAN, EXPANDED), fine) == []
    assert looked_for(state_after(PLAN, EXPANDED), view()) == ["work.a"]
    assert looked_for(state_after(*FAILED_ON), fine) == ["work.a"]
    assert looked_for(state_after(plan(replans_max=0), *FAILED_ON[1:]), fine) == []


# --- whole jobs -------------------------------------------------------------------


def test_a_patched_job_has_the_outputs_that_its_owner_named() -> None:
    run = patched_run()
    state = run.state
    assert state.done is not None
    assert state.done.state == "completed", state.done
    (made,) = state.patches
    assert (made.was, made.capability) == ("work.a@1", "work.a@2")
    outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
    assert outputs == evaluate(MAPPED, DOCS)
    proved = verify_provenance(run.export())
    assert {row.capability for row in proved.rows if row.subtask == "a"} == {"work.a@2"}
    assert proved.cost_mc == state.spent_mc


def test_random_jobs_are_saved_by_patches_and_stay_provable() -> None:
    saved = lost = 0
    for seed in range(150):
        run, graph, inputs = random_run(seed)
        state = run.run()
        if not state.patches or state.done is None:
            continue
        verify_provenance(run.export())
        if state.done.state == "completed":
            outputs = {k: parse(run.blobs[v.artifact]) for k, v in state.done.outputs.items()}
            assert outputs == evaluate(graph, inputs)
            saved += 1
        else:
            lost += 1
    assert saved > 2
    assert lost > 0
