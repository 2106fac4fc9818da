"""Computes with SymPy for :mod:`.math`; run as a script, never imported by a node.

SymPy's own parser evaluates text as Python, so text never reaches it: it is parsed with
:mod:`ast`, and SymPy objects are made of the few kinds of syntax below.  Numbers that
would not fit are refused before they are computed.
"""

import ast
import json
import sys
from collections.abc import Callable
from typing import Any, Final

import sympy

DIGITS_MAX: Final = 1_000
BITS_MAX: Final = 100_000
FACTORIAL_MAX: Final = 2_000
NODES_MAX: Final = 500
RESULT_CHARACTERS_MAX: Final = 20_000

FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "sqrt": sympy.sqrt, "cbrt": sympy.cbrt, "exp": sympy.exp, "log": sympy.log,
    "ln": sympy.log, "log10": lambda x: sympy.log(x, 10), "log2": lambda x: sympy.log(x, 2),
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "asin": sympy.asin,
    "acos": sympy.acos, "atan": sympy.atan, "atan2": sympy.atan2, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "abs": sympy.Abs, "floor": sympy.floor,
    "ceil": sympy.ceiling, "gcd": sympy.gcd, "lcm": sympy.lcm, "min": sympy.Min,
    "max": sympy.Max, "gamma": sympy.gamma, "erf": sympy.erf,
}  # fmt: skip
CONSTANTS: Final = {
    "pi": sympy.pi, "e": sympy.E, "E": sympy.E, "i": sympy.I, "I": sympy.I,
    "oo": sympy.oo, "inf": sympy.oo,
}  # fmt: skip


class RefusedError(Exception):
    """What was asked can't be computed; the text is for whoever asked."""


def read(text: str) -> Any:  # noqa: ANN401 - SymPy has no types
    """Return the expression that ``text`` writes."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise RefusedError(f"{text[:80]!r} is no expression") from error
    except (RecursionError, MemoryError) as error:
        raise RefusedError("the expression is nested too deep") from error
    if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
        raise RefusedError(f"the expression has more than {NODES_MAX} parts")
    return _build(tree.body)


def _build(node: ast.expr) -> Any:  # noqa: ANN401 - SymPy has no types
    match node:
        case ast.Constant(value=bool() | str() | bytes() | complex()):
            raise RefusedError(f"{ast.unparse(node)[:60]} is no number")
        case ast.Constant(value=int() | float() as value):
            return _number(value, node)
        case ast.Name(id=name):
            return CONSTANTS.get(name, sympy.Symbol(name[:40]))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_build(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _build(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(op, _build(left), _build(right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _call(name, [_build(arg) for arg in args])
        case _:
            raise RefusedError(
                f"{ast.unparse(node)[:60]} is not understood: numbers, names, + - * / ^ %,"
                f" brackets and {', '.join(sorted(FUNCTIONS))} are"
            )


def _number(value: float, node: ast.expr) -> Any:  # noqa: ANN401 - SymPy has no types
    text = ast.unparse(node)
    if len(text) > DIGITS_MAX:
        raise RefusedError(f"a number has more than {DIGITS_MAX} digits")
    # A decimal fraction is meant as it is written: 0.1 is a tenth.
    return sympy.Integer(value) if isinstance(value, int) else sympy.Rational(text)


def _combine(op: ast.operator, left: Any, right: Any) -> Any:  # noqa: ANN401 - SymPy has no types
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            if right == 0:
                raise RefusedError("it divides by zero")
            return left / right
        case ast.Mod():
            if right == 0:
                raise RefusedError("it divides by zero")
            return sympy.Mod(left, right)
        case ast.Pow():
            return _power(left, right)
        case _:
            raise RefusedError("of operators only + - * / ^ % are understood")


def _power(base: Any, exponent: Any) -> Any:  # noqa: ANN401 - SymPy has no types
    if base.is_Rational and exponent.is_Rational and base not in (0, 1, -1):
        bits = max(int(base.p).bit_length(), int(base.q).bit_length())
        if abs(exponent) * bits > BITS_MAX:
            raise RefusedError("a power is too large to be written")
    if base == 0 and exponent.is_negative:
        raise RefusedError("it divides by zero")
    return base**exponent


def _call(name: str, args: list[Any]) -> Any:  # noqa: ANN401 - SymPy has no types
    if name == "factorial":
        if len(args) != 1 or not (args[0].is_Integer and 0 <= args[0] <= FACTORIAL_MAX):
            raise RefusedError(f"factorial takes a whole number up to {FACTORIAL_MAX}")
        return sympy.factorial(args[0])
    if name not in FUNCTIONS:
        raise RefusedError(
            f"there is no function {name[:40]!r}; {', '.join(sorted(FUNCTIONS))}"
        )
    try:
        return FUNCTIONS[name](*args)
    except TypeError as error:
        raise RefusedError(f"{name} was given {len(args)} arguments") from error


def compute(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request."""
    text, operation = request["expression"], request["operation"]
    sides = text.split("=")
    if operation == "solve":
        expression = _equation(sides)
    elif len(sides) > 1:
        raise RefusedError("an equation can only be solved: operation solve")
    else:
        expression = read(text)
    result = _carry_out(operation, expression, request)
    exact = str(result)
    if len(exact) > RESULT_CHARACTERS_MAX:
        raise RefusedError(f"the result has more than {RESULT_CHARACTERS_MAX} characters")
    return {"result": exact, "value": _value(result), "latex": sympy.latex(result)}


def _equation(sides: list[str]) -> Any:  # noqa: ANN401 - SymPy has no types
    parts = [side for side in sides if side]
    if len(parts) > 2 or not parts:  # noqa: PLR2004 - two sides
        raise RefusedError("an equation has two sides")
    return read(parts[0]) - read(parts[1]) if len(parts) > 1 else read(parts[0])


def _carry_out(operation: str, expression: Any, request: dict[str, Any]) -> Any:  # noqa: ANN401 - as above; one for each operation
    if operation in ("simplify", "expand", "factor"):
        return getattr(sympy, operation)(expression)
    if operation == "evaluate":
        return expression if expression.free_symbols else sympy.simplify(expression)
    variable = _variable(expression, request["variable"])
    if operation == "solve":
        return sympy.solve(expression, variable)
    if operation == "differentiate":
        return sympy.diff(expression, variable)
    bounds = [request["lower"], request["upper"]]
    if operation == "limit":
        if not bounds[1]:
            raise RefusedError("a limit needs the point: upper")
        return sympy.limit(expression, variable, read(bounds[1]))
    if all(bounds):
        return sympy.integrate(expression, (variable, *(read(bound) for bound in bounds)))
    if any(bounds):
        raise RefusedError("an integral has both bounds, lower and upper, or none")
    return sympy.integrate(expression, variable)


def _variable(expression: Any, name: str) -> Any:  # noqa: ANN401 - SymPy has no types
    if name:
        return sympy.Symbol(name)
    symbols = sorted(expression.free_symbols, key=str)
    if len(symbols) > 1:
        names = ", ".join(map(str, symbols))
        raise RefusedError(f"which variable is meant of {names}? name it: variable")
    return symbols[0] if symbols else sympy.Symbol("x")


def _value(result: Any) -> float | None:  # noqa: ANN401 - SymPy has no types
    """Return the result as a number, where it is a real one."""
    if not isinstance(result, sympy.Expr) or result.free_symbols:
        return None
    number = result.evalf(17)
    if not number.is_Float and not number.is_Integer and not number.is_Rational:
        return None
    value = float(number)
    return value if value - value == 0 else None


def main() -> None:
    """Answer the request on stdin."""
    sys.set_int_max_str_digits(DIGITS_MAX * 100)
    try:
        answer: dict[str, Any] = {"result": compute(json.load(sys.stdin))}
    except RefusedError as error:
        answer = {"error": str(error)}
    except (
        NotImplementedError,
        ArithmeticError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:
        answer = {"error": f"it can't be done ({type(error).__name__}: {str(error)[:200]})"}
    print(json.dumps(answer))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
