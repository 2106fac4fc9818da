"""One unit into another: pint.

What a unit is called is read by pint; how units are combined is read here, because
pint's own reader computes whatever arithmetic it is given.
"""

import importlib
import math
import re
from functools import cache
from typing import Annotated, Any

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.errors import AgentError
from meshnode.ports import Agent, Example

_NUMBER = re.compile(
    r"\s*([+-]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(.*)", re.DOTALL
)
_NAME = r"[A-Za-zµμΩ°ΔÅ%][A-Za-z0-9_µμΩ°Å]{0,39}"
_UNIT = re.compile(
    rf"{_NAME}(?:\s*(?:\^|\*\*)\s*-?\d)?(?:\s*[*/·]\s*{_NAME}(?:\s*(?:\^|\*\*)\s*-?\d)?){{0,7}}"
)
_SIGNIFICANT_DIGITS = 12

Quantity = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=200, description="A number and its unit, such as 5 km/h."
    ),
]
Unit = Annotated[
    str, msgspec.Meta(min_length=1, max_length=100, description="Unit wanted, such as mile/h.")
]


class Converted(msgspec.Struct):
    """The same quantity in another unit.

    Attributes:
        value: How much, 12 significant digits.
        unit: Of the value, written out.
        text: Number and unit.
    """

    value: float
    unit: str
    text: str


def convert_units(quantity: Quantity, to: Unit) -> Converted:
    """Convert a quantity into another unit of the same kind."""
    found = _NUMBER.fullmatch(quantity)
    if found is None:
        raise AgentError(f"{quantity[:60]!r} begins with no number", hint="such as 5 km")
    number, unit = float(found[1].replace(",", "").replace("_", "")), found[2]
    registry = _registry()
    try:
        converted = registry.Quantity(number, _unit(unit)).to(_unit(to))
    except importlib.import_module("pint").DimensionalityError as error:
        raise AgentError(
            f"{unit.strip()[:40]!r} and {to.strip()[:40]!r} measure different things: {error}"
        ) from error
    except OverflowError as error:
        raise AgentError(f"{quantity[:60]!r} in {to[:40]!r} is out of range") from error
    value = float(f"{converted.magnitude:.{_SIGNIFICANT_DIGITS}g}")
    if not math.isfinite(value):
        raise AgentError(f"{quantity[:60]!r} in {to[:40]!r} is out of range")
    name = str(converted.units)
    return Converted(value, name, f"{value:g} {name}")


def _unit(text: str) -> Any:  # noqa: ANN401 - pint's types are its registry's
    name = text.strip()
    if not _UNIT.fullmatch(name):
        raise AgentError(f"{name[:60]!r} is no unit", hint="such as km, kg*m/s^2, degC")
    library: Any = importlib.import_module("pint")
    try:
        return _registry().parse_units(name.replace("·", "*").replace("%", "percent"))
    except (library.UndefinedUnitError, ValueError, TypeError, KeyError) as error:
        raise AgentError(f"there is no unit {name[:60]!r}", hint="such as km, degC") from error


@cache
def _registry() -> Any:  # noqa: ANN401 - the library is imported late
    registry: Any = importlib.import_module("pint").UnitRegistry(cache_folder=None)
    return registry


EXAMPLES = (
    Example(
        {"quantity": "26.2 miles", "to": "km"},
        {"value": 42.1648128, "unit": "kilometer", "text": "42.1648 kilometer"},
    ),
    Example(
        {"quantity": "20 degC", "to": "degF"},
        {"value": 68.0, "unit": "degree_Fahrenheit", "text": "68 degree_Fahrenheit"},
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        convert_units,
        "science.unit_conversion@1",
        name="unit_conversion",
        description=(
            "Converts a quantity from one unit of measurement to another: lengths, weights,"
            " temperatures, speeds, volumes, energy and what is made of them (pint)."
        ),
        examples=EXAMPLES,
        price_mc=1,
        timeout_s=20.0,
        concurrency_max=2,
        deterministic=True,
        needs=("pint",),
        install_hint=INSTALL_HINT,
        prepare=_registry,
    )
