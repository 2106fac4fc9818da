"""What auditing and linting have in common: the file, and findings that quote it.

A finding carries the line it speaks of, word for word, so that it can be checked
against the file without trusting who found it.  A file that isn't Python is no fault:
it is skipped, and the output says why.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

import msgspec

from meshnode.adapters.agents.child_process import Limits, run_child
from meshnode.confinement import Finished
from meshnode.errors import AgentError

Code = Annotated[str, msgspec.Meta(description="The whole source file.")]
CodePath = Annotated[
    str, msgspec.Meta(description="The file's path; its ending tells the language.")
]
Severity = Literal["low", "medium", "high"]

FINDINGS_MAX = 200
TIMEOUT_S = 60.0
_QUOTE_CHARACTERS_MAX = 300
_LINE_END = re.compile(r"\r\n|\r|\n")
_MEMORY_BYTES_MAX = 2 * 1024**3
_PYTHON_ENDINGS = (".py", ".pyi", ".pyw")


class Finding(msgspec.Struct):
    """One thing to look at.

    Attributes:
        line: Line number, from 1.
        rule: Id of the rule, such as ``B602`` or ``F401``.
        quote: The line's text as it stands in the file (at most 300 characters).
    """

    line: Annotated[int, msgspec.Meta(ge=1)]
    rule: str
    severity: Severity
    confidence: Severity
    message: str
    quote: str


class Findings(msgspec.Struct):
    """What was found in one file.

    Attributes:
        findings: By line; at most 200.
        total: How many there are.
        skipped: Why the file wasn't looked at; empty when it was.
    """

    path: str
    findings: list[Finding]
    total: Annotated[int, msgspec.Meta(ge=0)]
    skipped: str = ""


def skip_reason(path: str, text: str) -> str:
    """Return why a file can't be examined as Python, or nothing."""
    name = PurePosixPath(path).name
    ending = PurePosixPath(path).suffix.lower()
    if ending and ending not in _PYTHON_ENDINGS:
        return f"not Python: {ending[:20]}"
    if name and not ending and not ("python" in text[:100] and text.startswith("#!")):
        return "not Python: no .py ending and no python shebang"
    return ""


def report(path: str, text: str, findings: Sequence[tuple[Finding, int]]) -> Findings:
    """Return ``findings`` (each with its line) ordered and with their quotes."""
    lines = _LINE_END.split(text)
    for finding, line in findings:
        finding.line = min(max(line, 1), len(lines))
        finding.quote = lines[finding.line - 1][:_QUOTE_CHARACTERS_MAX]
    ordered = sorted((finding for finding, _ in findings), key=lambda f: (f.line, f.rule))
    return Findings(path, ordered[:FINDINGS_MAX], len(ordered))


async def examine(argv: Sequence[str], text: str, *, good: frozenset[int]) -> Finished:
    """Run a tool on ``text`` in a process that ends with the call.

    Args:
        argv: The tool; reads the file from stdin.
        text: The file.
        good: Exit codes that mean it did its work.

    Raises:
        AgentError: It failed.
    """
    finished = await run_child(
        argv,
        stdin=text.encode(errors="replace"),
        cwd=tempfile.gettempdir(),
        limits=Limits(
            timeout_s=TIMEOUT_S,
            output_bytes_max=64 * 1024 * 1024,
            memory_bytes_max=_MEMORY_BYTES_MAX,
        ),
    )
    if finished.returncode not in good:
        tail = finished.stderr_tail[-500:]
        raise AgentError(f"{argv[0]} ended with exit code {finished.returncode}: {tail}")
    return finished
