"""Schemas: hostile ones are refused at once, and fitting ones are never refused."""

import itertools
from typing import Any

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from meshnode.domain.schemas import (
    at_pointer,
    check_schema,
    is_usable,
    misfit,
    mismatch,
    with_definitions,
)
from meshnode.domain.values import canonical, pick
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from tests.meshnode.domain.purity import outside_calls

Schema = dict[str, Any]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|a)*$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_a_hostile_pattern_takes_no_time(pattern: str) -> None:
    schema = canonical({"type": "string", "pattern": pattern})
    assert mismatch(schema, "a" * 50_000 + "!")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://example.com/schema.json"},
        {"$ref": "https://example.com/schema.json#/$defs/a"},
        {"$ref": "file:///etc/passwd"},
        {"$dynamicRef": "http://example.com/schema.json"},
        {"properties": {"a": {"items": {"$ref": "//example.com/x"}}}},
        {"$ref": "#/$defs/nowhere"},
        {"type": "sting"},
        {"required": "a"},
        {"pattern": "(a)\\1"},
        {"pattern": "(a{1000}){1000}"},
        {"pattern": "("},
        {"minLength": -1},
        7,
        "text",
        None,
    ],
    ids=str,
)
def test_a_schema_that_refers_elsewhere_or_is_none_is_refused(schema: JsonValue) -> None:
    with pytest.raises(InputInvalid, match="offer 3: not a usable JSON Schema"):
        check_schema(canonical(schema), where="offer 3")
    assert not is_usable(canonical(schema))


def test_a_remote_reference_is_refused_without_a_look() -> None:
    schema = canonical({"$ref": "http://127.0.0.1:9/x"})
    assert [c for c in outside_calls(lambda: is_usable(schema)) if "socket" in c] == []


def test_a_schema_that_refers_to_itself_works() -> None:
    tree = canonical(
        {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    )
    assert mismatch(tree, [[], [[[]]]]) == ""
    assert mismatch(tree, [[], [[3]]])


def test_bytes_that_are_no_json_are_no_schema() -> None:
    with pytest.raises(InputInvalid):
        check_schema(b"{", where="x")


def test_a_mismatch_names_the_place_and_is_short() -> None:
    schema = canonical({"properties": {"a": {"items": {"type": "integer"}}}})
    assert mismatch(schema, {"a": [1, 2]}) == ""
    assert mismatch(schema, {"a": [1, "x"]}).startswith("at /a/1: ")
    assert len(mismatch(schema, {"a": ["x" * 10_000]})) < 400


# --- do two types fit? ---

ATOMS: list[JsonValue] = [None, True, False, 0, 1, 2, 1.5, -3, "", "a", "b", "xyz"]
NAMES = ["a", "b", "x1"]

atoms = st.sampled_from(ATOMS)
leaves = st.one_of(
    st.just({}),
    st.sampled_from(["null", "boolean", "integer", "number", "string"]).map(
        lambda kind: {"type": kind}
    ),
    st.lists(
        st.sampled_from(["null", "boolean", "integer", "number", "string"]),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(lambda kinds: {"type": kinds}),
    atoms.map(lambda value: {"const": value}),
    st.lists(atoms, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    st.integers(0, 3).map(lambda n: {"type": "string", "minLength": n}),
    st.integers(-2, 2).map(lambda n: {"type": "number", "minimum": n}),
    st.just({"not": {"type": "string"}}),
)


def composed(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    optional = {
        "required": st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
        "additionalProperties": st.booleans() | inner,
        "patternProperties": st.dictionaries(
            st.sampled_from(["^x", "^a$", "."]), inner, max_size=1
        ),
    }
    objects = st.fixed_dictionaries(
        {
            "properties": st.dictionaries(
                st.sampled_from(NAMES), inner | st.just(True), max_size=3
            )
        },
        optional=optional,
    )
    arrays = st.fixed_dictionaries(
        {"items": inner},
        optional={"prefixItems": st.lists(inner, min_size=1, max_size=2)},
    )
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        objects,
        objects.map(lambda s: {**s, "type": "object"}),
        arrays,
        arrays.map(lambda s: {**s, "type": "array"}),
        several.map(lambda s: {"anyOf": s}),
        several.map(lambda s: {"oneOf": s}),
        several.map(lambda s: {"allOf": s}),
        inner.map(lambda s: {"$defs": {"d": s}, "$ref": "#/$defs/d"}),
    )


schemas: st.SearchStrategy[Schema] = st.recursive(leaves, composed, max_leaves=5)


def worlds() -> list[JsonValue]:
    """Values to try; no list in them is empty, for an empty one fits any list type."""
    lists: list[JsonValue] = [*([atom] for atom in ATOMS), ["a", 1], [["a"]], [[1]]]
    rows: list[list[JsonValue]] = [
        [None, "a"], [True, 1], [2, "b"], ["xyz", 1.5], [["a"], {"a": 1}], [0, ""],
    ]  # fmt: skip
    pairs = [*itertools.combinations(NAMES, 1), *itertools.combinations(NAMES, 2)]
    objects: list[JsonValue] = [{}, [{"a": 1}], [{"a": "a"}], [{}]]
    objects += [dict(zip(names, some, strict=False)) for names in pairs for some in rows]
    return [*ATOMS, *lists, *objects]


WORLD = worlds()


def valid(schema: Schema) -> list[JsonValue]:
    data = canonical(schema)
    return [value for value in WORLD if not mismatch(data, value)]


@settings(max_examples=400)
@given(schemas, schemas)
def test_what_could_fit_is_never_refused(producer: Schema, consumer: Schema) -> None:
    """A false refusal would stop a job that could run."""
    assume(is_usable(canonical(producer)) and is_usable(canonical(consumer)))
    reason = misfit(producer, consumer)
    if reason:
        note(reason)
        takes = canonical(consumer)
        assert [v for v in valid(producer) if not mismatch(takes, v)] == []


@settings(max_examples=300)
@given(
    schemas, st.sampled_from(["/a", "/b", "/x1", "/0", "/a/b", "/a/*", "/*", "/*/a", "/a/0"])
)
def test_a_place_that_a_value_has_is_never_called_impossible(
    schema: Schema, pointer: str
) -> None:
    assume(is_usable(canonical(schema)))
    part = at_pointer(schema, pointer)
    for value in valid(schema):
        try:
            places = pick(value, pointer)
        except InputInvalid:
            continue
        note(f"{value} has {places}")
        assert part is not None
        if part and "*" not in pointer and is_usable(canonical(dict(part))):
            assert misfit(part, {"const": places}) == ""


@pytest.mark.parametrize(
    ("producer", "consumer", "says"),
    [
        ({"type": "string"}, {"type": "number"}, "string does not fit number"),
        ({"type": "string"}, {"type": ["number", "null"]}, "string does not fit"),
        (
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "items": {"type": "object"}},
            "in its items, string does not fit object",
        ),
        (
            {"type": "object", "properties": {}, "additionalProperties": False},
            {"type": "object", "required": ["a"]},
            "'a' is required and not given",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": "object", "properties": {"a": {"type": "integer"}}},
            "in 'a', string does not fit",
        ),
        (
            {"type": "object", "required": ["z"]},
            {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
            "'z' is given and not allowed",
        ),
        ({"enum": ["a", "b"]}, {"const": "c"}, "is among"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, {"type": "object"}, "does not fit"),
        ({"type": "string"}, {"oneOf": [{"type": "null"}, {"type": "array"}]}, "does not fit"),
    ],
)
def test_what_can_never_fit_is_refused_and_says_why(
    producer: Schema, consumer: Schema, says: str
) -> None:
    assert says in misfit(producer, consumer)


CLOSED: Schema = {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("producer", "consumer", "value"),
    [
        ({**CLOSED, "patternProperties": {"^a": {}}}, {"required": ["a"]}, {"a": 1}),
        (
            {"type": "object", "required": ["a"]},
            {**CLOSED, "patternProperties": {"^a": {}}},
            {"a": 1},
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}},
            {"type": "array", "items": {"type": "string"}},
            ["a"],
        ),
        (
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}},
            ["a"],
        ),
        ({"properties": {"a": True}, "required": ["a"]}, {"properties": {"a": {}}}, {"a": 1}),
        ({"const": 1}, {"enum": [1.0]}, 1),
        ({"type": "object"}, {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}}, {}),
        ({"type": ["string", "null"]}, {"type": ["null", "number"]}, None),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, {"type": "string"}, "a"),
        (
            {"properties": {"a": {"type": "string"}}},
            {"properties": {"a": {"type": "null"}}},
            {},
        ),
    ],
    ids=str,
)
def test_clever_schemas_that_could_fit_are_not_refused(
    producer: Schema, consumer: Schema, value: JsonValue
) -> None:
    assert mismatch(canonical(producer), value) == ""
    assert mismatch(canonical(consumer), value) == ""
    assert misfit(producer, consumer) == ""


def test_integers_and_numbers_fit_both_ways() -> None:
    assert misfit({"type": "integer"}, {"type": "number"}) == ""
    assert misfit({"type": "number"}, {"type": "integer"}) == ""


def test_a_place_that_cannot_exist_is_told() -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "additionalProperties": False,
    }
    assert at_pointer(closed, "/a") == {"type": "string"}
    assert at_pointer(closed, "/b") is None
    assert at_pointer(closed, "/a/b") is None
    rows = {"type": "array", "items": closed}
    assert at_pointer(rows, "/*/a") == at_pointer(rows, "/3/a") == {"type": "string"}
    assert at_pointer(rows, "/a") is None
    assert at_pointer({}, "/a/b") == {}


def test_definitions_go_along_with_a_part() -> None:
    whole = {"$defs": {"t": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/t"}}}
    part = with_definitions(whole["properties"]["a"], whole)
    assert mismatch(canonical(dict(part)), 3)
    assert with_definitions(True, whole) == {}
