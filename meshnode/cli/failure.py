"""What a person, or a program, is told when a command fails: one line, and a status.

``error: MESSAGE (HINT)`` on stderr, or with ``--json`` one line
``{"error": {"code", "message", "hint"}}`` on stdout.  Status 1; 2 when the command was
written wrongly; 130 when it was interrupted.
"""

import json
import os
import sys
from dataclasses import dataclass
from typing import Final

from meshnode.cli.misuse import misuse
from meshnode.cli.printing import plain
from meshnode.errors import MeshError
from protocol.errors import RemoteProtocolError

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130

#: Of one line; a peer's words may be in it.
_LINE_MAX: Final = 4_000
#: Set, an unexpected failure shows where it happened.
TRACE_VARIABLE: Final = "MESHNODE_TRACE"


class CommandFailed(MeshError):
    """A command can't do what it was asked; ``told`` is the code that programs see."""

    code = "cli.failed"

    def __init__(
        self, message: str, *, hint: str = "", told: str = "cli.failed", status: int = FAILED
    ) -> None:
        super().__init__(message, hint=hint)
        self.told = told
        self.status = status


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told."""

    code: str
    message: str
    hint: str = ""
    status: int = FAILED

    def line(self) -> str:
        """Return it as one line for a person."""
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return plain(one_line(f"error: {text}"), size_max=_LINE_MAX)

    def value(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell the user of ``error``; return the status to exit with."""
    leaf = first(error)
    if isinstance(leaf, SystemExit):
        return leaf.code if isinstance(leaf.code, int) else FAILED
    if isinstance(leaf, BrokenPipeError):
        # Whoever read our output has left; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    failure = describe(leaf)
    if failure.code == "internal" and os.environ.get(TRACE_VARIABLE):
        raise error
    if as_json:
        sys.stdout.write(json.dumps({"error": failure.value()}) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(failure.line() + "\n")
    return failure.status


def describe(error: BaseException) -> Failure:
    """Return what is told of ``error``."""
    usage = getattr(error, "format_message", None)
    match error:
        case CommandFailed():
            return Failure(error.told, str(error), error.hint, status=error.status)
        case MeshError():
            return Failure(error.code, str(error), error.hint)
        case RemoteProtocolError():
            return Failure(f"protocol.{error.code.name.lower()}", str(error))
        case KeyboardInterrupt():
            return Failure("cli.interrupted", "interrupted", status=INTERRUPTED)
        case OSError(filename=str(name)):
            return Failure("system", f"{name}: {error.strerror}")
        case OSError():
            return Failure("system", error.strerror or str(error))
        case _ if usage is not None:
            # The command line library's own errors; which package they live in varies.
            message, hint = misuse(error, one_line(usage()))
            return Failure("cli.usage", message, hint, status=MISUSED)
        case _ if type(error).__name__ == "Abort":
            return Failure("cli.interrupted", "interrupted", status=INTERRUPTED)
        case _:
            what = f"{type(error).__name__}: {error}"
            return Failure(
                "internal", f"unexpected: {what}", f"a bug; {TRACE_VARIABLE}=1 shows where"
            )


def first(error: BaseException) -> BaseException:
    """Return what a group of exceptions is about: what was raised on purpose, if anything."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    meant = error.subgroup((MeshError, RemoteProtocolError)) or error
    return first(meant.exceptions[0])


def one_line(text: str) -> str:
    """Return ``text`` without line breaks."""
    return " ".join(text.split())
