"""What is wrong with a scenario's file: which key, where, and what would be right.

Decoding alone passes over keys that a plain dataclass (weather, a temper) doesn't know, and
names places as a program counts.  Here the file is held against the classes before, key by
key: whoever misspells one is told so and not given the default.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

import msgspec
from msgspec import inspect

#: Part of a file: a value of TOML.
Value = object

_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_EXPECTED: Final = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<found>[^`]*)`")
_MISSING: Final = re.compile(r"missing required field `(?P<name>\w+)`")
_AT: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.(?P<name>\w+)|\[(?P<number>\d+)\]")

Step = str | int


def complaints(value: Value, kind: type) -> Iterator[str]:
    """Yield what of ``value`` has no place in ``kind``: keys that it doesn't know."""
    yield from _unknown(value, inspect.type_info(kind), ())


def retold(error: msgspec.ValidationError, kind: type) -> str:
    """Return what msgspec found, in the words of whoever wrote the file."""
    text = str(error)
    at = _AT.search(text)
    steps = tuple(_steps(at["path"])) if at else ()
    place = _place(steps)
    before = f"{place}: " if place else ""
    if missing := _MISSING.search(text):
        return f"{before}{missing['name']} is missing"
    if choices := _choices(inspect.type_info(kind), steps):
        return f"{before}say one of {', '.join(choices)}"
    if expected := _EXPECTED.search(text):
        wanted, found = (_named(expected[key]) for key in ("wanted", "found"))
        return f"{before}expected {wanted}, got {found}"
    return before + _AT.sub("", text)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return what to say of ``name``, which is none of ``known``."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _unknown(value: Value, kind: inspect.Type, steps: tuple[Step, ...]) -> Iterator[str]:
    match kind, value:
        case ((inspect.StructType() | inspect.DataclassType()), dict()):
            known = {field.encode_name: field.type for field in kind.fields}
            for name, part in value.items():
                if name in known:
                    yield from _unknown(part, known[name], (*steps, name))
                else:
                    place = _place(steps)
                    told = f"there is no key {name!r}; {nearest(name, list(known))}"
                    yield f"{place}: {told}" if place else told
        case inspect.VarTupleType(), list():
            for i, part in enumerate(value):
                yield from _unknown(part, kind.item_type, (*steps, i))
        case inspect.UnionType(), _:
            for one in kind.types:
                yield from _unknown(value, one, steps)
        case _:
            pass


def _choices(kind: inspect.Type, steps: Sequence[Step]) -> Sequence[str]:
    """Return what may stand at a place, where that is one of a few words."""
    for step in steps:
        if isinstance(kind, inspect.UnionType):
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
        fields: Mapping[Step, inspect.Type] = {}
        match kind:
            case inspect.StructType() | inspect.DataclassType():
                fields = {field.encode_name: field.type for field in kind.fields}
            case inspect.VarTupleType():
                fields = {step: kind.item_type}
            case _:
                pass
        if step not in fields:
            return ()
        kind = fields[step]
    return [str(one) for one in kind.values] if isinstance(kind, inspect.LiteralType) else ()


def _steps(path: str) -> Iterator[Step]:
    for step in _STEP.finditer(path):
        yield step["name"] or int(step["number"])


def _place(steps: Sequence[Step]) -> str:
    """Return where it is, as a reader finds it: tables counted from one."""
    words: list[str] = []
    for step in steps:
        if isinstance(step, int):
            words[-1] = f"[[{words[-1]}]] no. {step + 1}"
        else:
            words.append(step)
    return ", ".join(words)


def _named(kinds: str) -> str:
    return " or ".join(_WORDS.get(one, one) for one in kinds.split(" | "))
