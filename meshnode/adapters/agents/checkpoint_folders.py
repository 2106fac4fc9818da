"""Folders of commands' checkpoints: each is locked by the node that made it, while it lives.

A node that is killed takes none of its folders away.  Its locks go with it, whatever ended
it, so the next node that starts here can tell such a folder from one of a node that runs:
by process ids it couldn't, since they are used again, and are others in each container.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "meshnode-checkpoint-"
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A folder may be swept away before it is locked: then another is made.
_TRIES_MAX: Final = 8


class Folder:
    """A new folder of this node's.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        """Make it.

        Raises:
            OSError: The disk doesn't let it.
        """
        for _ in range(_TRIES_MAX):
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            try:
                self._lock = os.open(self.path, _OPEN)
            except FileNotFoundError:
                continue
            if _locks(self._lock) and _is_there(self.path, self._lock):
                return
            os.close(self._lock)
        raise FileNotFoundError("each folder was taken away at once")

    def remove(self) -> None:
        """Take it away, with all that the command left in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep() -> int:
    """Take away what nodes left that are no more; return how many folders.

    What can't be looked at, or is another user's, stays.
    """
    try:
        left = list(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))
    except OSError:
        return 0
    return sum(_is_swept(path) for path in left)


def _is_swept(path: Path) -> bool:
    try:
        lock = os.open(path, _OPEN)
    except OSError:
        return False
    try:
        if os.fstat(lock).st_uid != os.getuid() or not _locks(lock):
            return False
        shutil.rmtree(path, ignore_errors=True)
        return True
    finally:
        os.close(lock)


def _locks(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_there(path: Path, folder: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(folder))
    except FileNotFoundError:
        return False
