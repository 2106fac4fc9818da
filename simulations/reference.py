"""The reference of a scenario's keys, written from the classes that read them.

``python -m simulations.reference docs/simulation.md`` writes it into the page, between its
two marks; a test sees that it is the one that this makes.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect as shapes

from simulations.agents import Temper
from simulations.roles import ROLES
from simulations.scenario import (
    SKILLS,
    Churn,
    Expect,
    Group,
    Load,
    Mishaps,
    Scenario,
    Trouble,
)
from simulations.weather import Weather

BEGIN: Final = "<!-- keys begin: written by python -m simulations.reference -->"
END: Final = "<!-- keys end -->"

#: Each table of a file, with the class that reads it.
TABLES: Final = (
    ("The file", Scenario),
    ("`[[agents]]`", Group),
    ("`temper` of `[[agents]]`", Temper),
    ("`[[load]]`", Load),
    ("`[[faults]]`", Trouble),
    ("`[churn]`", Churn),
    ("`[mishaps]`", Mishaps),
    ("`[weather]`", Weather),
    ("`[expect]`", Expect),
)
_ATTRIBUTE: Final = re.compile(r"^    (\w+): ", re.MULTILINE)
_ROLE: Final = re.compile(r":\w+:`~?([^`]*)`")
_NAMES: Final = (
    (shapes.IntType, "whole number"),
    (shapes.FloatType, "number"),
    (shapes.StrType, "text"),
    (shapes.BoolType, "true or false"),
    (shapes.StructType, "table"),
    (shapes.DataclassType, "table"),
)


def reference() -> str:
    """Return the tables, as Markdown."""
    skills = ", ".join(f"`{name}`" for name in SKILLS)
    roles = ", ".join(f"`{name}`" for name in ROLES)
    parts = [f"Skills: {skills}.\nRoles: {roles}.\n"]
    parts += [f"### {title}\n\n{_table(kind)}\n" for title, kind in TABLES]
    return "\n".join(parts)


def written_into(text: str) -> str:
    """Return a page with the reference between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _table(kind: type) -> str:
    rows = ["| key | is | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *_rows(kind)])


def _rows(kind: type) -> Iterator[str]:
    shape = shapes.type_info(kind)
    assert isinstance(shape, shapes.StructType | shapes.DataclassType)
    meanings = _meanings(kind)
    for field in shape.fields:
        default = "must be said" if field.required else _default(field)
        meaning = meanings[field.encode_name].replace("|", "\\|")
        yield f"| `{field.encode_name}` | {_name(field.type)} | {default} | {meaning} |"


def _default(field: shapes.Field) -> str:
    if field.default is not msgspec.NODEFAULT:
        return _told(field.default)
    assert field.default_factory is not msgspec.NODEFAULT
    return _told(field.default_factory())


def _told(value: object) -> str:
    """Return a default as the file would say it."""
    match value:
        case None | "" | ():
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case int():
            return f"`{value:_}`"
        case float():
            return f"`{value:g}`"
        case str():
            return f'`"{value}"`'
        case tuple():
            return f"`[{', '.join(_told(one).strip('`') for one in value)}]`"
        case Group() | Load():
            return f"`{_inline(value)}`"
        case _:
            return "as below"


def _inline(value: msgspec.Struct) -> str:
    """Return a table on one line, without the keys that say their default."""
    said = [
        f"{field.name} = {_told(getattr(value, field.name)).strip('`')}"
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != field.default
        and field.default_factory is msgspec.NODEFAULT
    ]
    return f"{{ {', '.join(said)} }}" if said else "{}"


def _name(kind: shapes.Type) -> str:
    match kind:
        case shapes.LiteralType():
            return ", ".join(f'`"{one}"`' for one in kind.values)
        case shapes.DictType():
            return "table"
        case shapes.VarTupleType():
            return f"list of {_name(kind.item_type)}"
        case shapes.TupleType():
            return f"list of {len(kind.item_types)} numbers"
        case shapes.UnionType():
            return " or ".join(_name(one) for one in kind.types if not _is_none(one))
        case _:
            return next(name for one, name in _NAMES if isinstance(kind, one))


def _is_none(kind: shapes.Type) -> bool:
    return isinstance(kind, shapes.NoneType)


def _meanings(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    parts = _ATTRIBUTE.split(f"\n{listed}")[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return {
        name: _ROLE.sub(r"`\1`", " ".join(text.replace("``", "`").split()))
        for name, text in found
    }


def main(arguments: Sequence[str]) -> None:
    """Write the reference into the page that is named."""
    (name,) = arguments
    path = Path(name)
    path.write_text(written_into(path.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
