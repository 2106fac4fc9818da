"""What a job that ended early has left behind, so that another can go on from there."""

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from meshnode.domain.job import JobState
from meshnode.domain.plan_parts import Again
from meshnode.domain.resuming import begun, drawn_from, finished_outputs, joined, remainder
from meshnode.domain.values import parse
from meshnode.errors import ArtifactError
from meshnode.ports import JsonValue
from meshnode.services.artifacts import Artifacts
from protocol.graph import TaskGraph


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a job.

    Attributes:
        graph: Sub-tasks that aren't finished.
        inputs: What they and the outputs draw from.
        again: Those that were begun.
    """

    graph: TaskGraph
    inputs: Mapping[str, JsonValue]
    again: Mapping[str, Again]


async def left_of(state: JobState, artifacts: Artifacts) -> Left:
    """Return what is left of a job.

    A sub-task whose output is needed and no longer kept here counts as unfinished: it is
    made again.

    Raises:
        ArtifactError: An input of the job is no longer kept.
        InputInvalid: The graph draws from a place that an output doesn't have.
    """
    plan = state.required_plan
    inputs: dict[str, JsonValue] = {}
    for name, ref in plan.inputs.items():
        data = await artifacts.local(ref.artifact)
        if data is None:
            raise ArtifactError(
                f"the input {name!r} of job {state.job} is no longer kept",
                hint="submit it again as a new job",
            )
        inputs[name] = parse(data)
        await trio.lowlevel.checkpoint()
    assert state.graph is not None
    made = await _made(state, state.graph, artifacts)
    graph, given = remainder(state.graph, inputs, made)
    return Left(graph, given, begun(state, made))


async def _made(
    state: JobState, graph: TaskGraph, artifacts: Artifacts
) -> dict[str, JsonValue]:
    """Return the finished sub-tasks with their outputs; None where nothing draws from one.

    Only what is drawn from is read, one unit's output at a time and others have their turn
    between: all of a large job at once would hold up this node.  A thread would too, since
    reading JSON lets no other thread run.
    """
    finished = finished_outputs(state)
    made: dict[str, JsonValue] = {}
    while wanted := drawn_from(graph, finished) - made.keys():
        for subtask in sorted(wanted):
            parts: list[tuple[JsonValue, int]] = []
            for output, items in finished[subtask]:
                data = await artifacts.local(output)
                if data is None:
                    del finished[subtask]  # and what it draws from is wanted now
                    break
                parts.append((parse(data), items))
                await trio.lowlevel.checkpoint()
            else:
                made[subtask] = joined(parts)
    return {subtask: made.get(subtask) for subtask in finished}
