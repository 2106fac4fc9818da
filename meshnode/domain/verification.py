"""What a broker finds out about an output without asking anybody.

The output schema is always checked; beyond it the graph names deterministic checks.
``verified`` is said only when such a check passed for every item; agreement and
judgement are another matter and come with other verdicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from meshnode.domain.schemas import mismatch
from meshnode.domain.values import canonical, parse, resolve_all
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import Check
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


def check_output(
    outputs: Sequence[JsonValue],
    inputs: Sequence[JsonValue],
    *,
    schema: bytes,
    checks: Sequence[Check],
    recomputed: Sequence[JsonValue] | None = None,
) -> Finding:
    """Return what the checks say of ``outputs``.

    Args:
        outputs: One for each call.
        inputs: Of the same calls; needed by ``quoted``.
        schema: The agent's output schema.
        checks: From the graph.
        recomputed: What a deterministic agent of this node gave for the same inputs,
            or None if there is none: then ``recompute`` proves nothing.
    """
    for number, output in enumerate(outputs):
        if reason := mismatch(schema, output):
            return Finding("rejected", "schema", f"item {number}, {reason}")
    passed: list[str] = []
    for check in checks:
        if check.kind == "recompute":
            if recomputed is None:
                continue
            trouble, proves = _compare(outputs, recomputed), True
        else:
            trouble, proves = _quotes(outputs, inputs, check)
        if trouble:
            return Finding("rejected", check.kind, trouble)
        if proves:
            passed.append(check.kind)
    if not passed or not outputs:
        return Finding("unverified", "")
    return Finding("verified", "+".join(passed))


def _compare(outputs: Sequence[JsonValue], recomputed: Sequence[JsonValue]) -> str:
    for number, (given, own) in enumerate(zip(outputs, recomputed, strict=True)):
        if canonical(given) != canonical(own):
            return f"item {number} differs from what this node computed"
    return ""


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
