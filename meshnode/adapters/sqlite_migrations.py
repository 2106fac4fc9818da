"""The versions of a store's layout, and the way from each to the next.

The version stands in the file itself (``user_version``).  A step is one transaction: a
process that is killed in the middle leaves the version before it, and the next start
takes the step again.  Before the first step of an upgrade the whole store is copied
beside itself, so that whoever goes back to the older program can take it along.

What stands in the rows is not this module's business: rows are msgpack maps whose
readers ignore fields that they don't know and have defaults for those that came later.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from meshnode.errors import StoreError

#: Step ``n`` takes a store from version ``n`` to ``n + 1``.  Never edit a step that
#: was released: add one.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        """CREATE TABLE cell (tbl TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
           PRIMARY KEY (tbl, key))""",
        """CREATE TABLE entry (log TEXT NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
           PRIMARY KEY (log, seq))""",
    ),
)


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    steps: Sequence[Sequence[str]] = MIGRATIONS,
) -> None:
    """Bring the store to the newest version, one transaction per step.

    Raises:
        StoreError: It is newer than this program, or another program's database; or an
            upgrade fails, and says where the store as it was is kept.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise StoreError(
            f"store {path} has version {version}, this program knows up to {len(steps)}",
            hint=_way_back(path, len(steps)),
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables > 0:
        raise StoreError(
            f"{path} is a database of another program", hint="use another home folder"
        )
    if version == len(steps):
        return
    kept = _back_up(connection, path, version) if version else None
    for number, step in enumerate(steps[version:], start=version + 1):
        try:
            _take(connection, step, number)
        except sqlite3.Error as error:
            if kept is None:
                raise
            raise StoreError(
                f"store {path} can't be upgraded to version {number}: {error}",
                hint=f"nothing is lost: it works on with the older meshnode, and {kept} is"
                " a copy of it",
            ) from error


def _take(connection: sqlite3.Connection, step: Sequence[str], number: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in step:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def backup_path(path: Path, version: int) -> Path:
    """Return where a store of ``version`` is kept when it is upgraded."""
    return path.with_name(f"{path.name}.v{version}.bak")


def _way_back(path: Path, version: int) -> str:
    kept = backup_path(path, version)
    older = f", or go back to {kept}, which is older" if kept.exists() else ""
    return f"install the newer meshnode{older}, or use another home folder"


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the whole store, WAL included, and make the copy durable; return where it is.

    Raises:
        StoreError: There is no room for it; nothing was changed.
    """
    kept = backup_path(path, version)
    aside = kept.with_name(f".{kept.name}.new")
    try:
        aside.unlink(missing_ok=True)  # left by a process that was killed at it
        # Made by us so that the owner alone can read it; SQLite takes an empty file.
        handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            connection.execute("VACUUM INTO ?", (str(aside),))
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.replace(kept)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StoreError(
            f"store {path} can't be copied to {kept} before it is upgraded: {error}",
            hint=f"free {path.stat().st_size} bytes there, and start again",
        ) from error
    return kept
