"""Gold tasks as jobs: how one is dressed to look like any other, and what came of it.

A contractor sees an award and nothing else of a job, so a gold is a job with one sub-task that
is *dressed* as the last usual one for that capability was: the sub-task's id, what it maps
over, its checks and time, and the job's budget, deadline and bounds.  The answer stands in the
plan, which contractors don't get, and so do the agents that are to be asked.

What doesn't look alike: a gold's batches are as small as its golds are few, its job has one
sub-task, and what it is given never comes from another contractor.

Pure: jobs' states in, values out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from meshnode.domain.attempts import is_no_show
from meshnode.domain.job import JobState
from meshnode.domain.plan_parts import GoldPlan
from meshnode.domain.verification import Finding
from protocol.graph import Check, Likeness, Source, SubTask, TaskGraph
from protocol.keys import digest
from protocol.receipts import Verdict
from protocol.records import CapabilityName

#: Checks that ask nothing of the input that only a job's owner knows.
_KEPT: Final = frozenset({"quoted", "recompute"})
#: What an owner says of a source that anyone at work may read.
_READERS: Final = Source(kind="value").readers
#: A check of these on the whole output shows which output is right, and not only that this
#: one is: many programs pass the same cases, and many texts quote the same source.
_PROVING: Final = frozenset({"expected", "recompute"})
#: Likeness that doesn't add up: what is like something like the right answer is like it.
_SHARP: Final = frozenset({"exact", "normalised"})

Outcome = Literal["passed", "failed", "absent", ""]


class Dress(msgspec.Struct, frozen=True, kw_only=True):
    """What an award shows of the job and the sub-task that it is for.

    Attributes:
        subtask: Its id.
        each: Fields that it maps over.
        items: Items of all its batches; 1 for a single call.
        checks: Those that a gold can have too: a receipt tells which passed.
        timeout_ms: As in the graph.
        deadline_ms: From when the job was planned.
        budget_mc: Of the job.
        hops: As in the plan.
        subtasks: Likewise.
        fan_out: Likewise.
        tokens: The highest cap of its awards.
        traced: It had a trace context.
        numbered: Its answers were to be compared.
        verdict: What was said of the latest that was taken without a check.
        check: What was said to be behind that.
    """

    subtask: str
    each: list[str] = []
    items: int = 1
    checks: list[Check] = []
    timeout_ms: int = 0
    deadline_ms: int = 600_000
    budget_mc: int = 1_000_000
    hops: int = 3
    subtasks: int = 0
    fan_out: int = 8
    tokens: int = 0
    traced: bool = False
    numbered: bool = False
    verdict: Verdict = "unverified"
    check: str = ""


def plain_dress(capability: str) -> Dress:
    """Return how a task for ``capability`` looks to which nobody has given a look yet."""
    return Dress(subtask=CapabilityName.parse(capability).path.rpartition(".")[2])


def dresses(state: JobState) -> Iterator[tuple[str, Dress]]:
    """Yield capability and look of the sub-tasks of a job that were awarded."""
    plan = state.required_plan
    for name in state.path:
        units = [state.units[unit] for unit in state.expanded.get(name, ())]
        if not any(attempt.award for unit in units for attempt in unit.attempts):
            continue
        task = state.tasks[name]
        said: tuple[Verdict, str] = ("unverified", "")
        for unit in units:
            verdict = unit.accepted.verdict if unit.accepted is not None else None
            if verdict is not None and verdict.verdict != "verified":
                said = verdict.verdict, verdict.check
        yield (
            task.capability,
            Dress(
                subtask=task.id,
                each=list(task.each),
                items=sum(unit.calls for unit in units),
                checks=[check for check in task.checks if check.kind in _KEPT],
                timeout_ms=task.timeout_ms,
                deadline_ms=plan.deadline_ms - state.planned_ms,
                budget_mc=plan.budget_mc,
                hops=plan.hops,
                subtasks=plan.subtasks,
                fan_out=plan.fan_out,
                tokens=max(a.tokens for unit in units for a in unit.attempts),
                traced=bool(plan.traceparent),
                numbered=bool(plan.theta_ppm),
                verdict=said[0],
                check=said[1],
            ),
        )


def gold_graph(
    dress: Dress, capability: str, fields: Sequence[str], like: Likeness
) -> TaskGraph:
    """Return the graph of a gold whose job has an input for each of ``fields``.

    It maps over what the dress says, if all that is among the fields; else it is a single call.
    """
    task = SubTask(
        id=dress.subtask,
        capability=capability,
        inputs={field: Source(kind="input", name=field) for field in fields},
        each=each_of(dress, fields),
        checks=dress.checks,
        timeout_ms=dress.timeout_ms,
        attempts_max=1,
        like=like,
    )
    outputs = {"answer": Source(kind="task", name=dress.subtask)}
    return TaskGraph(name=capability, subtasks=[task], outputs=outputs)


def each_of(dress: Dress, fields: Collection[str]) -> list[str]:
    """Return what a gold with these input fields maps over."""
    return dress.each if set(dress.each) <= set(fields) else []


def usual_finding(gold: GoldPlan, finding: Finding) -> Finding:
    """Return what would be said of a right answer, were it a usual task's.

    Args:
        gold: Of the plan.
        finding: What the checks of the graph say: they are another task's, so what they refuse
            in a right answer says nothing.
    """
    return finding if finding.verdict == "verified" else Finding(gold.verdict, gold.check)


def expected_of(state: JobState, gold: GoldPlan, unit: str) -> list[bytes]:
    """Return the right outputs of the calls of a gold's unit."""
    first, count = _window(state, unit)
    return gold.expected[first : first + count]


def _window(state: JobState, unit: str) -> tuple[int, int]:
    """Return the place of a unit's first call among those of its sub-task, and how many."""
    found = state.units[unit]
    before = state.expanded[found.subtask][: found.batch]
    return sum(state.units[name].calls for name in before), found.calls


@dataclass(frozen=True, slots=True)
class Answered:
    """What an agent made of a gold's unit.

    Attributes:
        agent: ``peer/name``.
        outcome: ``passed``, ``failed`` (a wrong answer) or ``absent`` (awarded and not
            answered); empty where nothing is shown.
        award: Hash of the award's envelope.
        first: Place of the unit's first call among the golds of the job.
        count: Calls.
    """

    agent: str
    outcome: Outcome
    award: bytes
    first: int
    count: int


def answered(state: JobState) -> list[Answered]:
    """Return what came of a gold that has ended; nothing of what was never awarded."""
    found: list[Answered] = []
    for unit in state.units.values():
        awarded = [attempt for attempt in unit.attempts if attempt.award]
        if not awarded:
            continue
        last = awarded[-1]
        outcome: Outcome = ""
        if last.verdict is not None:
            outcome = "failed" if last.verdict.verdict == "rejected" else "passed"
        elif last.error is not None:
            outcome = "absent" if is_no_show(last.error) else ""
        first, count = _window(state, unit.name)
        agent = f"{last.peer}/{last.agent}"
        found.append(Answered(agent, outcome, digest(last.award), first, count))
    return found


# --- what a job lends --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lent:
    """A unit whose output is proven, and may be asked of others.

    Attributes:
        award: Envelope: its inputs, and for which capability.
        output: Artifact.
        mapped: The output is a list, with an item for each call.
        like: When another answer says the same.
    """

    award: bytes
    output: bytes
    mapped: bool
    like: Likeness


def lent(state: JobState, owner: str) -> list[Lent]:
    """Return what a job lends: nothing unless its owner said so, and nothing of others.

    Args:
        state: Of a job that has ended.
        owner: PeerId of this node.
    """
    plan, graph = state.plan, state.graph
    if plan is None or graph is None or not plan.lends_golds or plan.owner != owner:
        return []
    # What is under an award is another's; what heirs stand by for, they have seen.
    if (
        plan.under
        or plan.gold is not None
        or state.elected is not None
        or _is_restricted(graph)
    ):
        return []
    found: list[Lent] = []
    for unit in state.units.values():
        accepted, task = unit.accepted, state.tasks[unit.subtask]
        if accepted is None or accepted.delivered is None or accepted.verdict is None:
            continue
        like = _proven(task, accepted.verdict.verdict, accepted.verdict.check)
        if like is not None and not accepted.delivered.below:
            mapped = bool(task.each)
            found.append(Lent(accepted.award, accepted.delivered.output, mapped, like))
    return found


def _is_restricted(graph: TaskGraph) -> bool:
    """Tell whether an owner said of anything in a graph who may read it."""
    sources = [source for task in graph.subtasks for source in task.inputs.values()]
    return any(source.readers != _READERS for source in (*sources, *graph.outputs.values()))


def _proven(task: SubTask, verdict: str, passed: str) -> Likeness | None:
    """Return by which likeness an output is *the* right one, or None if that isn't shown."""
    if verdict != "verified":
        return None
    kinds = set(passed.split("+"))
    for check in task.checks:
        whole = check.kind in _PROVING and not check.output
        if whole and check.kind in kinds and check.like.kind in _SHARP:
            return task.like if task.like.kind == "normalised" else check.like
    return None


def seen_by(state: JobState) -> list[str]:
    """Return the PeerIds of all who were awarded something of a job."""
    peers: Mapping[str, None] = dict.fromkeys(
        attempt.peer
        for unit in state.units.values()
        for attempt in unit.attempts
        if attempt.award
    )
    return sorted(peers)
