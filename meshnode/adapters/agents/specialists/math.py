"""Exact mathematics: SymPy, in a process that can be killed.

The expression comes from strangers: see :mod:`.math_child` for what of it is read.
"""

from typing import Annotated, Any, Literal

import msgspec

from meshnode.adapters.agents.child_process import Limits
from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.signature import convert
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.confined import run_confined
from meshnode.ports import Agent, Example

_LIMITS = Limits(timeout_s=15.0, output_bytes_max=200_000, memory_bytes_max=2 * 1024**3)

Expression = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=2_000,
        description="Such as 2^10 / 3, sin(pi/4), x^2 - 4 = 0; operators + - * / ^ %.",
    ),
]
Operation = Literal[
    "evaluate", "simplify", "expand", "factor", "solve", "differentiate", "integrate", "limit"
]
Variable = Annotated[
    str, msgspec.Meta(pattern="^([A-Za-z][A-Za-z0-9_]{0,20})?$", description="Such as x.")
]
Bound = Annotated[str, msgspec.Meta(max_length=200, description="A number or expression.")]


class Computed(msgspec.Struct):
    """What came out.

    Attributes:
        result: Exact.
        value: As a number, where it is a real one.
        latex: To be typeset.
    """

    result: str
    value: float | None
    latex: str


async def compute(
    expression: Expression,
    operation: Operation = "evaluate",
    variable: Variable = "",
    lower: Bound = "",
    upper: Bound = "",
) -> Computed:
    """Compute exactly: evaluate, simplify, solve, differentiate, integrate."""
    request: dict[str, Any] = {
        "expression": expression,
        "operation": operation,
        "variable": variable,
        "lower": lower,
        "upper": upper,
    }
    found = await run_confined("math_child.py", request, _LIMITS, what="the computation")
    return convert(found, Computed)


EXAMPLES = (
    Example(
        {"expression": "(1/3 + 1/6) * 2^10"},
        {"result": "512", "value": 512.0, "latex": "512"},
    ),
    Example(
        {"expression": "x^2 - 5*x + 6 = 0", "operation": "solve"},
        {"result": "[2, 3]", "value": None, "latex": "\\left[ 2, \\  3\\right]"},
    ),
    Example(
        {"expression": "x^2", "operation": "integrate", "lower": "0", "upper": "3"},
        {"result": "9", "value": 9.0, "latex": "9"},
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        compute,
        "science.math@1",
        name="math",
        description=(
            "Computes mathematics exactly: arithmetic with fractions, powers and functions,"
            " solving equations, derivatives, integrals, limits, simplifying and factoring"
            " formulas (SymPy)."
        ),
        examples=EXAMPLES,
        price_mc=1,
        timeout_s=20.0,
        concurrency_max=2,
        deterministic=True,
        needs=("sympy",),
        install_hint=INSTALL_HINT,
    )
