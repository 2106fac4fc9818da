"""The Store port on SQLite: one file, one writer, many commits to one fsync.

Callers leave their writes in a queue; a thread of the store's own takes all that is
waiting, applies it in one transaction and wakes the callers once the commit is on the
disk (WAL, ``synchronous=FULL``).  Whoever arrives meanwhile makes up the next group, so
the fsync is shared exactly when it is scarce.  (The thread is our own because Trio's way
to one and back goes three times round the scheduler, which costs as much as the fsync.)

Single rows are read on the event loop's own thread, over a connection that never
waits for a lock and without letting others run: most reads are of one row and find it in
memory.

A commit belongs to the store from the moment it is queued: cancelling its caller
doesn't take it back, and closing the store finishes it.  An ``Append`` that doesn't
fit is found before anything of its commit is written, so it fails alone.  When a
whole group fails (the disk is full), each commit is tried again by itself: a small
one may still fit.

After an I/O error the store stops taking commits: what a failed fsync left on the
disk is unknown, and a later one may succeed without having written it.
"""

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeVar

import trio

from meshnode.adapters.sqlite_file import (
    FATAL,
    STORE_BYTES_MAX,
    StoreFile,
    code,
    open_file,
    trouble,
)
from meshnode.errors import StoreError
from meshnode.ports import (
    Add,
    Append,
    Delete,
    Once,
    Put,
    Write,
    check_table,
    check_text,
    check_write,
    read_sum,
)

T = TypeVar("T")

#: Commits that share one transaction at most, so that nobody waits for a crowd.
GROUP_MAX: Final = 512
_READ: Final = "SELECT value FROM cell WHERE tbl = ? AND key = ?"
#: The largest integer that SQLite can compare with.
_SEQ_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _DropLog:
    """Remove a log; internal, because the port has a method for it."""

    log: str


@dataclass(slots=True, eq=False)
class _Commit:
    """Writes that were handed over, and how they fared."""

    writes: Sequence[Write | _DropLog]
    done: trio.Event = field(default_factory=trio.Event)
    error: StoreError | None = None


class SqliteStore:
    """See :class:`meshnode.ports.Store`; made by :func:`open_store`."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        # Each holds its caller, so there are never more than there are tasks.
        self._waiting: deque[_Commit] = deque()
        self._writing = False
        self._work: SimpleQueue[list[_Commit] | None] = SimpleQueue()
        self._thread = Thread(target=self._write_groups, name="store", daemon=True)
        self._trio = trio.lowlevel.current_trio_token()
        self._read_limiter = trio.CapacityLimiter(1)
        self._closing = False
        self._closed = trio.Event()
        self._idle = trio.Event()
        self._stopped: StoreError | None = None
        self._thread.start()

    async def commit(self, *writes: Write) -> None:
        """Apply all ``writes`` or none; see the port."""
        for write in writes:
            check_write(write)
        if not writes:
            await trio.lowlevel.checkpoint()
            return
        await self._hand_over(writes)

    async def read(self, table: str, key: str) -> bytes | None:
        """Return ``table[key]`` as of the last commit, or None."""
        check_table(table)
        check_text("key", key)

        def look(reader: sqlite3.Connection) -> list[tuple[bytes]]:
            return reader.execute(_READ, (table, key)).fetchall()

        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise self._gone()
        try:
            # A row takes microseconds, the way to a thread and back a hundred of them.
            rows = look(self._file.glance)
        except sqlite3.OperationalError:
            rows = await self._query(look)  # such as a lock, which a thread can wait for
        except sqlite3.Error as error:
            raise trouble(self._file.path, error) from error
        return bytes(rows[0][0]) if rows else None

    async def scan(
        self, table: str, prefix: str = "", *, count_max: int = 10_000
    ) -> Sequence[tuple[str, bytes]]:
        """Return the entries of ``table`` whose key starts with ``prefix``, in key order."""
        check_table(table)

        def collect(reader: sqlite3.Connection) -> list[tuple[str, bytes]]:
            # SQLite compares text by its UTF-8 bytes, which is code point order, so the
            # keys of a prefix stand together and the first stranger ends them.
            found: list[tuple[str, bytes]] = []
            cursor = reader.execute(
                "SELECT key, value FROM cell WHERE tbl = ? AND key >= ? ORDER BY key LIMIT ?",
                (table, prefix, max(0, min(count_max, _SEQ_MAX))),
            )
            for key, value in cursor:
                if not key.startswith(prefix):
                    break
                found.append((key, bytes(value)))
            cursor.close()  # an open cursor would pin the WAL
            return found

        return await self._query(collect)

    async def log(self, log: str, *, start: int = 0) -> Sequence[bytes]:
        """Return the entries of ``log`` from ``start`` on."""
        check_text("log", log)
        first = max(0, min(start, _SEQ_MAX))
        sql = "SELECT value FROM entry WHERE log = ? AND seq >= ? ORDER BY seq"
        rows = await self._query(lambda reader: reader.execute(sql, (log, first)).fetchall())
        return [bytes(value) for (value,) in rows]

    async def drop_log(self, log: str) -> None:
        """Delete a log with all its entries; durable when it returns."""
        check_text("log", log)
        await self._hand_over((_DropLog(log),))

    async def aclose(self) -> None:
        """Finish pending commits and release the file; idempotent."""
        # Bounded by the fsyncs of what is queued; half-closed would be worse than late.
        with trio.CancelScope(shield=True):
            if self._closing:
                await self._closed.wait()
                return
            self._closing = True
            if self._writing:
                await self._idle.wait()
            self._work.put(None)
            async with self._read_limiter:  # a query that still runs ends first
                await trio.to_thread.run_sync(self._release)
            self._closed.set()

    def _release(self) -> None:
        self._thread.join()
        self._file.close()

    async def _hand_over(self, writes: Sequence[Write | _DropLog]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise self._gone()
        commit = _Commit(writes)
        self._waiting.append(commit)
        if not self._writing:
            self._write_next()
        await commit.done.wait()
        if commit.error is not None:
            raise commit.error

    def _gone(self) -> StoreError:
        return StoreError(f"store {self._file.path} is closed", hint="open it again")

    async def _query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def ask() -> T:
            # Looked at inside the limiter: the store may close while this waits.
            if self._closing:
                raise self._gone()
            return question(self._file.reader)

        try:
            return await trio.to_thread.run_sync(ask, limiter=self._read_limiter)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise trouble(self._file.path, error) from error

    def _write_next(self) -> None:
        """Have the thread write what waits; there is something, and it is idle."""
        waiting = self._waiting
        self._writing = True
        self._work.put([waiting.popleft() for _ in range(min(len(waiting), GROUP_MAX))])

    def _written(self, group: list[_Commit]) -> None:
        """A group has been dealt with (called on Trio's thread)."""
        for commit in group:
            commit.done.set()
        self._writing = False
        if self._waiting:
            self._write_next()
        else:
            self._idle.set()
            self._idle = trio.Event()

    def _write_groups(self) -> None:
        """Commit group after group until the store is closed (in its thread)."""
        while (group := self._work.get()) is not None:
            try:
                self._apply(group)
            except Exception as error:  # noqa: BLE001 - a bug here; reported to every caller
                self._report_bug(group, error)
            with suppress(trio.RunFinishedError):  # nobody is left to be told
                self._trio.run_sync_soon(self._written, group)

    def _report_bug(self, group: list[_Commit], error: Exception) -> None:
        """Take no more commits: what the bug left behind is unknown."""
        self._stopped = StoreError(f"store {self._file.path} failed: {error!r}")
        for commit in group:
            commit.error = self._stopped

    def _apply(self, group: list[_Commit]) -> None:
        """Apply ``group`` in one transaction; each commit learns its own fate (in a thread)."""
        if self._stopped is None:
            try:
                _write(self._file.writer, group)
            except (sqlite3.Error, OSError) as error:
                self._fail(group, error)
            else:
                return
        if self._stopped is not None:
            for commit in group:
                commit.error = self._stopped
        elif len(group) > 1:
            for commit in group:
                commit.error = None
                self._apply([commit])

    def _fail(self, group: list[_Commit], error: sqlite3.Error | OSError) -> None:
        refusal = trouble(self._file.path, error)
        if code(error) in FATAL:
            self._stopped = StoreError(
                f"{refusal}; it takes no more commits",
                hint=refusal.hint or "check the disk, then start the node again",
            )
        for commit in group:
            commit.error = refusal


@asynccontextmanager
async def open_store(
    path: Path, *, bytes_max: int = STORE_BYTES_MAX
) -> AsyncIterator[SqliteStore]:
    """Open the store at ``path`` for the length of a block, making it if need be.

    Args:
        path: The database file.  Its folder is made, for the owner only, if missing.
        bytes_max: The file grows no further; commits that need more are refused.

    Raises:
        StoreError: Damaged, not a store, of a newer version, unwritable, or in use.
    """
    file = await trio.to_thread.run_sync(open_file, path, bytes_max)
    store = SqliteStore(file)
    try:
        yield store
    finally:
        await store.aclose()


# --- one transaction (in the writer's thread) -------------------------------------


def _write(connection: sqlite3.Connection, group: Sequence[_Commit]) -> None:
    """Apply every commit of ``group`` that fits; the others get their error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for commit in group:
            commit.error = _misfit(connection, commit.writes)
            if commit.error is None:
                for write in commit.writes:
                    _write_one(connection, write)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _misfit(
    connection: sqlite3.Connection, writes: Sequence[Write | _DropLog]
) -> StoreError | None:
    """Return why an append of ``writes`` doesn't fit, None if all do."""
    after: dict[str, int] = {}
    for write in writes:
        match write:
            case Append(log, seq, _):
                tail = after.get(log, -1)
                if tail < 0:
                    sql = "SELECT seq FROM entry WHERE log = ? ORDER BY seq DESC LIMIT 1"
                    row = connection.execute(sql, (log,)).fetchone()
                    tail = 0 if row is None else row[0] + 1
                if seq != tail:
                    return StoreError(
                        f"entry {seq} of log {log!r} doesn't fit: the next one is {tail}",
                        hint="read the log again: someone else has written to it",
                    )
                after[log] = tail + 1
            case Add() | Once():
                if (error := _no_sum(connection, write)) is not None:
                    return error
            case Put() | Delete() | _DropLog():
                pass
    return None


def _no_sum(connection: sqlite3.Connection, write: Add | Once) -> StoreError | None:
    """Return why what is there can't be added to, None if it can."""
    for one in (write,) if isinstance(write, Add) else write.writes:
        if isinstance(one, Add):
            try:
                read_sum(_cell(connection, one.table, one.key))
            except StoreError as error:
                return error
    return None


def _cell(connection: sqlite3.Connection, table: str, key: str) -> bytes | None:
    row = connection.execute(_READ, (table, key)).fetchone()
    return None if row is None else bytes(row[0])


def _write_one(connection: sqlite3.Connection, write: Write | _DropLog) -> None:
    match write:
        case Put(table, key, value):
            sql = "INSERT OR REPLACE INTO cell (tbl, key, value) VALUES (?, ?, ?)"
            connection.execute(sql, (table, key, value))
        case Delete(table, key):
            connection.execute("DELETE FROM cell WHERE tbl = ? AND key = ?", (table, key))
        case Append(log, seq, value):
            sql = "INSERT INTO entry (log, seq, value) VALUES (?, ?, ?)"
            connection.execute(sql, (log, seq, value))
        case Add(table, key, amount):
            total = read_sum(_cell(connection, table, key)) + amount
            _write_one(connection, Put(table, key, b"%d" % total))
        case Once(table, key, value, writes):
            if _cell(connection, table, key) is None:
                for inner in (Put(table, key, value), *writes):
                    _write_one(connection, inner)
        case _DropLog(log):
            connection.execute("DELETE FROM entry WHERE log = ?", (log,))
