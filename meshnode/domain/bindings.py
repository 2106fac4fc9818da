"""Where a unit's inputs come from, and the inputs themselves once their bytes are there.

The broker turns a sub-task's sources into an award's bindings (:func:`bind`): places
in artifacts, and content only where it is smaller than the ticket and the stream that
fetching it would take (:func:`put_inline`).  The contractor, and the broker when it
checks, turn bindings and bytes into the agent's input (:func:`assemble`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from meshnode.domain.job import JobState
from meshnode.domain.units import SINGLE, Unit
from meshnode.domain.values import parse, pick, resolve_list
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import Source, SubTask
from protocol.keys import digest
from protocol.messages import Binding, Part

#: Of an artifact that travels in an award, and of all of them in one award.
PART_INLINED_BYTES_MAX: Final = 2_048
INLINED_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Holder:
    """Who serves an artifact: its maker, or the broker where the maker could not.

    Attributes:
        broker: PeerId.
        only: The broker's copies serve everything.
    """

    broker: str
    only: bool = False

    def of(self, maker: str) -> str:
        """Return who serves what ``maker`` made."""
        return self.broker if self.only else maker


def bind(state: JobState, unit: Unit, holder: Holder) -> dict[str, Binding]:
    """Return the bindings of ``unit``'s award.

    Args:
        state: With every producer of the sub-task finished.
        unit: Expanded already.
        holder: Who serves what.
    """
    task = state.tasks[unit.subtask]
    return {name: _bind_field(state, task, unit, name, holder) for name in sorted(task.inputs)}


def _bind_field(
    state: JobState, task: SubTask, unit: Unit, name: str, holder: Holder
) -> Binding:
    source = task.inputs[name]
    sliced = state.slices.get(task.id, {}).get(name)
    if sliced is not None:
        ref = sliced[unit.batch]
        part = Part(artifact=ref.artifact, size=ref.size, holder=holder.broker)
        return Binding(parts=[part])
    start, count = _window(state, task, unit) if name in task.each else (0, None)
    if source.kind == "value":
        part = Part(
            inline=source.value,
            pointer=source.pointer,
            start=start,
            count=-1 if count is None else count,
        )
        return Binding(parts=[part], gather=count is not None)
    return _bind_edge(state, source, start, count, holder)


def _bind_edge(
    state: JobState, source: Source, start: int, count: int | None, holder: Holder
) -> Binding:
    """Bind what another sub-task made: all of it, or ``count`` items from ``start`` on."""
    producer = state.tasks[source.name]
    if not producer.each:
        made, delivered = state.outputs(source.name)[0]
        part = Part(
            artifact=delivered.output,
            size=delivered.size,
            holder=holder.of(_maker(made)),
            pointer=source.pointer,
            start=start,
            count=-1 if count is None else count,
        )
        return Binding(parts=[part], gather=count is not None)
    parts = list(_pieces(state, source, start, count, holder))
    return Binding(parts=parts, gather=True)


def _pieces(
    state: JobState, source: Source, start: int, count: int | None, holder: Holder
) -> Iterator[Part]:
    """Cut ``count`` items from ``start`` on out of the batches of a map's output."""
    at = 0
    end = None if count is None else start + count
    for made, delivered in state.outputs(source.name):
        first = max(start, at)
        last = at + made.items if end is None else min(end, at + made.items)
        if first < last:
            yield Part(
                artifact=delivered.output,
                size=delivered.size,
                holder=holder.of(_maker(made)),
                pointer=source.pointer,
                start=first - at,
                count=last - first,
                mapped=True,
            )
        at += made.items


def _window(state: JobState, task: SubTask, unit: Unit) -> tuple[int, int]:
    """Return first item and number of items of ``unit`` within its map."""
    start = sum(state.units[name].items for name in state.expanded[task.id][: unit.batch])
    return start, unit.items


def _maker(unit: Unit) -> str:
    return unit.accepted.peer if unit.accepted is not None else ""


def is_gathered(state: JobState, task: SubTask) -> bool:
    """Tell whether one award takes in every batch of ``task``, each as a part."""
    return any(
        source.kind == "task" and source.name == task.id and name not in other.each
        for other in state.tasks.values()
        for name, source in other.inputs.items()
    )


def list_length(state: JobState, task: SubTask, name: str) -> int | None:
    """Return how many items field ``name`` of ``task`` maps over.

    Args:
        state: With the field's producer finished.
        task: A map.
        name: One of its ``each``.

    Returns:
        None when nobody has told: an output without that list, an input not measured.
    """
    source = task.inputs[name]
    if source.kind == "input":
        ref = state.required_plan.inputs.get(source.name)
        return ref.lengths.get(source.pointer) if ref else None
    if source.kind == "value":
        try:
            return len(resolve_list(parse(source.value), source.pointer))
        except InputInvalid:
            return None
    outputs = state.outputs(source.name)
    if state.tasks[source.name].each:
        return sum(unit.items for unit, _ in outputs)
    return outputs[0][1].lengths.get(source.pointer)


def list_lengths(value: JsonValue, pointers: Sequence[str]) -> dict[str, int]:
    """Return the length of the list at each pointer; what is no list is left out."""
    found: dict[str, int] = {}
    for pointer in pointers:
        try:
            there = pick(value, pointer)
        except InputInvalid:
            continue  # whoever needs it sees that it is missing
        if isinstance(there, list):
            found[pointer] = len(there)
    return found


def gathers_map(state: JobState, source: Source) -> bool:
    """Tell whether ``source`` draws on a map, whose pointer applies to each item."""
    return source.kind == "task" and bool(state.tasks[source.name].each)


def put_inline(
    bindings: Mapping[str, Binding],
    at_hand: Callable[[bytes], bytes | None],
    *,
    reader: str,
) -> dict[str, Binding]:
    """Return ``bindings`` with what is small in place of where it is: nobody has to fetch it.

    Args:
        bindings: Of an award.
        at_hand: Returns an artifact's bytes, or None where they would have to be looked for.
        reader: Who gets them; what it holds itself stays where it is.
    """
    left_bytes = INLINED_BYTES_MAX

    def inline(part: Part) -> Part:
        nonlocal left_bytes
        if not 0 < part.size <= min(PART_INLINED_BYTES_MAX, left_bytes):
            return part
        data = at_hand(part.artifact) if part.holder != reader else None
        if data is None:
            return part
        left_bytes -= part.size
        return replace(part, inline=data, artifact=b"", size=0, holder="")

    return {
        name: replace(binding, parts=[inline(part) for part in binding.parts])
        for name, binding in bindings.items()
    }


def is_inlined(binding: Binding, of: Binding) -> bool:
    """Tell whether ``binding`` is ``of``, but for artifacts whose very bytes it holds."""
    if (binding.gather, len(binding.parts)) != (of.gather, len(of.parts)):
        return False
    for part, where in zip(binding.parts, of.parts, strict=True):
        if part == where:
            continue
        same = replace(where, inline=part.inline, artifact=b"", size=0, holder="")
        if not where.artifact or part != same or digest(part.inline) != where.artifact:
            return False
    return True


def artifacts(bindings: Mapping[str, Binding]) -> dict[bytes, Part]:
    """Return one part for each artifact that ``bindings`` need."""
    return {
        part.artifact: part
        for binding in bindings.values()
        for part in binding.parts
        if part.artifact
    }


def assemble(
    bindings: Mapping[str, Binding], each: list[str], items: int, held: Mapping[bytes, bytes]
) -> list[dict[str, JsonValue]]:
    """Return the inputs of the agent's calls, in order.

    Args:
        bindings: Of the award.
        each: Fields mapped over; empty for a single call.
        items: Calls.
        held: The bytes of every artifact that the bindings need.

    Raises:
        InputInvalid: A part isn't there, or a mapped list has another length than
            ``items``; says which field.
    """
    fields: dict[str, JsonValue] = {}
    read: dict[bytes, JsonValue] = {}
    for name, binding in bindings.items():
        try:
            fields[name] = _value(binding, held, read)
        except InputInvalid as exc:
            raise InputInvalid(f"input {name!r}: {exc}") from exc
    if not each:
        return [fields]
    lists: dict[str, list[JsonValue]] = {}
    for name in each:
        value = fields[name]
        if not isinstance(value, list) or len(value) != items:
            found = len(value) if isinstance(value, list) else type(value).__name__
            raise InputInvalid(
                f"input {name!r} should be a list of {items} items, found {found}"
            )
        lists[name] = value
    constant = {name: value for name, value in fields.items() if name not in lists}
    return [{**constant, **{k: lists[k][n] for k in lists}} for n in range(items)]


def _value(
    binding: Binding, held: Mapping[bytes, bytes], read: dict[bytes, JsonValue]
) -> JsonValue:
    if not binding.gather:
        part = binding.parts[0]
        return pick(_parsed(part, held, read), part.pointer)
    joined: list[JsonValue] = []
    for part in binding.parts:
        joined += _piece(_parsed(part, held, read), part)
    return joined


def _piece(value: JsonValue, part: Part) -> list[JsonValue]:
    """Return the items that a gathered part names.

    A part of a map's output is a list to whose items the pointer applies; a part of
    a single output is a value in which the pointer names the list.
    """
    if part.mapped:
        if not isinstance(value, list):
            raise InputInvalid("a map's output should be a list")
        if part.start + part.count > len(value) or part.start < 0:
            raise InputInvalid(
                f"items {part.start} to {part.start + part.count} of {len(value)}"
            )
        window = value[part.start : part.start + part.count]
        return [pick(item, part.pointer) for item in window]
    return resolve_list(value, part.pointer)[part.start : part.start + part.count]


def _parsed(part: Part, held: Mapping[bytes, bytes], read: dict[bytes, JsonValue]) -> JsonValue:
    """Return the value that ``part`` is in; an artifact is read once, whoever names it."""
    if not part.artifact:
        return parse(part.inline)
    if part.artifact in read:
        return read[part.artifact]
    data = held.get(part.artifact)
    if data is None:
        raise InputInvalid(f"artifact {part.artifact.hex()[:12]} is not here")
    value = read[part.artifact] = parse(data)
    return value


def slice_input(
    value: JsonValue, source: Source, sizes: tuple[int, ...], *, mapped: bool
) -> list[JsonValue]:
    """Return what each batch takes from a job input: a list for a mapped field.

    Raises:
        InputInvalid: The pointer names nothing, or no list of the right length.
    """
    if not mapped:
        return [pick(value, source.pointer)] * len(sizes)
    whole = resolve_list(value, source.pointer)
    if sizes == (SINGLE,) or sum(sizes) != len(whole):
        raise InputInvalid(f"{len(whole)} items for batches of {sum(sizes)}")
    cut: list[JsonValue] = []
    at = 0
    for size in sizes:
        cut.append(whole[at : at + size])
        at += size
    return cut


def bind_output(state: JobState, source: Source, holder: Holder) -> Binding:
    """Return the binding of one of the job's outputs, as if the broker consumed it."""
    if source.kind == "value":
        return Binding(parts=[Part(inline=source.value, pointer=source.pointer)])
    if source.kind == "input":
        ref = state.required_plan.inputs[source.name]
        part = Part(
            artifact=ref.artifact, size=ref.size, holder=holder.broker, pointer=source.pointer
        )
        return Binding(parts=[part])
    return _bind_edge(state, source, 0, None, holder)
