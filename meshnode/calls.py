"""What one run of an agent is told beside its input, and what it may ask of its node.

What an agent hands on is bounded by the award that it works under: see docs/delegation.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from meshnode.errors import AgentError
from protocol.graph import TaskGraph

#: What JSON can hold.  Agents take and return these; on the wire they travel as
#: RFC 8785 bytes.
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, slots=True)
class Left:
    """What a call may still have others do.

    Attributes:
        cost_mc: Of its award's price.
        subtasks: Awards, with those that they are followed by further down.
        hops: Brokers below each other, this node among them.
        tokens: Model tokens that may still be used, by this call too; None for any number.
    """

    cost_mc: int
    subtasks: int
    hops: int
    tokens: int | None = None


class Work(Protocol):
    """A task graph in the making, such as :class:`meshnode.TaskGraph`."""

    def build(self) -> TaskGraph:
        """Return the graph, its shape checked."""


class Handover(Protocol):
    """How a node has work done that an agent hands on."""

    async def left(self) -> Left:
        """Return what may still be handed on under the award."""

    async def tokens(self) -> int | None:
        """Return this call's share of the model tokens left; None for any number."""

    async def run(
        self,
        work: Work,
        inputs: Mapping[str, JsonValue],
        *,
        key: str,
        budget_mc: int | None,
        deadline_s: float,
    ) -> dict[str, JsonValue]:
        """Have ``work`` done within what is left, and return its outputs."""


class Checkpoint(Protocol):
    """Where a node keeps what an agent saves of one call's work."""

    @property
    def saved(self) -> bytes | None:
        """What was saved last."""

    async def save(self, data: bytes) -> None:
        """Keep ``data`` in place of what was saved before."""


@dataclass(frozen=True, slots=True)
class AgentCall:
    """What one run of an agent is told beside its input, and what it may ask of its node.

    Attributes:
        idempotency_key: ``job/subtask/batch/number`` of this item: the same for every retry
            of the same work, at whatever node, and of nothing else; pass it on to side
            effects that must happen once.
        deadline_s: When the run is stopped, on Trio's clock.
        traceparent: W3C trace context, or empty.
        label: Secrecy and taint of the input, as text for logs.
        handover: How it hands work on; None where no award is above it.
        checkpoint: Where it saves its work; likewise.
    """

    idempotency_key: str
    deadline_s: float
    traceparent: str = ""
    label: str = ""
    handover: Handover | None = field(default=None, compare=False, repr=False)
    checkpoint: Checkpoint | None = field(default=None, compare=False, repr=False)

    @property
    def saved(self) -> bytes | None:
        """What was saved last of this call's work; None if nothing was.

        The same work begun again, because its node had been away, finds it at that node.
        """
        return None if self.checkpoint is None else self.checkpoint.saved

    async def save(self, data: bytes) -> None:
        """Save how far the work is; durable when it returns, and deleted when the award ends.

        A call that is under no award saves nothing.

        Args:
            data: What the agent goes on from, 1 MiB at most.

        Raises:
            CheckpointTooLarge: It is more; or more than 16 MiB with the award's other items.
            StoreError: The disk doesn't take it; what was saved before stays.
        """
        if self.checkpoint is not None:
            await self.checkpoint.save(data)

    async def left(self) -> Left:
        """Return what may be handed on: nothing, unless the job's owner lets it."""
        return Left(0, 0, 0) if self.handover is None else await self.handover.left()

    async def tokens(self) -> int | None:
        """Return how many model tokens this call may use, read and written together.

        That is its share of what its award has left, None for any number.
        """
        return None if self.handover is None else await self.handover.tokens()

    async def hand_on(
        self,
        work: Work,
        inputs: Mapping[str, JsonValue] | None = None,
        *,
        key: str = "",
        budget_mc: int | None = None,
        deadline_s: float = math.inf,
    ) -> dict[str, JsonValue]:
        """Have a part of the work done by other nodes, and return its outputs.

        It is a job of this node, paid out of what this call earns, and bounded by what its
        award gave.  Handed on twice under one key it is one job, after a crash too; it is
        cancelled when the call ends.

        Args:
            work: A graph.
            inputs: Of the graph, by name.
            key: By which it is known again in this call; by default what is handed on.
            budget_mc: Most to spend; all that is left unless said otherwise.
            deadline_s: On Trio's clock; no later than the call's own.

        Raises:
            MeshError: With a code ``bounds.…`` if it doesn't fit into what is left;
                otherwise as for any job, such as ``job.failed``.
        """
        if self.handover is None:
            raise AgentError("this call is not under an award: nothing can be handed on")
        name = f"{self.idempotency_key.rpartition('/')[2]}/{key}" if key else ""
        return await self.handover.run(
            work,
            inputs or {},
            key=name,
            budget_mc=budget_mc,
            deadline_s=min(deadline_s, self.deadline_s),
        )
