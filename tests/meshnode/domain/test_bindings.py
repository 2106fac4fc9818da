"""Bindings: what a contractor puts together is what the graph says, however it was cut."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.bindings import (
    INLINED_BYTES_MAX,
    PART_INLINED_BYTES_MAX,
    Holder,
    artifacts,
    assemble,
    bind,
    is_inlined,
    put_inline,
    slice_input,
)
from meshnode.domain.facts import (
    ArtifactRef,
    Awarded,
    Charged,
    Delivered,
    Expanded,
    Fact,
    InputRef,
    Planned,
    Verified,
)
from meshnode.domain.graphs import check_inputs
from meshnode.domain.units import SINGLE, Unit, charge_key
from meshnode.domain.values import canonical, parse, resolve_list
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import Source, TaskGraph, encode_graph, order
from protocol.keys import digest
from protocol.messages import Binding, Part
from tests.meshnode.domain.random_graphs import (
    evaluate,
    random_graph,
    random_inputs,
    work,
)
from tests.meshnode.domain.test_fold import state_after


class Bench:
    """Runs a graph in random batches, straight through bind and assemble."""

    def __init__(self, graph: TaskGraph, inputs: dict[str, JsonValue], rng: Random) -> None:
        self.rng = rng
        self.blobs: dict[bytes, bytes] = {}
        lengths = check_inputs(graph, inputs)
        self.inputs = inputs
        refs = {}
        for name, value in inputs.items():
            ref = self.put(value)
            refs[name] = InputRef(artifact=ref.artifact, size=ref.size, lengths=lengths[name])
        self.facts: list[Fact] = [
            Planned(
                owner="me",
                graph=encode_graph(graph),
                inputs=refs,
                budget_mc=0,
                deadline_ms=10**15,
                idempotency_key="",
                epoch=0,
            )
        ]
        self.graph = graph

    def put(self, value: JsonValue) -> ArtifactRef:
        data = canonical(value)
        self.blobs[digest(data)] = data
        return ArtifactRef(artifact=digest(data), size=len(data))

    def run(self) -> dict[str, list[JsonValue] | JsonValue]:
        """Return what each sub-task made."""
        made: dict[str, list[JsonValue] | JsonValue] = {}
        for name in order(self.graph):
            made[name] = self._subtask(name)
        return made

    def _subtask(self, name: str) -> JsonValue:
        task = next(t for t in self.graph.subtasks if t.id == name)
        sizes = self._sizes(name)
        slices: dict[str, list[ArtifactRef]] = {}
        for field, source in task.inputs.items():
            mapped = field in task.each
            if source.kind == "input":
                whole = self.inputs[source.name]
            elif source.kind == "value" and mapped and self.rng.random() < 0.5:
                whole = parse(source.value)
            else:
                continue
            pieces = slice_input(whole, source, tuple(sizes), mapped=mapped)
            slices[field] = [self.put(piece) for piece in pieces]
        self.facts.append(Expanded(subtask=name, sizes=sizes, slices=slices))
        outputs: list[JsonValue] = []
        for unit in [u for u in state_after(*self.facts).units.values() if u.subtask == name]:
            outputs += self._unit(unit)
        return outputs if task.each else outputs[0]

    def _sizes(self, name: str) -> list[int]:
        """Cut a map into batches of any sizes."""
        task = next(t for t in self.graph.subtasks if t.id == name)
        if not task.each:
            return [SINGLE]
        part = TaskGraph(
            name="", subtasks=self.graph.subtasks, outputs={"o": task.inputs[task.each[0]]}
        )
        left = len(resolve_list(evaluate(part, self.inputs)["o"], ""))
        sizes: list[int] = []
        while left:
            sizes.append(self.rng.randint(1, left))
            left -= sizes[-1]
        return sizes

    def _unit(self, unit: Unit) -> list[JsonValue]:
        state = state_after(*self.facts)
        task = state.tasks[unit.subtask]
        bindings = bind(state, unit, Holder("me", only=self.rng.random() < 0.5))
        at_hand = {name for name in self.blobs if self.rng.random() < 0.5}
        small = put_inline(
            bindings, lambda name: self.blobs[name] if name in at_hand else None, reader="p"
        )
        assert not at_hand & set(artifacts(small)) - {
            name for name, part in artifacts(small).items() if part.holder == "p"
        }
        assert all(is_inlined(small[name], bindings[name]) for name in bindings)
        over_the_wire = msgspec.convert(msgspec.to_builtins(small), dict[str, Binding])
        held = {name: self.blobs[name] for name in artifacts(over_the_wire)}
        given = assemble(over_the_wire, task.each, unit.calls, held)
        outputs: list[JsonValue] = [work(value) for value in given]
        ref = self.put(outputs if task.each else outputs[0])
        self.facts += [
            Awarded(
                unit=unit.name, attempt=0, peer="p", agent="a", award=b"a", proposal=b"p",
                schema=b"",
                price_cap_mc=0, lease_ms=1, ranked=[],
            ),
            Delivered(
                unit=unit.name, attempt=0, result=b"r", receipt=b"r", output=ref.artifact,
                size=ref.size, lengths={}, price_mc=0, run_ms=0,
            ),
            Verified(unit=unit.name, attempt=0, verdict="unverified", check=""),
            Charged(
                key=charge_key("j", unit.name, 0), unit=unit.name, attempt=0, paid_mc=0,
                acceptance=b"a",
            ),
        ]  # fmt: skip
        return outputs


def parts_of(size: int, count: int = 1) -> dict[str, Binding]:
    """Bindings to artifacts that all hold the same letters."""
    data = b"x" * size
    part = Part(artifact=digest(data), size=size, holder="maker", pointer="/a", mapped=True)
    return {"field": Binding(parts=[part] * count, gather=True)}


@pytest.mark.parametrize(
    ("size", "reader", "at_hand", "inlined"),
    [
        (PART_INLINED_BYTES_MAX, "reader", True, True),
        (PART_INLINED_BYTES_MAX + 1, "reader", True, False),
        (10, "reader", False, False),
        (10, "maker", True, False),  # it has it
    ],
)
def test_a_small_artifact_that_is_at_hand_needs_no_fetching(
    size: int, reader: str, at_hand: bool, inlined: bool
) -> None:
    bindings = parts_of(size)
    data = b"x" * size
    small = put_inline(bindings, lambda _: data if at_hand else None, reader=reader)
    part = small["field"].parts[0]
    assert (part.inline == data) is inlined
    assert (part.pointer, part.mapped) == ("/a", True)
    assert bool(artifacts(small)) is not inlined


def test_all_that_travels_in_an_award_is_bounded() -> None:
    bindings = parts_of(PART_INLINED_BYTES_MAX, count=20)
    small = put_inline(bindings, lambda _: b"x" * PART_INLINED_BYTES_MAX, reader="reader")
    total = sum(len(part.inline) for part in small["field"].parts)
    assert total == INLINED_BYTES_MAX
    assert is_inlined(small["field"], bindings["field"])


@pytest.mark.parametrize(
    "changes",
    [
        {"inline": b"y" * 10},
        {"pointer": "/b"},
        {"start": 1},
        {"count": 2},
        {"mapped": False},
        {"holder": "other"},
        {"size": 10},
    ],
    ids=str,
)
def test_an_input_that_is_inline_is_the_artifact_byte_for_byte(changes: dict[str, Any]) -> None:
    of = parts_of(10)["field"]
    small = put_inline({"field": of}, lambda _: b"x" * 10, reader="r")["field"]
    assert is_inlined(small, of)
    other = msgspec.structs.replace(small.parts[0], **changes)
    assert not is_inlined(msgspec.structs.replace(small, parts=[other]), of)
    assert not is_inlined(msgspec.structs.replace(small, parts=[*small.parts] * 2), of)
    assert not is_inlined(msgspec.structs.replace(small, gather=False), of)


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_batches_put_together_are_what_the_graph_says(seed: int) -> None:
    note(f"seed {seed}")
    rng = Random(seed)
    graph, inputs = random_graph(rng), random_inputs(rng)
    made = Bench(graph, inputs, rng).run()
    for task in graph.subtasks:
        alone = TaskGraph(
            name="",
            subtasks=graph.subtasks,
            outputs={"o": Source(kind="task", name=task.id)},
        )
        assert made[task.id] == evaluate(alone, inputs)["o"]


def held(*values: JsonValue) -> dict[bytes, bytes]:
    return {digest(canonical(value)): canonical(value) for value in values}


def part_of(value: JsonValue, **fields: object) -> Part:
    data = canonical(value)
    return Part(artifact=digest(data), size=len(data), holder="p", **fields)  # type: ignore[arg-type]  # its fields


def test_a_missing_artifact_names_the_field() -> None:
    bindings = {"text": Binding(parts=[part_of("x")])}
    with pytest.raises(InputInvalid, match=r"input 'text'.*is not here"):
        assemble(bindings, [], 1, {})


def test_an_artifact_is_read_once_however_often_it_is_named() -> None:
    words: JsonValue = [["some", "words"]]
    window = part_of(words, start=0, count=1, mapped=True)
    bindings = {
        "whole": Binding(parts=[part_of(words)]),
        "pieces": Binding(parts=[window] * 3, gather=True),
    }
    (given,) = assemble(bindings, [], 1, held(words))
    assert given == {"whole": words, "pieces": [["some", "words"]] * 3}
    assert isinstance(given["whole"], list)
    assert isinstance(given["pieces"], list)
    assert all(piece is given["whole"][0] for piece in given["pieces"])


def test_a_list_of_another_length_than_awarded_is_refused() -> None:
    bindings = {"text": Binding(parts=[part_of([1, 2])])}
    with pytest.raises(InputInvalid, match="'text' should be a list of 3 items, found 2"):
        assemble(bindings, ["text"], 3, held([1, 2]))
    with pytest.raises(InputInvalid, match="found str"):
        assemble({"text": Binding(parts=[part_of("x")])}, ["text"], 1, held("x"))


def test_a_window_beyond_a_map_or_into_no_list_is_refused() -> None:
    beyond = part_of([1, 2], start=1, count=2, mapped=True)
    with pytest.raises(InputInvalid, match="items 1 to 3 of 2"):
        assemble({"x": Binding(parts=[beyond], gather=True)}, [], 1, held([1, 2]))
    for mapped in (True, False):
        none = part_of({"a": 1}, start=0, count=1, mapped=mapped)
        with pytest.raises(InputInvalid, match="list"):
            assemble({"x": Binding(parts=[none], gather=True)}, [], 1, held({"a": 1}))


def test_a_slice_that_doesnt_add_up_is_refused() -> None:
    source = Source(kind="input", name="x", pointer="")
    with pytest.raises(InputInvalid, match="3 items for batches of 2"):
        slice_input([1, 2, 3], source, (1, 1), mapped=True)
    assert slice_input([1, 2, 3], source, (1, 2), mapped=True) == [[1], [2, 3]]
    assert slice_input([1, 2, 3], source, (1, 2), mapped=False) == [[1, 2, 3]] * 2
