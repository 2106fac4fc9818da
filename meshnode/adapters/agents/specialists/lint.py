"""Mistakes and bad habits in one Python file: ruff, with one fixed set of rules.

No configuration is read, the user's or the project's: the same file must give the same
findings on every node.  ``# noqa`` counts, as it is the author's own decision.
"""

import importlib
from pathlib import PurePosixPath
from typing import Any

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.source_code import (
    TIMEOUT_S,
    Code,
    CodePath,
    Finding,
    Findings,
    Severity,
    examine,
    report,
    skip_reason,
)
from meshnode.errors import AgentError
from meshnode.ports import Agent, Example

_RULES = "E4,E7,E9,F,W6,B,C4,PIE,RET,SIM,PERF,UP,PLE,PLW"
_SYNTAX = "invalid-syntax"
#: Rules that point at code that doesn't do what it says.
_WRONG = ("E9", "F", "PLE", "B")
_CLEAN, _FOUND = 0, 1


class _Place(msgspec.Struct):
    row: int


class _Violation(msgspec.Struct):
    message: str
    location: _Place
    code: str | None = None


async def lint(path: CodePath, text: Code) -> Findings:
    """Look for mistakes and bad habits in one Python file."""
    if reason := skip_reason(path, text):
        return Findings(path, [], 0, reason)
    name = PurePosixPath(path).name
    # The path is the caller's and goes nowhere near a command line; only two names of a
    # file change what ruff says of it.
    known = (
        name if name == "__init__.py" else "file.pyi" if name.endswith(".pyi") else "file.py"
    )
    argv = (
        *(_executable(), "check", "--isolated", "--no-cache", "--no-fix", "--quiet"),
        *("--select", _RULES, "--target-version", "py311", "--output-format", "json"),
        *("--stdin-filename", known, "-"),
    )
    finished = await examine(argv, text, good=frozenset((_CLEAN, _FOUND)))
    try:
        found = msgspec.json.decode(finished.stdout, type=list[_Violation])
    except msgspec.DecodeError as error:
        raise AgentError(f"ruff's report can't be read: {error}") from error
    return report(path, text, [(_finding(each), each.location.row) for each in found])


def _finding(violation: _Violation) -> Finding:
    rule = violation.code or _SYNTAX
    severity: Severity = "low"
    if rule == _SYNTAX:
        severity = "high"
    elif rule.startswith(_WRONG):
        severity = "medium"
    return Finding(1, rule, severity, "high", violation.message, "")


def _executable() -> str:
    library: Any = importlib.import_module("ruff")
    try:
        return str(library.find_ruff_bin())
    except FileNotFoundError as error:
        raise AgentError("lint: ruff's executable was not found", hint=INSTALL_HINT) from error


EXAMPLES = (
    Example(
        {"path": "total.py", "text": "import os\n\nTOTAL = sum((1, 2))\n"},
        {
            "path": "total.py",
            "findings": [
                {
                    "line": 1,
                    "rule": "F401",
                    "severity": "medium",
                    "confidence": "high",
                    "message": "`os` imported but unused",
                    "quote": "import os",
                }
            ],
            "total": 1,
            "skipped": "",
        },
    ),
    Example(
        {"path": "README.md", "text": "# Title\n"},
        {"path": "README.md", "findings": [], "total": 0, "skipped": "not Python: .md"},
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        lint,
        "code.lint@1",
        name="lint",
        description=(
            "Lints one Python source file (ruff): undefined names, unused imports, likely "
            "bugs, outdated or needlessly complicated code. Each finding quotes its line."
        ),
        examples=EXAMPLES,
        price_mc=2,
        timeout_s=TIMEOUT_S,
        concurrency_max=2,
        deterministic=True,
        needs=("ruff",),
        install_hint=INSTALL_HINT,
        prepare=_executable,
    )
