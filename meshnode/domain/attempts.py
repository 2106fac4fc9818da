"""What became of an attempt that nobody took up: whether it counts, and what is told."""

from collections.abc import Sequence
from typing import Final

from meshnode.domain.job import Attempt
from protocol.graph import SubTask

#: Code of a failure: the owners of those who could do it don't let this broker call.
NOT_ALLOWED: Final = "access.not_allowed"
#: While all that are known refuse this broker, somebody else may be found, milliseconds.
BARRED_GRACE_MS: Final = 3_000

#: Failures of awards that nobody took.
_UNTRIED: Final = frozenset({"node.busy", "transport.unreachable", NOT_ALLOWED})
#: What it means that all who were called refuse for the same reason.
_UNANIMOUS: Final = {"busy": "node.busy", "not_allowed": NOT_ALLOWED}


def is_try(attempt: Attempt) -> bool:
    """Tell whether a contractor failed at it, rather than had no time or never heard of it."""
    error = attempt.error
    return error is not None and bool(attempt.award) and error.code not in _UNTRIED


def no_proposal(attempt: Attempt) -> tuple[str, str]:
    """Return code and text for a call that nobody proposed for."""
    reasons = sorted(set(attempt.refusals.values()))
    code = _UNANIMOUS.get(reasons[0], "") if len(reasons) == 1 else ""
    told = ", ".join(reasons) or "no answer"
    text = f"none of {len(attempt.called)} candidates proposed: {told}"
    return code or "cfp.unanswered", text


def refused_by_all(task: SubTask, peers: Sequence[str]) -> str:
    """Say what to do when all who offer what ``task`` needs refuse this node."""
    return (
        f"the nodes that offer {task.capability} (sub-task {task.id!r}) work for members of"
        f" their mesh only: ask the owner of {peers[0]} for an invite (`meshnode invite`),"
        " then `meshnode up --join INVITE`"
    )
