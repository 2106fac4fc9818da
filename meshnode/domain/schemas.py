"""JSON Schemas of agents: checked against values, and against each other.

Peers' schemas are hostile input: only ``jsonschema-rs`` is used (others fetch remote
references or hang on a regular expression), references to elsewhere are refused,
and its regular expressions run in linear time.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import jsonschema_rs

from meshnode.domain.values import canonical, parse
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue

_ERROR_SIZE_MAX: Final = 300
_DEPTH_MAX: Final = 12


def _no_retrieval(uri: str) -> JsonValue:
    raise ValueError(f"a schema may not refer to {uri[:100]}")


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:  # noqa: ANN401 - the library's validator has no type
    value = parse(schema)
    canonical(value)  # it is shown to people and programs, who may have no way to write it
    return jsonschema_rs.Draft202012Validator(
        cast("dict[str, Any]", value),
        retriever=_no_retrieval,
        pattern_options=jsonschema_rs.RegexOptions(),
    )


def check_schema(schema: bytes, *, where: str) -> None:
    """Refuse what is not a usable JSON Schema.

    Raises:
        InputInvalid: Says where and why.
    """
    try:
        _validator(schema)
    except (ValueError, InputInvalid, jsonschema_rs.ReferencingError) as exc:
        raise InputInvalid(f"{where}: not a usable JSON Schema: {_short(exc)}") from exc


def is_usable(schema: bytes) -> bool:
    """Tell whether values can be held against ``schema``."""
    try:
        check_schema(schema, where="schema")
    except InputInvalid:
        return False
    return True


def mismatch(schema: bytes, value: JsonValue) -> str:
    """Return why ``value`` doesn't satisfy ``schema``, or an empty string.

    Raises:
        InputInvalid: ``schema`` is not usable.
    """
    check_schema(schema, where="schema")
    error = next(_validator(schema).iter_errors(value), None)
    if error is None:
        return ""
    path = "/".join(str(part) for part in error.instance_path)
    return f"at /{path}: {_short(error.message)}"


def _short(error: object) -> str:
    text = str(error).split("\n", 1)[0]
    return text if len(text) <= _ERROR_SIZE_MAX else text[:_ERROR_SIZE_MAX] + "…"


# --- do two types fit? -------------------------------------------------------------

Schema = Mapping[str, Any]


def at_pointer(schema: Schema, pointer: str) -> Schema | None:
    """Return the part of ``schema`` that describes ``pointer``; None when it can't exist.

    An empty mapping means "anything": the schema doesn't say.
    """
    here: Schema = schema
    for segment in pointer.split("/")[1:]:
        key = segment.replace("~1", "/").replace("~0", "~")
        if set(here) & {"$ref", "anyOf", "oneOf", "allOf", "if"}:
            return {}
        properties = here.get("properties", {})
        types = _types(here)
        is_place = key.isdecimal() or key == "*"
        if key in properties:
            here = _as_schema(properties[key])
        elif types == {"array"} and is_place and "prefixItems" not in here:
            here = _as_schema(here.get("items", {}))
        elif (is_closed(here) or "object" not in types) and not (is_place and "array" in types):
            return None
        else:
            return {}
    return here


def misfit(  # noqa: C901 - one rule of fitting after the other
    producer: Schema, consumer: Schema, *, depth: int = 0
) -> str:
    """Return why no value of ``producer`` could satisfy ``consumer``, or an empty string.

    Only what can't ever fit is named: where a schema is silent or too clever for this
    walk, the values themselves are checked when they exist.  The one exception: lists
    of different things do not fit, although an empty list would.
    """
    if depth > _DEPTH_MAX or not producer or not consumer:
        return ""
    if {"$ref", "allOf", "not", "if"} & (set(producer) | set(consumer)):
        return ""
    for keyword in ("anyOf", "oneOf"):
        if keyword in producer:
            reasons = [
                misfit(_as_schema(s), consumer, depth=depth + 1) for s in producer[keyword]
            ]
            return reasons[0] if reasons and all(reasons) else ""
        if keyword in consumer:
            reasons = [
                misfit(producer, _as_schema(s), depth=depth + 1) for s in consumer[keyword]
            ]
            return reasons[0] if reasons and all(reasons) else ""
    gives, takes = _types(producer), _types(consumer)
    if "integer" in gives and "number" in takes:
        takes = takes | {"integer"}
    if "number" in gives and "integer" in takes:
        takes = takes | {"number"}  # some numbers are integers: the value decides
    common = gives & takes
    if not common:
        return f"{_words(gives)} does not fit {_words(takes)}"
    if common == {"array"} and "prefixItems" not in {*producer, *consumer}:
        inner = misfit(
            _as_schema(producer.get("items", {})),
            _as_schema(consumer.get("items", {})),
            depth=depth + 1,
        )
        return f"in its items, {inner}" if inner else ""
    if common == {"object"}:
        return _object_misfit(producer, consumer, depth)
    return _enum_misfit(producer, consumer)


def _object_misfit(producer: Schema, consumer: Schema, depth: int) -> str:
    has: Mapping[str, Any] = producer.get("properties", {})
    closed = is_closed(producer)
    for name in consumer.get("required", ()):
        if name not in has and closed:
            return f"{name!r} is required and not given"
    wants: Mapping[str, Any] = consumer.get("properties", {})
    for name in sorted(set(has) & set(wants)):
        if name in producer.get("required", ()):
            inner = misfit(_as_schema(has[name]), _as_schema(wants[name]), depth=depth + 1)
            if inner:
                return f"in {name!r}, {inner}"
    if is_closed(consumer):
        for name in producer.get("required", ()):
            if name not in wants:
                return f"{name!r} is given and not allowed"
    return ""


def with_definitions(part: object, whole: Schema) -> Schema:
    """Return ``part`` of ``whole`` with the definitions that it may refer to."""
    shared = {name: whole[name] for name in ("$defs", "definitions") if name in whole}
    schema = _as_schema(part)
    return {**shared, **schema} if schema else schema


def is_closed(schema: Schema) -> bool:
    """Tell whether an object may have no property that ``properties`` doesn't name."""
    return (
        schema.get("additionalProperties", True) is False and "patternProperties" not in schema
    )


def _enum_misfit(producer: Schema, consumer: Schema) -> str:
    gives = _values(producer)
    takes = _values(consumer)
    if gives is not None and takes is not None and not [v for v in gives if v in takes]:
        return f"none of {gives!r:.80} is among {takes!r:.80}"
    return ""


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return list(values) if isinstance(values, list) else None


_ALL: Final = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})


def _types(schema: Schema) -> frozenset[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, list):
        return frozenset(item for item in kind if isinstance(item, str))
    return _ALL


def _words(types: frozenset[str]) -> str:
    return " or ".join(sorted(types))


def _as_schema(schema: object) -> Schema:
    return schema if isinstance(schema, Mapping) else {}
