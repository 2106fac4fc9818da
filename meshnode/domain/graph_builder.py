"""Task graphs in Python: the same graphs as in TOML, written as calls.

::

    graph = TaskGraph("review")
    texts = graph.input("files").each["text"]
    summaries = graph.task("text.summarization@1", each={"text": texts})
    summary = summaries["summary"]
    report = graph.task("text.report_writing@1", title="Mine", summaries=summary)
    graph.output("report", report["markdown"])

What a task or an input stands for is a :class:`Place`: where a value will come from.
``place["name"]`` goes into it, ``place.each`` ranges over a list.  Anything else that is
given as an input is a constant.  Everything is checked when the graph is built, by the
reader of graph files, so the three ways to write a graph refuse the same things.
"""

from collections.abc import Mapping, Sequence
from typing import Final, cast

from typing_extensions import override

from meshnode.domain.graph_files import graph_of, graph_to_json, graph_to_value, parse_graph
from meshnode.errors import GraphError
from meshnode.ports import JsonValue
from protocol import graph as protocol

_EACH: Final = "*"


class Place:
    """Where a value will come from: a job input or a sub-task's output, and the way into it."""

    def __init__(self, graph: "TaskGraph", source: str, pointer: str = "") -> None:
        """Name a place; :meth:`TaskGraph.input` and :meth:`TaskGraph.task` make them."""
        self.graph = graph
        self._source = source
        self._pointer = pointer

    def __getitem__(self, key: str | int) -> "Place":
        """Return the place of a member, or of an item, of what will be here."""
        step = str(key).replace("~", "~0").replace("/", "~1")
        return Place(self.graph, self._source, f"{self._pointer}/{step}")

    @property
    def each(self) -> "Place":
        """The place of every item of the list that will be here."""
        return Place(self.graph, self._source, f"{self._pointer}/{_EACH}")

    def __iter__(self) -> "Place":
        """Refuse: the values aren't there yet.

        Raises:
            GraphError: Always.
        """
        raise GraphError(
            f"{self!r} can't be looped over", hint="use .each, or each=… of task()"
        )

    @override
    def __str__(self) -> str:
        return f"{self._source}{self._pointer}"

    @override
    def __repr__(self) -> str:
        return f"<place {self}>"


class TaskGraph:
    """A graph of sub-tasks, written step by step.

    Args:
        name: For people.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._subtasks: dict[str, dict[str, JsonValue]] = {}
        self._outputs: dict[str, JsonValue] = {}

    @classmethod
    def parse(cls, text: str, *, where: str = "graph") -> "TaskGraph":
        """Return the graph in TOML or JSON ``text``; ``where`` names it in messages.

        Raises:
            GraphError: Names line or sub-task, and what to do.
        """
        value = graph_to_value(parse_graph(text, where=where))
        graph = cls(cast("str", value["name"]))
        graph._subtasks = cast("dict[str, dict[str, JsonValue]]", value["subtasks"])
        graph._outputs = cast("dict[str, JsonValue]", value["outputs"])
        return graph

    def input(self, name: str) -> Place:
        """Return the place of the job's input ``name``."""
        return Place(self, f"@{name}")

    def task(  # noqa: PLR0913 - what a sub-task has; all but the first by name
        self,
        capability: str,
        inputs: Mapping[str, object] | None = None,
        *,
        id: str = "",  # noqa: A002 - its name in graph files
        each: Mapping[str, object] | None = None,
        checks: Sequence[Mapping[str, JsonValue]] = (),
        batch_items_max: int = 0,
        timeout_ms: int = 0,
        attempts_max: int = 4,
        instead: Sequence[str] = (),
        like: str | Mapping[str, JsonValue] = "exact",
        panel: str | Mapping[str, JsonValue] | None = None,
        **more: object,
    ) -> Place:
        """Add a sub-task, and return the place of its output.

        Args:
            capability: What it needs, ``text.summarization@1``.
            inputs: Field of the agent's input -> :class:`Place` or constant; for fields
                that are Python names ``field=…`` does too.
            id: Its name in the graph; made of the capability when empty.
            each: As ``inputs``, but lists: the agent is called once for each item, and
                the output is the list of outputs.
            checks: What outputs are held against (docs/checks.md), such as
                ``{"kind": "quoted", "output": "/…", "input": "/…"}``.
            batch_items_max: Items per award of a map; 0 lets the broker choose.
            timeout_ms: Longest run of one award; 0 takes the agent's own limit.
            attempts_max: Awards of one batch before it fails.
            instead: Capabilities that may do it when nobody does this one, best first.
            like: When two answers say the same, such as ``normalised``.
            panel: What judges are asked where answers differ and none is likely enough
                (docs/assurance.md), or a table with ``capability`` and ``question``.
            **more: More inputs.

        Raises:
            GraphError: There is a sub-task of that id, or a place of another graph.
        """
        name = id or self._free_id(capability)
        if name in self._subtasks:
            raise GraphError(f"there are two sub-tasks {name!r}", hint="give one another id")
        single = {**(inputs or {}), **more}
        for field in each or {}:
            if field in single:
                raise GraphError(f"sub-task {name!r}: {field!r} is in inputs and in each")
        drawn = {
            field: self._source(value) for field, value in {**single, **(each or {})}.items()
        }
        task: dict[str, JsonValue] = {
            "capability": capability,
            "inputs": drawn,
            "each": list(each or {}),
            "checks": [dict(check) for check in checks],
            "batch_items_max": batch_items_max,
            "timeout_ms": timeout_ms,
            "attempts_max": attempts_max,
            "instead": list(instead),
            "like": like if isinstance(like, str) else dict(like),
        }
        if panel is not None:
            task["panel"] = panel if isinstance(panel, str) else dict(panel)
        self._subtasks[name] = task
        return Place(self, name)

    def output(self, name: str, place: Place) -> None:
        """Say that the job returns what will be at ``place``, as ``name``.

        Raises:
            GraphError: ``place`` is of another graph.
        """
        self._outputs[name] = self._source(place)

    def build(self) -> protocol.TaskGraph:
        """Return the graph as the mesh has it, shape checked.

        Raises:
            GraphError: A cycle, a dangling edge, no outputs, …: says which sub-task.
        """
        where = f"graph {self._name!r}" if self._name else "the graph"
        return graph_of(
            {
                "name": self._name,
                "subtasks": dict(self._subtasks),
                "outputs": dict(self._outputs),
            },
            where=where,
        )

    def to_json(self) -> str:
        """Return the graph as a graph file.

        Raises:
            GraphError: As :meth:`build`.
        """
        return graph_to_json(self.build())

    def _source(self, value: object) -> JsonValue:
        if not isinstance(value, Place):
            return {"value": value}  # type: ignore[dict-item]  # the reader refuses what is no JSON
        if value.graph is not self:
            raise GraphError(f"{value!r} is of another graph", hint="make it with this one")
        return str(value)

    def _free_id(self, capability: str) -> str:
        """Return an id that says what the sub-task does: the last word of its capability."""
        word = capability.partition("@")[0].rpartition(".")[2] or "task"
        number, name = 1, word
        while name in self._subtasks:
            number += 1
            name = f"{word}{number}"
        return name
