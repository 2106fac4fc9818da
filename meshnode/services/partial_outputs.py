"""What a job that ended early has made: the accepted outputs, unit by unit.

A job that was cancelled or failed has no outputs of its own, but what was accepted of it
is paid for, and kept here as long as any output is.  It is told as it was made, by
sub-task and unit: a half of a map isn't the list that the graph promises, so nothing is
put together from it.
"""

from typing import Final

import trio

from meshnode.domain.job import JobState
from meshnode.domain.units import SINGLE
from meshnode.domain.values import parse
from meshnode.errors import NotFound
from meshnode.ports import JsonValue
from meshnode.services.artifacts import Artifacts

#: Of all outputs that are told together; what is over has its hash told.
BYTES_MAX: Final = 64 * 1024 * 1024

View = dict[str, JsonValue]


async def partial_outputs(
    state: JobState, artifacts: Artifacts, *, bytes_max: int = BYTES_MAX
) -> View:
    """Return the accepted outputs of a job that has ended, as ``?partial=1`` shows them.

    Args:
        state: Of the job.
        artifacts: Where they are kept.
        bytes_max: Of all values together.

    Raises:
        NotFound: It goes on.
    """
    if state.done is None:
        raise NotFound(f"job {state.job} has not ended", hint="wait for it, or cancel it")
    left = [bytes_max]
    planned = state.graph.subtasks if state.graph else []
    subtasks: list[JsonValue] = [
        await _subtask(state, task.id, artifacts, left) for task in planned
    ]
    return {
        "job": state.job,
        "state": state.done.state,
        "units": len(state.units),
        "kept": state.kept(),
        "subtasks": subtasks,
    }


async def _subtask(
    state: JobState, subtask: str, artifacts: Artifacts, left: list[int]
) -> View:
    """Return the row of a sub-task; takes what its values need from ``left``, in bytes."""
    kept: list[JsonValue] = []
    gone: list[JsonValue] = []
    names = state.expanded.get(subtask)
    start = 0
    for name in names or ():
        unit = state.units[name]
        made = unit.accepted.delivered if unit.accepted is not None else None
        single = unit.items == SINGLE
        if made is not None:
            data = await artifacts.local(made.output) if made.size <= left[0] else None
            if data is None:
                why = "too_large" if made.size > left[0] else "lapsed"
                row: View = {"unit": name, "output": made.output.hex(), "why": why}
                gone.append(row)
            else:
                left[0] -= len(data)
                items = None if single else unit.items
                place = None if single else start
                kept.append(
                    {"unit": name, "start": place, "items": items, "value": parse(data)}
                )
            await trio.lowlevel.checkpoint()  # many of them hold up nobody else
        start += unit.calls
    return {
        "id": subtask,
        "capability": state.tasks[subtask].capability,
        "finished": state.finished(subtask),
        "units": None if names is None else len(names),
        "kept": kept,
        "gone": gone,
    }
