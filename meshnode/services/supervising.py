"""The last line of defence around work that a node does beside what it was asked for.

Golds, probes and checks of examples each are tasks of their own, and most of what they handle
was written by others.  A bug that one of them brings out must end that task alone: in Trio an
exception that nobody takes would end the node, and the next one after a restart.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

from meshnode.errors import reasons
from meshnode.ports import Emit

A = TypeVarTuple("A")


async def alone(emit: Emit, task: Callable[[*A], Awaitable[object]], *args: *A) -> None:
    """Run a task to its end; tell of a bug that ends it, and end nothing else.

    What a task expects to go wrong it sees to itself.

    Args:
        emit: Tells (``task.bug``).
        task: Named by its function.
        args: Handed to it.
    """
    try:
        await task(*args)
    except* Exception as group:  # noqa: BLE001 - told: see the module
        emit("task.bug", task=task.__qualname__, why=reasons(group))
