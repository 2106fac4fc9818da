"""Programs as answers, tried on calls whose results are known to whoever asks.

The judge mustn't sit in the process of what it judges: a program that shares a process with
its unit tests can leave with exit code 0, or find out what is expected.  So what runs beside
it (:data:`HARNESS`) only calls it and writes down what came back; what should have come back
never enters the sandbox, and is compared here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.domain.likeness import equivalent
from meshnode.domain.values import canonical, parse
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import EXACT, Likeness

CASES_MAX: Final = 100
PROGRAM_BYTES_MAX: Final = 256 * 1024
#: Names of the program and of what calls it, where they run.
PROGRAM: Final = "answer.py"
CALLER: Final = "caller.py"

#: Reads ``[{"call", "args"}]`` on stdin and writes the list of results on stdout; what the
#: program itself prints goes to stderr.
HARNESS: Final = b"""\
import importlib, json, sys
calls = json.load(sys.stdin)
told, sys.stdout = sys.stdout, sys.stderr
sys.path.insert(0, ".")
answer = importlib.import_module("answer")
given = [getattr(answer, one["call"])(*one["args"]) for one in calls]
json.dump(given, told)
"""

_QUOTE_CHARACTERS: Final = 100


@dataclass(frozen=True, slots=True)
class Case:
    """One call of a function of the program, and what it should return.

    Attributes:
        call: Name of the function.
        args: JSON values.
        gives: Likewise.
    """

    call: str
    args: Sequence[JsonValue]
    gives: JsonValue


def read_cases(value: JsonValue) -> list[Case]:
    """Return the cases in ``[{"call": "f", "args": [1], "gives": 2}]``.

    Raises:
        InputInvalid: It isn't such a list; says what is wrong.
    """
    if not isinstance(value, list) or not 0 < len(value) <= CASES_MAX:
        raise InputInvalid(f"a program is tried on 1 to {CASES_MAX} cases")
    cases = []
    for number, one in enumerate(value):
        if not isinstance(one, dict) or one.keys() != {"call", "args", "gives"}:
            raise InputInvalid(f"case {number} isn't {{call, args, gives}}")
        call, args = one["call"], one["args"]
        if not isinstance(call, str) or not call.isidentifier() or call.startswith("_"):
            raise InputInvalid(f"case {number}: {call!r:.60} can't name a function")
        if not isinstance(args, list):
            raise InputInvalid(f"case {number}: args is no list")
        cases.append(Case(call, args, one["gives"]))
    return cases


def calls_of(cases: Sequence[Case]) -> bytes:
    """Return what the harness reads: the cases without what should come of them."""
    return canonical([{"call": case.call, "args": list(case.args)} for case in cases])


def failed_case(cases: Sequence[Case], told: bytes, kind: Likeness = EXACT) -> str:
    """Return which case failed and how, or an empty string if all are as they should be.

    Args:
        cases: What was asked.
        told: What the harness wrote, which is as hostile as the program.
        kind: How results are compared.
    """
    try:
        given = parse(told)
    except InputInvalid as exc:
        return f"the program's results can't be read: {exc}"
    if not isinstance(given, list) or len(given) != len(cases):
        return "the program gave no result for each case"
    for number, (case, result) in enumerate(zip(cases, given, strict=True)):
        try:
            same = equivalent(result, case.gives, kind)
        except InputInvalid as exc:
            return f"case {number}: {exc}"
        if not same:
            return f"case {number}, {case.call}: it gave {str(result)[:_QUOTE_CHARACTERS]!r}"
    return ""
