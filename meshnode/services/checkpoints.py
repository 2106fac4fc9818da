"""What agents save of long work, so that it goes on from there when their node is back.

A checkpoint is the agent's own bytes: nobody else reads them, and they never leave the
node.  Only the newest of each item of an award is kept, from its commit on until the award
ends; the same award begun again after a restart finds it, at this node alone.
"""

from collections.abc import Container
from typing import Final

from meshnode.errors import AgentError, CheckpointTooLarge, StoreError
from meshnode.ports import Delete, Emit, Put, Store, Write
from meshnode.services.context import Context
from meshnode.services.execution import Execution

#: Table: award hash/number of the item -> what its agent saved.
CHECKPOINTS: Final = "checkpoint"
#: Table: award hash -> items that may have one; so that none need be read to be deleted.
CHECKPOINTED: Final = "checkpointed"
#: Of one item.
CHECKPOINT_BYTES_MAX: Final = 1024 * 1024
#: Of all items of an award.
AWARD_BYTES_MAX: Final = 16 * 1024 * 1024
#: Awards whose checkpoints are looked through at a start.
_AWARDS_MAX: Final = 1_000_000


class Checkpoints:
    """The checkpoints of this node's agents."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._emit = context.emit

    def of(self, execution: Execution, number: int) -> "Checkpoint":
        """Return where the agent saves its work at one item of an award."""
        return Checkpoint(self._store, execution, number, emit=self._emit)

    async def load(self, execution: Execution) -> None:
        """Find what was saved before a restart.

        Raises:
            StoreError: It can't be read.
        """
        name = execution.name.hex()
        counted = await self._store.read(CHECKPOINTED, name)
        for number in range(int(counted or b"0")):
            data = await self._store.read(CHECKPOINTS, _key(name, number))
            if data is not None:
                execution.saved[number] = data
        if execution.saved:
            self._emit("award.went_on", award=name, items=len(execution.saved))

    async def forget(self, unfinished: Container[bytes]) -> None:
        """Delete what was saved for awards that are over: they lapsed while the node was off.

        What the disk doesn't let go now is tried again at the next start.
        """
        try:
            for name, raw in await self._store.scan(CHECKPOINTED, count_max=_AWARDS_MAX):
                if bytes.fromhex(name) not in unfinished:
                    await self._store.commit(*_deletes(name, int(raw)))
        except StoreError as exc:
            self._emit("award.kept", why=str(exc))


class Checkpoint:
    """See :class:`meshnode.ports.Checkpoint`."""

    def __init__(self, store: Store, execution: Execution, number: int, *, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._execution = execution
        self._number = number

    @property
    def saved(self) -> bytes | None:
        """What was saved last, now or before a restart."""
        return self._execution.saved.get(self._number)

    async def save(self, data: bytes) -> None:
        """Keep ``data`` in place of what was saved before; durable when it returns.

        Raises:
            CheckpointTooLarge: It has more bytes than one may, or all of the award together.
            AgentError: The call is over.
            StoreError: The disk doesn't take it; what was saved before stays.
        """
        execution, number = self._execution, self._number
        if len(data) > CHECKPOINT_BYTES_MAX:
            raise CheckpointTooLarge(
                f"a checkpoint of {len(data)} bytes; {CHECKPOINT_BYTES_MAX} are the most",
                hint="save where the data is, and not the data",
            )
        others = sum(len(one) for item, one in execution.saved.items() if item != number)
        if others + len(data) > AWARD_BYTES_MAX:
            raise CheckpointTooLarge(
                f"the checkpoints of an award have {AWARD_BYTES_MAX} bytes at the most",
                hint="save less for each item",
            )
        if execution.is_over:
            raise AgentError("this call is over: nothing of it can be saved any more")
        name = execution.name.hex()
        count = max([*execution.saved, number]) + 1
        writes: list[Write] = [Put(CHECKPOINTS, _key(name, number), bytes(data))]
        before = execution.saved.get(number)
        if before is None:
            writes.append(Put(CHECKPOINTED, name, str(count).encode()))
        execution.saved[number] = bytes(data)
        try:
            await self._store.commit(*writes)
        except StoreError:
            execution.saved.pop(number)
            if before is not None:
                execution.saved[number] = before
            raise
        if before is None:  # an agent may save often: that it does is told once
            self._emit("award.saved", award=name, item=number, size=len(data))


def ended(execution: Execution) -> list[Write]:
    """Return what deletes the checkpoints of an award, with its result."""
    if not execution.saved:
        return []
    return _deletes(execution.name.hex(), max(execution.saved) + 1)


def _deletes(name: str, count: int) -> list[Write]:
    return [
        *(Delete(CHECKPOINTS, _key(name, number)) for number in range(count)),
        Delete(CHECKPOINTED, name),
    ]


def _key(name: str, number: int) -> str:
    return f"{name}/{number}"
