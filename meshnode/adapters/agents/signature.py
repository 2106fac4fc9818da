"""A function's parameters as one JSON object, and its result as JSON.

Schema and conversion both come from msgspec, over one struct made from the type
hints, so what the schema promises is what the function is given.  References are
written out where no type contains itself: a peer that compares two schemas then
needs no resolver.
"""

import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, TypeVar, Union, cast

import msgspec

from meshnode.errors import AgentError, ConfigError
from meshnode.ports import AgentCall, Chunk, JsonValue, Output

T = TypeVar("T")

_REF = "#/$defs/"
#: Keywords of a schema that hold values and not schemas.
_VALUES = ("const", "default", "enum", "examples")
_JSON_SCALARS = (str, int, float, bool, type(None))


class Signature(NamedTuple):
    """What a function takes and gives.

    Attributes:
        input_schema: JSON Schema of its parameters as one object.
        output_schema: JSON Schema of its result.
        input_type: The struct that an input is converted to.
        call_parameter: The parameter that is given the :class:`AgentCall`, or empty.
    """

    input_schema: Mapping[str, JsonValue]
    output_schema: Mapping[str, JsonValue]
    input_type: type[msgspec.Struct]
    call_parameter: str

    def bind(self, value: JsonValue, call: AgentCall) -> dict[str, Any]:
        """Return the keyword arguments that ``value`` stands for.

        Raises:
            AgentError: ``value`` is not what the parameters ask for.
        """
        arguments = convert(value, self.input_type)
        present = {
            name: argument
            for name in arguments.__struct_fields__
            if (argument := getattr(arguments, name)) is not msgspec.UNSET
        }
        return present | ({self.call_parameter: call} if self.call_parameter else {})


def convert(value: JsonValue, wanted: type[T]) -> T:
    """Return ``value`` as a ``wanted``.

    Raises:
        AgentError: It isn't one; the message says where.
    """
    try:
        return msgspec.convert(value, wanted)
    except (msgspec.ValidationError, RecursionError) as error:
        raise AgentError(f"input refused: {error}") from error


def to_json(value: object) -> JsonValue:
    """Return ``value`` (dataclass, struct, TypedDict, …) as JSON values.

    Raises:
        AgentError: JSON can't hold it.
    """
    try:
        return cast("JsonValue", msgspec.to_builtins(value, str_keys=True))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise AgentError(f"the result can't be written as JSON: {error}") from error


def read_signature(function: Callable[..., object], returns: object = None) -> Signature:
    """Read the type hints of ``function``.

    Args:
        function: Sync, async, or an async generator.
        returns: Type of the result, where the hints don't say.

    Raises:
        ConfigError: A parameter or the result has no hint, or one that JSON can't hold.
    """
    label = f"{function.__module__}:{function.__qualname__}"
    hints = _hints(function, label)
    fields: list[tuple[str, Any, Any]] = []
    defaults: dict[str, JsonValue] = {}
    call_parameter = ""
    for parameter in inspect.signature(function).parameters.values():
        hint = _parameter_hint(parameter, hints, label)
        if hint is AgentCall:
            call_parameter = parameter.name
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, hint, msgspec.NODEFAULT))
        else:
            fields.append((parameter.name, _union(hint, msgspec.UnsetType), msgspec.UNSET))
            if isinstance(parameter.default, _JSON_SCALARS):
                defaults[parameter.name] = cast("JsonValue", parameter.default)
    input_type = msgspec.defstruct(
        function.__name__, fields, kw_only=True, forbid_unknown_fields=True
    )
    input_schema = schema_of(input_type, f"a parameter of {label}")
    properties = cast("dict[str, dict[str, JsonValue]]", input_schema["properties"])
    for name, default in defaults.items():
        properties[name]["default"] = default
    if returns is None:
        returns = _result_type(hints.get("return", inspect.Parameter.empty), label)
    output_schema = schema_of(returns, f"the result of {label}")
    return Signature(input_schema, output_schema, input_type, call_parameter)


def _hints(function: Callable[..., object], label: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"a type hint of {label} can't be read: {error}",
            hint="import the type where the function is defined, not under TYPE_CHECKING",
        ) from error


def _parameter_hint(parameter: inspect.Parameter, hints: dict[str, Any], label: str) -> object:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise ConfigError(
            f"parameter {parameter} of {label} has no name a caller could use",
            hint="an agent's input is one JSON object: name each parameter",
        )
    if parameter.name not in hints:
        raise ConfigError(
            f"parameter {parameter.name!r} of {label} has no type hint",
            hint=f"write {parameter.name}: str, or another type that JSON can hold",
        )
    return hints[parameter.name]


def _result_type(hint: object, label: str) -> object:
    """Return the type of the result, for a generator the part that isn't progress."""
    if hint is inspect.Parameter.empty:
        raise ConfigError(f"the result of {label} has no type hint", hint="add '-> str' or so")
    if typing.get_origin(hint) not in (AsyncIterator, AsyncGenerator):
        return hint
    yielded = typing.get_args(hint)[0]
    parts = typing.get_args(yielded) if _is_union(yielded) else (yielded,)
    results = [part for part in parts if part not in (str, Chunk, Output)]
    if not results:
        if Output in parts:
            raise ConfigError(
                f"the result of {label} has no type: it yields Output",
                hint="name the type of Output.value: @agent(..., returns=...)",
            )
        return str
    return _union(*results)


def _union(*members: object) -> object:
    """Return the union of types that are known at run time only."""
    return Union.__getitem__(members)


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in (Union, type(int | str))


class _HoldsItselfError(Exception):
    """A type's schema can't be written out: it refers to itself."""


def schema_of(wanted: object, what: str) -> dict[str, JsonValue]:
    """Return the JSON Schema of a type.

    Args:
        wanted: Anything msgspec can convert to.
        what: Its name in an error.

    Raises:
        ConfigError: JSON can't hold it.
    """
    try:
        (schema,), components = msgspec.json.schema_components(
            (wanted,), ref_template=_REF + "{name}"
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{what} has a type that JSON can't hold: {error}",
            hint="use str, int, float, bool, list, dict, Literal, a dataclass or a Struct",
        ) from error
    try:
        return cast("dict[str, JsonValue]", _inline(schema, components, ()))
    except _HoldsItselfError:
        top = components[_name(schema)] if "$ref" in schema else schema
        return {**top, "$defs": cast("JsonValue", components)}


def _inline(node: object, components: Mapping[str, Any], inside: tuple[str, ...]) -> object:
    """Return ``node`` with its references written out, without the names of types."""
    if isinstance(node, dict):
        if "$ref" not in node:
            return {
                key: value
                if key in _VALUES
                else _inline(_terse(key, value), components, inside)
                for key, value in node.items()
                if not (key == "title" and isinstance(value, str))
            }
        name = _name(node)
        if name in inside:
            raise _HoldsItselfError
        return _inline(components[name], components, (*inside, name))
    if isinstance(node, list | tuple):
        return [_inline(item, components, inside) for item in node]
    return node


def _terse(key: str, value: object) -> object:
    """Return a description's first paragraph: schemas travel in records of a few kB."""
    if key == "description" and isinstance(value, str):
        return " ".join(value.split("\n\n")[0].split())
    return value


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).removeprefix(_REF)
