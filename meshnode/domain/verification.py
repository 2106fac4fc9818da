"""What a broker finds out about an output without asking anybody.

The output schema is always checked; beyond it the graph names deterministic checks.
``verified`` is said only when such a check passed for every item; agreement and
judgement are another matter and come with other verdicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshnode.domain.likeness import equivalent
from meshnode.domain.programs import Case, read_cases
from meshnode.domain.schemas import mismatch
from meshnode.domain.values import canonical, parse, resolve_all
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import Check, Likeness
from protocol.receipts import Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of checking one output.

    Attributes:
        verdict: ``rejected``, ``verified`` or ``unverified``.
        check: Kinds of the checks that passed, joined by ``+``; or the one that failed.
        detail: Why it was rejected.
    """

    verdict: Verdict
    check: str
    detail: str = ""


def read_output(data: bytes, *, calls: int, single: bool) -> list[JsonValue]:
    """Return the output of each call.

    Raises:
        InputInvalid: Not canonical JSON, or not a list of ``calls`` items.
    """
    value = parse(data)
    if canonical(value) != data:
        raise InputInvalid("the output is JSON, but not in its canonical form")
    if single:
        return [value]
    if not isinstance(value, list) or len(value) != calls:
        raise InputInvalid(f"the output should be a list of {calls} items")
    return value


def held_against(
    outputs: Sequence[JsonValue],
    expected: Sequence[bytes],
    like: Likeness,
    *,
    usual: Finding,
) -> Finding:
    """Return what is said of the answers to a gold task, whose right ones are known.

    A right one gets the verdict that it would get anywhere: who could read from its receipt
    that it passed a gold would know for how long none is due.

    Args:
        outputs: One for each call.
        expected: The right ones, RFC 8785 JSON.
        like: Of the sub-task.
        usual: What is said of an answer that no check refuses.
    """
    for number, (output, right) in enumerate(zip(outputs, expected, strict=True)):
        if not equivalent(output, parse(right), like):
            return Finding("rejected", "expected", f"item {number} is not what was expected")
    return usual


def needs_inputs(check: Check) -> bool:
    """Tell whether a check looks at the inputs, beside the output."""
    return check.kind in {"quoted", "recompute"} or (
        check.kind == "program" and not check.value
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """A program that is to be tried, and on what.

    Attributes:
        program: Python source.
        cases: What it is tried on.
        like: How what it gives is compared.
    """

    program: str
    cases: Sequence[Case]
    like: Likeness


def trials(
    outputs: Sequence[JsonValue], inputs: Sequence[JsonValue], check: Check
) -> list[Trial] | str:
    """Return what a check of kind ``program`` has tried, or why an output is wrong at once.

    Args:
        outputs: One for each call.
        inputs: Of the same calls; needed where the check has no cases of its own.
        check: From the graph.

    Raises:
        InputInvalid: There are no cases where the check says, which isn't the maker's fault.
    """
    found: list[Trial] = []
    given = None if not check.value else read_cases(parse(check.value))
    for number, output in enumerate(outputs):
        cases = given
        if cases is None:
            cases = read_cases(next(iter(resolve_all(inputs[number], check.input)), None))
        try:
            programs = list(resolve_all(output, check.output))
        except InputInvalid as exc:
            return f"item {number}: {exc}"
        if not programs or not all(isinstance(text, str) for text in programs):
            return f"item {number}: there is no program at {check.output!r}"
        found += [Trial(str(program), cases, check.like) for program in programs]
    return found


def check_output(
    outputs: Sequence[JsonValue],
    inputs: Sequence[JsonValue],
    *,
    schema: bytes,
    checks: Sequence[Check],
    recomputed: Sequence[JsonValue] | None = None,
    tried: Mapping[int, str | None] | None = None,
) -> Finding:
    """Return what the checks say of ``outputs``.

    Args:
        outputs: One for each call.
        inputs: Of the same calls; needed by ``quoted``.
        schema: The agent's output schema.
        checks: From the graph.
        recomputed: What a deterministic agent of this node gave for the same inputs,
            or None if there is none: then ``recompute`` proves nothing.
        tried: Place of a check of kind ``program`` -> what came of it: a trouble, nothing,
            or None where it couldn't be tried, which proves nothing.
    """
    for number, output in enumerate(outputs):
        if reason := mismatch(schema, output):
            return Finding("rejected", "schema", f"item {number}, {reason}")
    passed: list[str] = []
    for place, check in enumerate(checks):
        if check.kind == "program":
            trouble, proves = _tried((tried or {}).get(place))
        elif check.kind == "recompute":
            trouble, proves = _compare(outputs, recomputed, check)
        else:
            holds = _expected if check.kind == "expected" else _quotes
            trouble, proves = holds(outputs, inputs, check)
        if trouble:
            return Finding("rejected", check.kind, trouble)
        if proves:
            passed.append(check.kind)
    if not passed or not outputs:
        return Finding("unverified", "")
    return Finding("verified", "+".join(passed))


def _tried(told: str | None) -> tuple[str, bool]:
    return told or "", told is not None


def _compare(
    outputs: Sequence[JsonValue], recomputed: Sequence[JsonValue] | None, check: Check
) -> tuple[str, bool]:
    if recomputed is None:
        return "", False
    for number, (given, own) in enumerate(zip(outputs, recomputed, strict=True)):
        if not equivalent(given, own, check.like):
            return f"item {number} differs from what this node computed", False
    return "", True


def _expected(
    outputs: Sequence[JsonValue], _: Sequence[JsonValue], check: Check
) -> tuple[str, bool]:
    """Return what isn't as expected, and whether the check can be carried out."""
    try:
        expected = parse(check.value)
        canonical(expected)
    except InputInvalid:
        return "", False  # an owner's graph is looked at before it is begun; an heir's isn't
    for number, output in enumerate(outputs):
        try:
            found = list(resolve_all(output, check.output))
        except InputInvalid as exc:
            return f"item {number}: {exc}", False
        if not found or not all(equivalent(one, expected, check.like) for one in found):
            return f"item {number} is not what was expected", False
    return "", True


def _quotes(
    outputs: Sequence[JsonValue], inputs: Sequence[JsonValue], check: Check
) -> tuple[str, bool]:
    """Every text at ``check.output`` must stand verbatim in a text at ``check.input``.

    Return what is wrong, and whether it proves anything: an output that quotes nothing
    (no finding in a file, say) may be right, but its quotes don't show it.
    """
    proves = True
    for number, (output, given) in enumerate(zip(outputs, inputs, strict=True)):
        try:
            quoted = list(resolve_all(output, check.output))
            sources = [
                text for text in resolve_all(given, check.input) if isinstance(text, str)
            ]
        except InputInvalid as exc:
            return f"item {number}: {exc}", False
        for text in quoted:
            if not isinstance(text, str) or not any(text in source for source in sources):
                return f"item {number}: {str(text)[:60]!r} does not stand in the source", False
        proves = proves and any(quoted)
    return "", proves
