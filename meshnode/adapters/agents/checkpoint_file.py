"""A command's checkpoint: a file that the node looks after while the command runs.

The command finds what it saved before in the file that ``MESHNODE_CHECKPOINT`` names, if
there is one, and saves by putting another file in its place (``os.replace``, ``mv``): so
what the node reads is whole, whenever it looks.

It is the command's folder: what the node reads there is a file and nothing else, never what
a link points to, or what never ends.
"""

import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import outcome
import trio

from meshnode.adapters.agents.checkpoint_folders import Folder
from meshnode.errors import AgentError, MeshError, StoreError
from meshnode.ports import AgentCall

T = TypeVar("T")

#: Of the environment variable that names the file.
VARIABLE: Final = "MESHNODE_CHECKPOINT"
#: The file is looked at this often, seconds.
_LOOK_S: Final = 0.5
#: More is never read of it.
_BYTES_MAX: Final = 1024 * 1024


async def with_checkpoint(call: AgentCall, work: Callable[[str], Awaitable[T]]) -> T:
    """Return what ``work`` does with the path of the file; meanwhile look after that.

    The path is empty where the call has no checkpoint.

    Raises:
        AgentError: The file can't be made, or read.
        CheckpointTooLarge: It holds more than is kept.
    """
    if call.checkpoint is None:
        return await work("")
    folder = await _folder()
    path = folder.path / "checkpoint"
    trouble: list[MeshError] = []

    async def look_after() -> None:
        try:
            await _watch(path, call)
        except MeshError as error:
            trouble.append(error)
            nursery.cancel_scope.cancel()

    try:
        if call.saved is not None:
            await _write(path, call.saved)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_after)
            # Captured, so that a failure leaves the nursery as itself and not in a group.
            done = await outcome.acapture(work, str(path))
            nursery.cancel_scope.cancel()
        if trouble:
            raise trouble[0]
        return done.unwrap()
    finally:
        with trio.CancelScope(shield=True):  # there may be much that the command left
            await trio.to_thread.run_sync(folder.remove)


async def _folder() -> Folder:
    try:
        return await trio.to_thread.run_sync(Folder)
    except OSError as error:
        raise _not_made(error) from error


async def _write(path: Path, data: bytes) -> None:
    try:
        await trio.Path(path).write_bytes(data)
    except OSError as error:
        raise _not_made(error) from error


def _not_made(error: OSError) -> AgentError:
    return AgentError(
        f"the checkpoint's file can't be made: {error}", hint="is there room in TMPDIR?"
    )


async def _watch(path: Path, call: AgentCall) -> None:
    """Save what is in the file, whenever another is there, until cancelled."""
    seen = _stamp(path)
    while True:
        await trio.sleep(_LOOK_S)
        stamp = _stamp(path)
        if stamp is None or stamp == seen:
            continue
        try:
            data = await trio.to_thread.run_sync(_read, path)
        except OSError as error:
            raise AgentError(f"the checkpoint can't be read: {error}") from error
        if data is None:
            continue  # taken away again since
        try:
            await call.save(data)
        except StoreError:
            continue  # a disk that is full now: what was saved before stays
        seen = stamp


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with each file that is put there; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> bytes | None:
    """Return what is in the file, or None if there is none any more.

    What was a file when it was looked at may be a link by now, or a pipe, and to open one
    of those waits for whoever writes.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        with open(opened, "rb", closefd=False) as file:
            return file.read(_BYTES_MAX + 1)
    finally:
        os.close(opened)
