"""Opening the file of a store: locked, checked, migrated, or refused with a reason.

SQLite's own locks let a second process in, and two writers of one journal would be
a fork.  So an flock on ``<path>.lock`` is held for as long as the store is open; the
kernel releases it when the process dies, however it dies.
"""

import errno
import fcntl
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshnode.adapters.sqlite_migrations import migrate
from meshnode.errors import StoreError

STORE_BYTES_MAX: Final = 64 * 1024**3
#: Up to this size the file is checked page by page when it is opened.
CHECK_BYTES_MAX: Final = 64 * 1024 * 1024
BUSY_TIMEOUT_S: Final = 5.0
#: No SQLite database is shorter than one page of the smallest size.
_PAGE_BYTES_MIN: Final = 512

#: Results of SQLite after which nobody knows what is on the disk.
FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_DAMAGED = "is damaged or not a store", "move it away or restore a backup"
_READ_ONLY = "can't be written", "check that its folder exists and who owns it"
_FULL = "can't grow: the disk is full", "free some space, or raise the store's limit"
_LOCKED = "is locked by another program", "close that program"
_TROUBLE: Final = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


@dataclass(slots=True)
class StoreFile:
    """What is open while the store is: three connections and the lock.

    Attributes:
        path: Of the database.
        writer: For the writer's thread.
        reader: For reading in a thread.
        glance: For reading one row at once, on the event loop's own thread; never waits.
        lock: Descriptor.
    """

    path: Path
    writer: sqlite3.Connection
    reader: sqlite3.Connection
    glance: sqlite3.Connection
    lock: int

    def close(self) -> None:
        """Close the connections (the last one folds the WAL in), then let others in."""
        try:
            self.glance.close()
            self.reader.close()
            self.writer.close()
        finally:
            os.close(self.lock)


def open_file(path: Path, bytes_max: int) -> StoreFile:
    """Open, lock, check and migrate the store at ``path`` (in a worker thread).

    Raises:
        StoreError: It can't be used; the message names the path and the reason.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(path)
    except OSError as error:
        raise trouble(path, error) from error
    opened: list[sqlite3.Connection] = []
    try:
        _refuse_remains(path)
        # Made by us and not by SQLite so that the owner alone can read it; the WAL
        # inherits the mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        opened.append(_connect(path))
        _prepare(opened[0], path, bytes_max)
        for wait_s in (BUSY_TIMEOUT_S, 0.0):
            opened.append(_connect(path, wait_s))
            opened[-1].execute("PRAGMA query_only = ON")
        writer, reader, glance = opened
        return StoreFile(path, writer, reader, glance, lock)
    except BaseException as error:
        for connection in opened:
            connection.close()
        os.close(lock)
        if isinstance(error, (sqlite3.Error, OSError)):
            raise trouble(path, error) from error
        raise


def _refuse_remains(path: Path) -> None:
    """Refuse what SQLite would silently take for an empty database, and overwrite."""
    size = path.stat().st_size if path.exists() else 0
    wal = path.with_name(path.name + "-wal")
    headless = size == 0 and wal.exists() and wal.stat().st_size > 0
    # With a rollback journal beside it, SQLite itself knows how to mend a short file.
    stump = 0 < size < _PAGE_BYTES_MIN and not path.with_name(path.name + "-journal").exists()
    if headless or stump:
        raise StoreError(f"store {path} {_DAMAGED[0]}: cut short", hint=_DAMAGED[1])


def _connect(path: Path, wait_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    # Any worker thread may run a statement, one at a time (the limiters see to that).
    connection = sqlite3.connect(
        path, timeout=wait_s, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, bytes_max: int) -> None:
    if path.stat().st_size <= CHECK_BYTES_MAX:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(f"store {path} {_DAMAGED[0]}: {verdict}", hint=_DAMAGED[1])
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection, path)
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    connection.execute(f"PRAGMA max_page_count = {max(1, bytes_max // page_bytes)}")


def _lock(path: Path) -> int:
    """Return the descriptor that holds the lock of the store at ``path``."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StoreError(
            f"store {path} is in use by another node (process {holder})",
            hint=f"end it (`meshnode down --home {path.parent}`, or that process), or give this"
            " one its own home",
        ) from None
    except OSError:
        os.close(lock)
        raise
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock


def code(error: Exception) -> int | None:
    """Return SQLite's primary result code, or the errno."""
    if isinstance(error, sqlite3.Error):
        primary: int | None = getattr(error, "sqlite_errorcode", None)
        return None if primary is None else primary & 0xFF
    return error.errno if isinstance(error, OSError) else None


def trouble(path: Path, error: Exception) -> StoreError:
    """Say what ``error`` means for the store at ``path``."""
    if isinstance(error, OSError) and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        what, hint = _READ_ONLY
    else:
        what, hint = _TROUBLE.get(code(error) or 0, ("failed", "check the disk"))
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return StoreError(f"store {path} {what}: {reason}", hint=hint)
