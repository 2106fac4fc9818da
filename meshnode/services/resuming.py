"""What a job that ended early has left behind, so that another can go on from there."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshnode.domain.facts import Again
from meshnode.domain.job import JobState
from meshnode.domain.resuming import begun, finished_outputs, joined, remainder
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

    A sub-task whose output is no longer kept here counts as unfinished: it is made again.

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
    made: dict[str, JsonValue] = {}
    for subtask, units in finished_outputs(state).items():
        found = [(await artifacts.local(output), items) for output, items in units]
        parts = [(parse(data), items) for data, items in found if data is not None]
        if len(parts) == len(units):
            made[subtask] = joined(parts)
    assert state.graph is not None
    graph, given = remainder(state.graph, inputs, made)
    return Left(graph, given, begun(state, made))
