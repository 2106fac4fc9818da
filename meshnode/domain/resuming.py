"""What is left of a job that ended early: a graph in which finished sub-tasks are given.

A sub-task all of whose units were accepted isn't run again: whoever draws from it draws
from a job input instead, which holds what it would have drawn.  All others are run from
the start.  One that was begun has the same inputs again, and is cut into the same units:
so what its agents did beside their answers has the same idempotency keys.
"""

from collections.abc import Collection, Mapping
from typing import cast

import msgspec

from meshnode.domain.job import JobState
from meshnode.domain.plan_parts import Again
from meshnode.domain.units import SINGLE
from meshnode.domain.values import pick
from meshnode.ports import JsonValue
from protocol.graph import Source, TaskGraph


def finished_outputs(state: JobState) -> dict[str, list[tuple[bytes, int]]]:
    """Return the outputs of finished sub-tasks: for each unit, hash and items.

    Items are :data:`~meshnode.domain.job.SINGLE` for a single call.
    """
    return {
        task: [(made.output, unit.items) for unit, made in state.outputs(task)]
        for task in state.path
        if state.finished(task)
    }


def begun(state: JobState, made: Collection[str]) -> dict[str, Again]:
    """Return the sub-tasks that were begun and are to be run again, with their cut.

    Those that the job was to run again itself, and didn't come to, stay begun.

    Args:
        state: Of the job.
        made: Finished sub-tasks whose outputs are still there; without them, what draws
            from them may get other inputs, and is another work.
    """
    before = state.required_plan.again
    waiting = {
        subtask: again
        for subtask, again in before.items()
        if subtask not in state.expanded and subtask not in made
    }
    return waiting | {
        subtask: Again(
            job=before[subtask].job if subtask in before else state.job,
            sizes=[state.units[name].items for name in names],
        )
        for subtask, names in state.expanded.items()
        if subtask not in made and state.producers[subtask] <= set(made)
    }


def joined(values: list[tuple[JsonValue, int]]) -> JsonValue:
    """Return the output of a sub-task from those of its units."""
    if [items for _, items in values] == [SINGLE]:
        return values[0][0]
    return [item for value, _ in values for item in cast("list[JsonValue]", value)]


def drawn_from(graph: TaskGraph, made: Collection[str]) -> set[str]:
    """Return those of ``made`` that the rest of ``graph``, or its outputs, draw from."""
    left = [task for task in graph.subtasks if task.id not in made]
    sources = [source for task in left for source in task.inputs.values()]
    return {
        source.name
        for source in (*sources, *graph.outputs.values())
        if source.kind == "task" and source.name in made
    }


def remainder(
    graph: TaskGraph, inputs: Mapping[str, JsonValue], made: Mapping[str, JsonValue]
) -> tuple[TaskGraph, dict[str, JsonValue]]:
    """Return the graph of what is left, and its inputs.

    Args:
        graph: Of the job.
        inputs: Of the job.
        made: Finished sub-task -> its output; a map's is the list of its calls'.  What
            nothing draws from (:func:`drawn_from`) isn't looked at.

    Raises:
        InputInvalid: The graph draws from a place that an output doesn't have.
    """
    maps = {task.id for task in graph.subtasks if task.each}
    given: dict[tuple[str, str], str] = {}  # sub-task and place -> job input
    more: dict[str, JsonValue] = {}

    def drawn(source: Source) -> Source:
        if source.kind != "task" or source.name not in made:
            return source
        place = (source.name, source.pointer)
        if place not in given:
            given[place] = _fresh(f"{source.name.replace('-', '_')}_made", {*inputs, *more})
            whole, pointer = made[source.name], source.pointer
            more[given[place]] = (
                [pick(item, pointer) for item in cast("list[JsonValue]", whole)]
                if source.name in maps
                else pick(whole, pointer)
            )
        return Source(kind="input", name=given[place], readers=source.readers)

    left = [
        msgspec.structs.replace(
            task, inputs={name: drawn(source) for name, source in task.inputs.items()}
        )
        for task in graph.subtasks
        if task.id not in made
    ]
    outputs = {name: drawn(source) for name, source in graph.outputs.items()}
    rest = msgspec.structs.replace(graph, subtasks=left, outputs=outputs)
    return rest, _needed(rest, {**inputs, **more})


def _needed(graph: TaskGraph, inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return those of ``inputs`` that ``graph`` draws from."""
    sources = [source for task in graph.subtasks for source in task.inputs.values()]
    names = {s.name for s in [*sources, *graph.outputs.values()] if s.kind == "input"}
    return {name: value for name, value in inputs.items() if name in names}


def _fresh(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
