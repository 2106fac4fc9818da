"""Graphs of what simulated jobs are about: a call, a map, a pipeline."""

from collections.abc import Mapping

from meshnode.ports import JsonValue
from protocol.graph import Check, Source, SubTask, TaskGraph
from simulations.agents import Skill


def call_graph(capability: str, inputs: Mapping[str, JsonValue]) -> TaskGraph:
    """Return a graph of one call, whose output object is the job's ``result``."""
    return TaskGraph(
        name=capability,
        subtasks=[
            SubTask(
                id="call",
                capability=capability,
                inputs={name: Source(kind="input", name=name) for name in inputs},
            )
        ],
        outputs={"result": Source(kind="task", name="call", pointer="")},
    )


def map_graph(skill: Skill) -> TaskGraph:
    """Return a graph of one map over the job's ``words``, one sub-task for each."""
    return TaskGraph(
        name=f"map of {skill.name}",
        subtasks=[
            SubTask(
                id="each",
                capability=skill.capability,
                inputs={skill.input_field: Source(kind="input", name="words")},
                each=[skill.input_field],
                batch_items_max=1,
            )
        ],
        outputs={"texts": Source(kind="task", name="each", pointer=f"/{skill.output_field}")},
    )


def pipeline_graph(*, echo_items_max: int = 5) -> TaskGraph:
    """Return a graph of two maps over the job's ``words``, one behind the other, and a join.

    Args:
        echo_items_max: Words of the second map in one award; five of the first.
    """
    upper = Source(kind="task", name="upper", pointer="/text")
    echo = Source(kind="task", name="echo", pointer="/text")
    return TaskGraph(
        name="pipeline",
        subtasks=[
            SubTask(
                id="upper",
                capability="text.upper",
                inputs={"text": Source(kind="input", name="words")},
                each=["text"],
                batch_items_max=5,
            ),
            SubTask(
                id="echo",
                capability="text.echo@1",
                inputs={"text": upper},
                each=["text"],
                batch_items_max=echo_items_max,
                checks=[Check(kind="quoted", output="/text", input="/text")],
            ),
            SubTask(id="join", capability="text.join", inputs={"texts": echo}),
        ],
        outputs={"text": Source(kind="task", name="join", pointer="/text")},
    )
