"""What a patch of a job's plan may be: judged by whoever writes one and whoever reads one.

A plan is fixed before any output is read.  When a sub-task can't be done as planned, the
job needn't end: the sub-task may go on with another capability.  A patch is that and
nothing else, for it has no room for more: the graph's inputs, edges, outputs, readers and
checks, the budget, the deadline and the hops are not in it.  The sub-task keeps its id:
so what was accepted of it stays, consumers and the owner's outputs find it where they did,
and a unit's charge key is the same before and after, so that it can't be paid twice.

Which capabilities may take over is the owner's word: the graph says for a sub-task what
may be done ``instead``, and it names a capability with its major version, of which another
version (or a more special kind) is another way to do the same.  That two capabilities have
the same types says nothing of the sort: a translation and a summary both make a text of a
text.

Specified in protocol/spec/80-journal.md, "Patches".
"""

from typing import TYPE_CHECKING, Final

from meshnode.domain.facts import Planned, Replanned
from protocol.graph import SubTask, TaskGraph
from protocol.limits import REPLANS_MAX
from protocol.records import CapabilityName

if TYPE_CHECKING:
    from meshnode.domain.job import JobState

#: A check that runs the capability again here: of another one it would tell nothing.
_BOUND: Final = "recompute"


def patches_max(plan: Planned) -> int:
    """Return how many patches a job's plan may get."""
    return max(0, min(plan.replans_max, REPLANS_MAX))


def queries_instead(task: SubTask) -> list[str]:
    """Return the queries that cover what may do ``task`` instead, the best first.

    Args:
        task: As the owner's graph has it.
    """
    if any(check.kind == _BOUND for check in task.checks):
        return []
    name = CapabilityName.parse(task.capability)
    return [*task.instead, *([name.path] if name.major else [])]


def planned_task(graph: TaskGraph, subtask: str) -> SubTask:
    """Return ``subtask`` as the owner's graph has it."""
    return next(task for task in graph.subtasks if task.id == subtask)


def had(state: "JobState", subtask: str) -> list[str]:
    """Return the capabilities that ``subtask`` was tried with, the owner's first."""
    before = [patch.was for patch in state.patches if patch.subtask == subtask]
    return [*before, state.tasks[subtask].capability]


def may_replace(state: "JobState", subtask: str, capability: str) -> bool:
    """Tell whether ``capability`` may do ``subtask`` instead, and wasn't tried before."""
    if state.graph is None:
        return False
    name = CapabilityName.parse(capability)
    queries = queries_instead(planned_task(state.graph, subtask))
    return (
        bool(name.major)
        and any(CapabilityName.parse(query).covers(name) for query in queries)
        and not any(CapabilityName.parse(old).covers(name) for old in had(state, subtask))
    )


def patch_trouble(state: "JobState", patch: Replanned) -> str:
    """Return why ``patch`` may not follow upon ``state``; nothing if it may.

    Raises:
        Malformed: It names something that is no capability.
    """
    task = state.tasks.get(patch.subtask)
    if task is None:
        return f"there is no sub-task {patch.subtask[:60]!r}"
    if state.cancelled is not None:
        return "the job is being ended"
    most = patches_max(state.required_plan)
    if len(state.patches) >= most:
        return f"it has {len(state.patches)} of {most} patches"
    if state.finished(task.id):
        return f"{task.id} is finished"
    if any(unit.tried() for unit in state.begun.get(task.id, {}).values()):
        return f"{task.id} is at work"
    if patch.was != task.capability:
        return f"{task.id} needs {task.capability}"
    if not may_replace(state, task.id, patch.capability):
        return f"{patch.capability[:100]} may not do what {task.id} is for"
    if patch.considered.get(patch.capability, 0) < 1:
        return f"nobody was seen to offer {patch.capability[:100]}"
    return ""
