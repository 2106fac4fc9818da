"""Does a graph hold together with what providers say of themselves?

Shape is :mod:`protocol.graph`'s; here the types are held against the providers'
schemas, before anything is spent.  A source is refused only if it can never fit;
what a schema leaves open is checked when the value exists.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from meshnode.domain.programs import read_cases
from meshnode.domain.schemas import (
    at_pointer,
    check_schema,
    is_closed,
    is_usable,
    misfit,
    mismatch,
    with_definitions,
)
from meshnode.domain.values import canonical, parse, pick, resolve_list
from meshnode.errors import GraphError, InputInvalid
from meshnode.ports import JsonValue
from protocol.errors import Malformed
from protocol.graph import Check, Source, SubTask, TaskGraph, check_graph
from protocol.limits import INLINE_SIZE_MAX
from protocol.records import Capability

_ANY: Final[Mapping[str, Any]] = {}
#: Of what a capability takes, so much is told when a graph doesn't fit it.
_FIELDS_SHOWN: Final = 8
_NAME_SHOWN: Final = 40

#: Sub-task id -> the capabilities on offer for it; empty while nobody is known.
Offered = Mapping[str, Sequence[Capability]]


def check_shape(graph: TaskGraph) -> None:
    """Refuse a graph whose shape is wrong.

    Raises:
        GraphError: Names the sub-task and what to do.
    """
    try:
        check_graph(graph)
    except Malformed as exc:
        raise GraphError(str(exc)) from exc
    for task in graph.subtasks:
        for name, source in task.inputs.items():
            # A mapped constant is cut into artifacts; any other travels in the award.
            if name not in task.each and len(source.value) > INLINE_SIZE_MAX:
                raise GraphError(
                    f"sub-task {task.id!r}, input {name!r} is a constant of"
                    f" {len(source.value)} bytes, {INLINE_SIZE_MAX} are allowed",
                    hint="give it as a job input",
                )
        for check in task.checks:
            _check_value(f"sub-task {task.id!r}, check {check.kind}", check)


def _check_value(where: str, check: Check) -> None:
    if not check.value:
        return
    hint = 'such as value = [{ call = "f", args = [1], gives = 2 }]'
    try:
        value = parse(check.value)
        is_canonical = canonical(value) == check.value
        if check.kind == "program":
            read_cases(value)
    except InputInvalid as exc:
        raise GraphError(f"{where}: {exc}", hint=hint) from exc
    if not is_canonical:
        raise GraphError(f"{where}: its value is not in its canonical form")


def check_inputs(
    graph: TaskGraph, inputs: Mapping[str, JsonValue]
) -> dict[str, dict[str, int]]:
    """Return the lengths of the lists that ``graph`` maps over, by input and pointer.

    Raises:
        GraphError: The graph draws from an input that isn't given, or names a place or
            list that isn't in it.
    """
    lengths: dict[str, dict[str, int]] = {name: {} for name in inputs}
    for task in graph.subtasks:
        for field, source in task.inputs.items():
            where = f"sub-task {task.id!r}, input {field!r}"
            length = _drawn(where, source, inputs, mapped=field in task.each)
            if length is not None:
                lengths[source.name][source.pointer] = length
    for name, source in graph.outputs.items():
        _drawn(f"output {name!r}", source, inputs, mapped=False)
    return lengths


def _drawn(
    where: str, source: Source, inputs: Mapping[str, JsonValue], *, mapped: bool
) -> int | None:
    """Refuse what can't be drawn from the job's inputs; return a mapped list's length."""
    if source.kind != "input":
        return None
    if source.name not in inputs:
        raise GraphError(
            f"{where} draws from the job input {source.name!r}, which is not given",
            hint=f"given are: {', '.join(sorted(inputs)) or 'none'}",
        )
    try:
        if mapped:
            return len(resolve_list(inputs[source.name], source.pointer))
        pick(inputs[source.name], source.pointer)
    except InputInvalid as exc:
        raise GraphError(f"{where}: {exc}") from exc
    return None


def check_types(graph: TaskGraph, offered: Offered, inputs: Mapping[str, JsonValue]) -> None:
    """Refuse a graph if no provider's schemas could make it work.

    For each sub-task at least one provider must fit; the message is about the first
    provider's trouble.

    Raises:
        GraphError: Names sub-task, field, and what doesn't fit.
    """
    for task in graph.subtasks:
        consumers = offered.get(task.id, ())
        reasons = [_consumer_trouble(graph, task, c, offered, inputs) for c in consumers]
        if reasons and all(reasons):
            raise GraphError(
                f"sub-task {task.id!r} ({task.capability}): {reasons[0]}",
                hint=f"it takes {_takes(_schema(consumers[0].input_schema))}",
            )
    for name, source in sorted(graph.outputs.items()):
        if source.kind == "task":
            _check_output(graph, name, source, offered)


def replacement_trouble(
    graph: TaskGraph, task: SubTask, capability: Capability, offered: Offered
) -> str:
    """Return why ``capability`` can't do ``task`` in ``graph``, or an empty string.

    Constants and edges are held against the schemas on both sides, and the job's outputs
    too.  Of a job input only its field is looked at: its value is checked when it is there.

    Args:
        graph: The plan.
        task: One of its sub-tasks.
        capability: As a node declares it.
        offered: Of the other sub-tasks; what isn't known is taken to fit.
    """
    if reason := _consumer_trouble(graph, task, capability, offered, None):
        return reason
    made = {task.id: [capability]}
    for other in graph.subtasks:
        reasons = [_fed_trouble(graph, task, other, c, made) for c in offered.get(other.id, ())]
        if other.id != task.id and reasons and all(reasons):
            return reasons[0]
    for name, source in sorted(graph.outputs.items()):
        if source.kind == "task" and source.name == task.id:
            try:
                _check_output(graph, name, source, made)
            except GraphError as exc:
                return str(exc)
    return ""


def _fed_trouble(
    graph: TaskGraph, producer: SubTask, task: SubTask, capability: Capability, made: Offered
) -> str:
    """Return why ``task`` can't take what ``producer`` makes, if ``capability`` does it."""
    schema = _schema(capability.input_schema)
    properties: Mapping[str, Any] = schema.get("properties", {})
    for field, source in sorted(task.inputs.items()):
        if source.kind == "task" and source.name == producer.id:
            wanted = with_definitions(properties.get(field, _ANY), schema)
            if trouble := _edge_trouble(graph, task, field, wanted, made):
                return f"sub-task {task.id!r}, input {field!r}: {trouble}"
    return ""


def _check_output(graph: TaskGraph, name: str, source: Source, offered: Offered) -> None:
    """Refuse an output of the job that no provider's output could hold."""
    producer = next(other for other in graph.subtasks if other.id == source.name)
    known = offered.get(producer.id, ())
    gives = [at_pointer(_schema(c.output_schema), source.pointer) for c in known]
    if known and all(place is None for place in gives):
        raise GraphError(
            f"output {name!r} draws {source.pointer!r} from sub-task {producer.id!r}, and"
            f" {producer.capability} gives no such place"
        )


def _consumer_trouble(
    graph: TaskGraph,
    task: SubTask,
    capability: Capability,
    offered: Offered,
    inputs: Mapping[str, JsonValue] | None,
) -> str:
    schema = _schema(capability.input_schema)
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in task.inputs:
            return f"input {name!r} is required and the graph doesn't give it"
    for field in sorted(task.inputs):
        if field not in properties:
            if is_closed(schema):
                known = ", ".join(sorted(properties))
                return f"there is no input {field!r}; it takes: {known}"
            continue
        wanted = with_definitions(properties[field], schema)
        trouble = _source_trouble(graph, task, field, wanted, offered, inputs)
        if trouble:
            return f"input {field!r}: {trouble}"
    return ""


def _source_trouble(
    graph: TaskGraph,
    task: SubTask,
    field: str,
    wanted: Mapping[str, Any],
    offered: Offered,
    inputs: Mapping[str, JsonValue] | None,
) -> str:
    source = task.inputs[field]
    if source.kind == "task":
        return _edge_trouble(graph, task, field, wanted, offered)
    if source.kind == "input" and inputs is None:
        return ""
    value = parse(source.value) if source.kind == "value" else (inputs or {}).get(source.name)
    try:
        if field in task.each:
            values = resolve_list(value, source.pointer)
        else:
            values = [pick(value, source.pointer)]
    except InputInvalid as exc:
        return str(exc)
    schema = canonical(dict(wanted))
    if not is_usable(schema):
        return ""  # it refers to a place outside itself: checked when the whole input exists
    for item in values:
        if reason := mismatch(schema, item):
            return reason
    return ""


def _edge_trouble(
    graph: TaskGraph, task: SubTask, field: str, wanted: Mapping[str, Any], offered: Offered
) -> str:
    source = task.inputs[field]
    producer = next(other for other in graph.subtasks if other.id == source.name)
    reasons = []
    for capability in offered.get(producer.id, ()):
        gives = at_pointer(_schema(capability.output_schema), source.pointer)
        if gives is None:
            reasons.append(f"{producer.capability} gives no {source.pointer or 'output'}")
            continue
        reasons.append(_through_maps(gives, wanted, made=producer, used=task, field=field))
    return reasons[0] if reasons and all(reasons) else ""


def _through_maps(
    gives: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    made: SubTask,
    used: SubTask,
    field: str,
) -> str:
    """Compare across the edge: a map gives lists, and a mapped field takes their items."""
    is_list = bool(made.each) or "*" in used.inputs[field].pointer.split("/")
    if field not in used.each:
        return misfit({"type": "array", "items": dict(gives)} if is_list else gives, wanted)
    if is_list:
        return misfit(gives, wanted)
    trouble = misfit(gives, {"type": "array"})
    items = gives.get("items", _ANY)
    if not isinstance(items, Mapping) or "prefixItems" in gives:
        items = _ANY
    return trouble or misfit(items, wanted)


def _takes(schema: Mapping[str, Any]) -> str:
    """Say what an input schema asks for, for a person."""
    required = schema.get("required", ())
    told = []
    for name, field in schema.get("properties", {}).items():
        kind = field.get("type") if isinstance(field, Mapping) else None
        kinds = " or ".join(kind) if isinstance(kind, list) else kind or "any"
        told.append(f"{name[:_NAME_SHOWN]} ({kinds}{'' if name in required else ', optional'})")
    return ", ".join(told[:_FIELDS_SHOWN]) or "anything"


def _schema(schema: bytes) -> Mapping[str, Any]:
    value = parse(schema)
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else _ANY


def check_capability(capability: Capability) -> None:
    """Refuse a record's capability whose schemas can't be used.

    Raises:
        InputInvalid: Says which.
    """
    for name, schema in (
        ("input", capability.input_schema),
        ("output", capability.output_schema),
    ):
        check_schema(schema, where=f"{capability.name}, {name} schema")
