"""Whether a job that would end for one of its sub-tasks can go on, by a patch of its plan.

Asked only when a sub-task can't be done as planned: nobody is left who offers what it
needs, or all that were tried failed, or made what its checks refuse.  The answer is drawn
from the owner's graph and from the signed records of who is there; what a contractor made
or said, an error's text included, is not looked at.  What a patch may be is
:mod:`meshnode.domain.patches`'.
"""

from collections.abc import Sequence
from typing import Final

from meshnode.domain.graphs import replacement_trouble
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.patches import (
    had,
    may_replace,
    patches_max,
    planned_task,
    queries_instead,
)
from meshnode.domain.step_kinds import Replan, View
from protocol.graph import SubTask
from protocol.records import Capability, CapabilityName

#: After a sub-task's last failure others are looked for at least so long.
LOOK_MS: Final = 2_000


def can_be_patched(state: JobState, subtask: str) -> bool:
    """Tell whether the plan may still get a patch for ``subtask``, if somebody fits."""
    left = patches_max(state.required_plan) - len(state.patches)
    return left > 0 and bool(_queries(state, subtask))


def looked_for(state: JobState, view: View) -> list[str]:
    """Return the queries for what may do the sub-tasks that are in trouble instead."""
    troubled = [
        name
        for name in state.path
        if _is_troubled(state, name, view) and can_be_patched(state, name)
    ]
    return sorted({query for name in troubled for query in _queries(state, name)})


def patch(state: JobState, task: SubTask, view: View, code: str) -> Replan | None:
    """Return the patch by which ``task`` goes on, or None if nobody fits.

    What the owner named comes first, in the owner's order; of the versions of one name the
    one that is nearest to the owner's, and of two the newer one.

    Args:
        state: Of a job with a patch left.
        task: It can't be done as the plan is now.
        view: With what is declared for :func:`looked_for`.
        code: What the job would end with.
    """
    planned = had(state, task.id)[0]
    considered: dict[str, int] = {}
    for query in _queries(state, task.id):
        candidates = view.candidates.get(query, ())
        for name in _nearest_first(planned, {c.capability for c in candidates}):
            if name in considered or not may_replace(state, task.id, name):
                continue
            named = [c for c in candidates if c.capability == name]
            declared = view.declared.get(query, {})
            kinds = [(c, declared[c.agent_id]) for c in named if c.agent_id in declared]
            considered[name] = _fitting(state, task, kinds, view)
    chosen = next((name for name, nodes in considered.items() if nodes), "")
    if not chosen:
        return None
    return Replan(task.id, task.capability, chosen, code, considered)


def _queries(state: JobState, subtask: str) -> list[str]:
    return queries_instead(planned_task(state.graph, subtask)) if state.graph else []


def _is_troubled(state: JobState, subtask: str, view: View) -> bool:
    """Tell whether ``subtask`` has its inputs, and failed or has nobody to do it."""
    if state.finished(subtask):
        return False
    if not all(state.finished(producer) for producer in state.producers[subtask]):
        return False
    begun = state.begun.get(subtask, {}).values()
    if any(len(unit.failures()) > unit.turned for unit in begun):
        return True
    waits = subtask not in state.expanded or bool(state.fresh.get(subtask))
    return waits and not view.candidates.get(state.tasks[subtask].capability)


def _nearest_first(planned: str, names: set[str]) -> list[str]:
    wanted = CapabilityName.parse(planned)

    def distance(name: str) -> tuple[bool, int, int, str]:
        found = CapabilityName.parse(name)
        apart = abs(found.major - wanted.major)
        return found.path != wanted.path, apart, -found.major, name

    return sorted(names, key=distance)


def _fitting(
    state: JobState,
    task: SubTask,
    candidates: Sequence[tuple[Candidate, Capability]],
    view: View,
) -> int:
    """Return how many nodes among ``candidates`` could do ``task``, by what they declare.

    As when a job is taken, one that fits will do: that another one declares something odd
    under the same name must not keep it from the work.
    """
    assert state.graph is not None
    offered = {
        other.id: [*view.declared.get(state.tasks[other.id].capability, {}).values()]
        for other in state.graph.subtasks
        if other.id != task.id
    }
    units = {**state.begun.get(task.id, {}), **state.fresh.get(task.id, {})}
    calls = max((unit.calls for unit in units.values()), default=0)
    return len(
        {
            candidate.peer
            for candidate, kind in candidates
            if candidate.items_max >= calls
            and not replacement_trouble(state.graph, task, kind, offered)
        }
    )
