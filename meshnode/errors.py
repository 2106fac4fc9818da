"""Failures of a node that are not violations of the protocol.

Every one carries a stable ``code`` (what programs and peers branch on), a message
that names the thing, and a ``hint`` that says what to do about it.  The command
line prints ``message`` and ``hint`` on one line; the HTTP interface sends all three.
"""

from typing import ClassVar


class MeshError(Exception):
    """Base of everything the node raises on purpose.

    Attributes:
        code: Stable dotted name, such as ``agent.timeout``.
        hint: What the reader can do, one clause, or empty. It stays on this node: a peer
            is told the message alone.
    """

    code: ClassVar[str] = "mesh.error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def line(self) -> str:
        """Return message and hint as one line for a person."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class StreamLost(MeshError):
    """The stream ended before the conversation did."""

    code = "transport.stream_lost"


class Unreachable(MeshError):
    """No path to the peer: unknown, not listening, or the dial failed."""

    code = "transport.unreachable"

    def __init__(self, peer: str, reason: str = "") -> None:
        super().__init__(f"no path to {peer}" + (f": {reason}" if reason else ""))
        self.peer = peer


class Busy(MeshError):
    """A limit was reached; try again after ``retry_after_ms``.

    Args:
        what: Whose limit it is.
        retry_after_ms: When asking again may help.
        text: The whole message instead, such as it came from a peer.
    """

    code = "node.busy"

    def __init__(self, what: str, *, retry_after_ms: int = 1000, text: str = "") -> None:
        told = text or f"{what} is at its limit"
        super().__init__(told, hint=f"try again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class ConfigError(MeshError):
    """A setting that can't be used; names the setting and the file."""

    code = "config.invalid"


class GraphError(MeshError):
    """A task graph that can't run: cycle, dangling edge, a type that doesn't fit."""

    code = "graph.invalid"


class NoProvider(MeshError):
    """Nobody reachable offers the capability."""

    code = "capability.not_offered"


class CannotPlan(MeshError):
    """A goal of which a part can't be placed, or which leaves out what an agent needs."""

    code = "plan.incomplete"


class InputInvalid(MeshError):
    """A job's or an agent's input is not what its schema asks for."""

    code = "input.invalid"


class AgentError(MeshError):
    """The agent raised, or its process died."""

    code = "agent.failed"


class AgentTimeout(AgentError):
    """The agent used up its time and was stopped."""

    code = "agent.timeout"


class NoSandbox(AgentError):
    """What may only run in a sandbox doesn't run: there is none here, or not such a one."""

    code = "sandbox.unavailable"


class OutputInvalid(AgentError):
    """The agent returned something that its output schema refuses, or too much of it."""

    code = "agent.output_invalid"


class ArtifactError(MeshError):
    """An artifact is missing, its bytes don't match its hash, or the ticket doesn't hold."""

    code = "artifact.unavailable"


class ArtifactTooLarge(ArtifactError):
    """An artifact is larger than this node keeps, or than the mesh lets one be."""

    code = "artifact.too_large"

    def __init__(self, size: int, limit: int, *, hint: str) -> None:
        super().__init__(
            f"{size} bytes are too large to be kept as one artifact here: {limit} are the most",
            hint=hint,
        )
        self.size, self.limit = size, limit


class StoreError(MeshError):
    """The store can't be opened, read or written."""

    code = "store.failed"


class NotFound(MeshError):
    """There is no job, artifact or agent of that name here."""

    code = "node.not_found"


class BeyondEnd(MeshError):
    """A stream was asked for from a place that it hasn't reached: it is another stream."""

    code = "stream.beyond_end"


class Superseded(MeshError):
    """Another broker goes on with a job: this node writes nothing more in it."""

    code = "job.superseded"


class NoStandbys(MeshError):
    """A job can't have the standbys that were asked for; it was not begun."""

    code = "job.no_standbys"


class KeyReused(MeshError):
    """An idempotency key that stands for another job."""

    code = "job.key_reused"


class NoSettlement(MeshError):
    """A debt can't be settled so: this node keeps balances only, or the payment failed."""

    code = "ledger.no_settlement"


class JobEnded(MeshError):
    """What is asked for makes no sense any more: the job has ended."""

    code = "job.ended"


class Cancelled(MeshError):
    """The job was cancelled by its owner, or its deadline passed."""

    code = "job.cancelled"


class CheckpointTooLarge(MeshError):
    """An agent saves more of its work than a node keeps for it."""

    code = "checkpoint.too_large"


class BoundReached(MeshError):
    """What is to be handed on doesn't fit into what an award gave; subclasses say which."""

    code = "bounds.reached"


class HopsReached(BoundReached):
    """Work may have no broker further down: the job's limit of depth is reached."""

    code = "bounds.hops"


class SubtasksReached(BoundReached):
    """No more sub-tasks may be handed on under an award."""

    code = "bounds.subtasks"


class TokensReached(BoundReached):
    """More model tokens were used, or are to be, than an award gave."""

    code = "bounds.tokens"


class BudgetReached(BoundReached):
    """Less money is left under an award than is to be handed on."""

    code = "bounds.budget"


class DeadlineReached(BoundReached):
    """No time is left under an award."""

    code = "bounds.deadline"


class JobFailed(MeshError):
    """A job ended without its outputs.

    Attributes:
        job: Its id.
        state: ``failed`` or ``cancelled``.
        reason: Stable dotted name of what ended it.
    """

    code = "job.failed"

    def __init__(
        self,
        message: str,
        *,
        job: str = "",
        state: str = "failed",
        reason: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.job = job
        self.state = state
        self.reason = reason


def reasons(group: BaseExceptionGroup[BaseException]) -> str:
    """Return what the exceptions in ``group`` say, one after the other."""
    told = [
        reasons(exc) if isinstance(exc, BaseExceptionGroup) else f"{type(exc).__name__}: {exc}"
        for exc in group.exceptions
    ]
    return "; ".join(told)
