"""Security findings in one Python file: bandit, in a process of its own.

A process and not a thread, because hostile code can keep a parser busy and only a
process can be stopped.  ``# nosec`` is ignored: whoever is audited doesn't decide what
the auditor sees.
"""

import sys

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

_LEVELS: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
_CLEAN, _FOUND = 0, 1


class _Issue(msgspec.Struct):
    test_id: str
    issue_text: str
    issue_severity: str
    issue_confidence: str
    line_number: int


class _Problem(msgspec.Struct):
    reason: str


class _Report(msgspec.Struct):
    results: list[_Issue]
    errors: list[_Problem]


async def audit(path: CodePath, text: Code) -> Findings:
    """Look for security problems in one Python file."""
    if reason := skip_reason(path, text):
        return Findings(path, [], 0, reason)
    finished = await examine(
        (sys.executable, "-P", "-m", "bandit", "-q", "--ignore-nosec", "-f", "json", "-"),
        text,
        good=frozenset((_CLEAN, _FOUND)),
    )
    try:
        found = msgspec.json.decode(finished.stdout, type=_Report)
    except msgspec.DecodeError as error:
        raise AgentError(f"bandit's report can't be read: {error}") from error
    if found.errors:
        return Findings(path, [], 0, f"not readable as Python: {found.errors[0].reason}")
    return report(path, text, [(_finding(issue), issue.line_number) for issue in found.results])


def _finding(issue: _Issue) -> Finding:
    return Finding(
        line=1,
        rule=issue.test_id,
        severity=_LEVELS.get(issue.issue_severity, "low"),
        confidence=_LEVELS.get(issue.issue_confidence, "low"),
        message=issue.issue_text,
        quote="",
    )


EXAMPLES = (
    Example(
        {"path": "run.py", "text": "import hashlib\n\nkey = hashlib.md5(b'x').hexdigest()\n"},
        {
            "path": "run.py",
            "findings": [
                {
                    "line": 3,
                    "rule": "B324",
                    "severity": "high",
                    "confidence": "high",
                    "message": (
                        "Use of weak MD5 hash for security. Consider usedforsecurity=False"
                    ),
                    "quote": "key = hashlib.md5(b'x').hexdigest()",
                }
            ],
            "total": 1,
            "skipped": "",
        },
    ),
    Example(
        {"path": "site.css", "text": "a { color: red }\n"},
        {"path": "site.css", "findings": [], "total": 0, "skipped": "not Python: .css"},
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        audit,
        "code.security_audit@1",
        name="security_audit",
        description=(
            "Audits one Python source file for security problems (bandit rules: injection, "
            "shell use, weak crypto, hard-coded secrets, …). Each finding quotes its line."
        ),
        examples=EXAMPLES,
        price_mc=5,
        timeout_s=TIMEOUT_S,
        concurrency_max=2,
        deterministic=True,
        needs=("bandit",),
        install_hint=INSTALL_HINT,
    )
