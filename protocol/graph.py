"""Task graphs: sub-tasks, and typed data edges between them.

A graph is fixed before any untrusted output is read.  An input field of a
sub-task draws from a constant, from one of the job's inputs, or from another
sub-task's output through a JSON Pointer; that last kind is an edge.

A sub-task with ``each`` is a map: the named fields draw lists of one length, the
agent is called once per item, items are awarded in batches, and its output is the
list of the items' outputs in order.  A pointer into a map's output applies to each
item.

Only shape is checked here (names, limits, no cycle, no dangling edge); whether the
types fit needs the providers' schemas and is ``meshnode.domain.graph``'s.

Specified in protocol/spec/40-graphs.md; vectors in protocol/vectors/graphs.json.
"""

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Literal

import msgspec

from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Malformed
from protocol.likeness import EXACT, Likeness, check_likeness
from protocol.records import CapabilityName

__all__ = [
    "EXACT",
    "Check",
    "Likeness",
    "Panel",
    "Source",
    "SubTask",
    "TaskGraph",
    "check_graph",
    "decode_graph",
    "edges",
    "encode_graph",
    "longest",
    "order",
]

_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*")  # RFC 6901
_POINTER_SIZE_MAX: Final = 256
_TIMEOUT_MS_MAX: Final = 7 * 24 * 3_600_000
_ATTEMPTS_MAX: Final = 10


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a value comes from.

    Attributes:
        kind: ``value`` (constant), ``input`` (of the job) or ``task`` (an edge).
        name: Name of the input or id of the sub-task; empty for a constant.
        pointer: JSON Pointer (RFC 6901) into it; empty for the whole.
        value: The constant as RFC 8785 JSON bytes; empty otherwise.
        readers: Who may read it beside the consumer: ``broker``, ``owner``,
            ``verifier`` or PeerIds.
    """

    kind: Literal["value", "input", "task"]
    name: str = ""
    pointer: str = ""
    value: bytes = b""
    readers: list[str] = msgspec.field(default_factory=lambda: ["broker", "owner"])


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A deterministic check of a sub-task's output, carried out by the broker.

    Attributes:
        kind: ``quoted`` (every text at ``output`` occurs verbatim in the text at
            ``input``), ``recompute`` (a deterministic agent of the broker's own node
            gives the same output), ``expected`` (what is at ``output`` is like ``value``)
            or ``program`` (the text at ``output`` is a program that gives what the cases
            of ``value``, or at ``input``, say).
        output: JSON Pointer into the output of one call; ``*`` segments range over
            a list.
        input: JSON Pointer into the input of one call.
        value: A constant as RFC 8785 JSON bytes, for ``expected`` and ``program``.
        like: How values are compared; not by ``embedding``, which shows nothing.
    """

    kind: Literal["quoted", "recompute", "expected", "program"]
    output: str = ""
    input: str = ""
    value: bytes = b""
    like: Likeness = EXACT


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked which of two answers is better, when nothing else decides.

    Attributes:
        capability: Of the judges, as in a sub-task.
        question: What they are asked; empty for which answer to the task is better.
    """

    capability: str = "text.judging@1"
    question: str = ""


class SubTask(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the graph.

    Attributes:
        id: Name within the graph.
        capability: What it needs; a prefix and a missing version match more.
        inputs: Field of the agent's input object -> where it comes from.
        each: Fields that are mapped over; empty for a single call.
        batch_items_max: Items per award of a map; 0 lets the broker choose.
        checks: Beyond the output schema, which is always checked.
        timeout_ms: For one award; 0 takes the agent's own limit.
        attempts_max: Awards of one batch before it fails.
        instead: What may do it when nobody does what it needs, the best first.
        like: When two answers to it say the same, where several are asked for.
        panel: Who is asked where several are there and none is likely enough; None for
            nobody.
    """

    id: str
    capability: str
    inputs: dict[str, Source]
    each: list[str] = []
    batch_items_max: int = 0
    checks: list[Check] = []
    timeout_ms: int = 0
    attempts_max: int = 4
    instead: list[str] = []
    like: Likeness = EXACT
    panel: Panel | None = None


class TaskGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A job's plan.

    Attributes:
        name: For people.
        subtasks: In any order.
        outputs: Name -> source: what the job returns.
        v: Version of this structure.
    """

    name: str
    subtasks: list[SubTask]
    outputs: dict[str, Source]
    v: int = 1


_EXACT: Final = msgspec.to_builtins(EXACT)
_DECODER: Final = msgspec.msgpack.Decoder(TaskGraph)


def decode_graph(payload: bytes) -> TaskGraph:
    """Return the graph that ``payload`` encodes, shape checked.

    Raises:
        Malformed: As :func:`check_graph`, or not canonical.
    """
    graph = decode_as(payload, _DECODER)
    check_graph(graph)
    return graph


def encode_graph(graph: TaskGraph) -> bytes:
    """Return the canonical bytes of ``graph``.

    What came later (``instead``, ``like``, ``panel``, a check's ``value``) is left out where
    it says nothing: so a graph without it has the bytes, and the name, that it had before
    there was such a field.
    """
    fields = msgspec.to_builtins(graph, builtin_types=(bytes,))
    for task in fields["subtasks"]:
        _drop_silent(task, {"instead": [], "like": _EXACT, "panel": None})
        for check in task["checks"]:
            _drop_silent(check, {"value": b"", "like": _EXACT})
    return encode(fields)


def _drop_silent(fields: dict[str, Any], silent: Mapping[str, object]) -> None:
    for name, value in silent.items():
        if fields[name] == value:
            del fields[name]


def edges(graph: TaskGraph) -> dict[str, set[str]]:
    """Return each sub-task's direct predecessors by id."""
    return {
        task.id: {source.name for source in task.inputs.values() if source.kind == "task"}
        for task in graph.subtasks
    }


def order(graph: TaskGraph) -> list[str]:
    """Return the ids so that producers come before consumers, ties by id.

    Raises:
        Malformed: The graph has a cycle; the message walks it.
    """
    sorter = TopologicalSorter({k: sorted(v) for k, v in sorted(edges(graph).items())})
    try:
        sorter.prepare()
    except CycleError as exc:
        walk = " -> ".join(exc.args[1])
        raise Malformed(f"the graph has a cycle: {walk}; remove one of these edges") from exc
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += ready
        sorter.done(*ready)
    return ordered


def check_graph(graph: TaskGraph) -> None:
    """Refuse a graph whose shape is wrong.

    Raises:
        Malformed: Names the sub-task and field, and what to do.
    """
    if graph.v != 1:
        raise Malformed(f"a graph of version {graph.v}; this node speaks version 1")
    count = len(graph.subtasks)
    if not 1 <= count <= limits.SUBTASKS_MAX:
        raise Malformed(f"a graph has 1 to {limits.SUBTASKS_MAX} sub-tasks, not {count}")
    ids = [task.id for task in graph.subtasks]
    for name in ids:
        if not _ID.fullmatch(name):
            raise Malformed(
                f"{name[:60]!r} is no sub-task id: a-z, then a-z 0-9 _ -, at most 40"
            )
        if ids.count(name) > 1:
            raise Malformed(f"two sub-tasks are called {name!r}")
    for task in graph.subtasks:
        _check_subtask(task, frozenset(ids))
    for name, source in graph.outputs.items():
        _check_source(f"output {name[:64]!r}", source, frozenset(ids))
    if not graph.outputs:
        raise Malformed("the graph has no outputs: name what the job returns")
    if longest(graph) > limits.GRAPH_DEPTH_MAX:
        raise Malformed(f"a path is longer than {limits.GRAPH_DEPTH_MAX} sub-tasks")


def longest(graph: TaskGraph) -> int:
    """Return the number of sub-tasks on the longest path."""
    depth: dict[str, int] = {}
    before = edges(graph)
    for name in order(graph):
        depth[name] = 1 + max((depth[p] for p in before[name]), default=0)
    return max(depth.values())


def _check_subtask(task: SubTask, ids: frozenset[str]) -> None:
    where = f"sub-task {task.id!r}"
    for name in (task.capability, *task.instead):
        _check_capability(where, name)
    if len(task.instead) > limits.INSTEAD_MAX:
        raise Malformed(f"{where} names more than {limits.INSTEAD_MAX} capabilities instead")
    if len(task.inputs) > limits.INPUTS_MAX:
        raise Malformed(f"{where} has more than {limits.INPUTS_MAX} inputs")
    for field, source in task.inputs.items():
        if not _FIELD.fullmatch(field):
            raise Malformed(f"{where}: {field[:64]!r} can't name an input field")
        _check_source(f"{where}, input {field!r}", source, ids)
    _check_map(where, task)
    check_likeness(where, task.like)
    if task.panel is not None:
        _check_panel(f"{where}, panel", task.panel)
    if len(task.checks) > limits.CHECKS_MAX:
        raise Malformed(f"{where} has more than {limits.CHECKS_MAX} checks")
    for check in task.checks:
        _check_check(f"{where}, check {check.kind}", check)


def _check_capability(where: str, name: str) -> None:
    try:
        CapabilityName.parse(name)
    except Malformed as exc:
        raise Malformed(f"{where}: {exc}") from exc


def _check_panel(where: str, panel: Panel) -> None:
    _check_capability(where, panel.capability)
    if len(panel.question) > limits.QUESTION_SIZE_MAX:
        raise Malformed(f"{where}: a question of over {limits.QUESTION_SIZE_MAX} characters")


def _check_check(where: str, check: Check) -> None:
    for pointer in (check.output, check.input):
        _check_pointer(where, pointer)
    check_likeness(where, check.like)
    if check.like.kind == "embedding":
        raise Malformed(f"{where}: that texts mean the same shows nothing")
    if check.kind == "quoted" and check.like != EXACT:
        raise Malformed(f"{where}: what is quoted stands there verbatim, or it isn't quoted")
    if check.kind == "expected" and not check.value:
        raise Malformed(f"{where} has no value that is expected")
    if check.value and check.kind not in {"expected", "program"}:
        raise Malformed(f"{where} has no use for a value")


def _check_map(where: str, task: SubTask) -> None:
    for field in task.each:
        if field not in task.inputs:
            raise Malformed(f"{where} maps over {field[:64]!r}, which is not among its inputs")
    if len(set(task.each)) != len(task.each):
        raise Malformed(f"{where} names a field twice in each")
    for name, value, low, high in (
        ("batch_items_max", task.batch_items_max, 0, limits.NODES_MAX),
        ("timeout_ms", task.timeout_ms, 0, _TIMEOUT_MS_MAX),
        ("attempts_max", task.attempts_max, 1, _ATTEMPTS_MAX),
    ):
        if not low <= value <= high:
            raise Malformed(f"{where}: {name} is {low} to {high}, not {value}")


def _check_source(where: str, source: Source, ids: frozenset[str]) -> None:
    _check_pointer(where, source.pointer)
    match source.kind:
        case "task" if source.name not in ids:
            raise Malformed(
                f"{where} draws from sub-task {source.name[:60]!r}, which does not exist"
            )
        case "input" if not _FIELD.fullmatch(source.name):
            raise Malformed(f"{where}: {source.name[:64]!r} can't name a job input")
        case "value" if not source.value:
            raise Malformed(f"{where} is a constant without a value")
        case _:
            pass


def _check_pointer(where: str, pointer: str) -> None:
    if len(pointer) > _POINTER_SIZE_MAX or not _POINTER.fullmatch(pointer):
        raise Malformed(
            f"{where}: {pointer[:60]!r} is no JSON Pointer; one begins with /, and ~ is ~0"
        )
