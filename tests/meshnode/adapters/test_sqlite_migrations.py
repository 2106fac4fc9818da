"""Upgrades keep what a store holds, whatever happens in between."""

import hashlib
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from meshnode.adapters.sqlite_migrations import MIGRATIONS, backup_path, migrate
from meshnode.adapters.sqlite_store import open_store
from meshnode.errors import StoreError
from meshnode.ports import Append

ROOT: Final = Path(__file__).parents[3]

#: The layout of version 1 as meshnode 0.1 wrote it, by hand and not by our steps: what
#: is out there doesn't change when this program does.
VERSION_1: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE cell (tbl TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
           PRIMARY KEY (tbl, key));
CREATE TABLE entry (log TEXT NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
           PRIMARY KEY (log, seq));
INSERT INTO cell VALUES ('award', 'a1', x'c0'), ('award', 'a2', x'c1');
INSERT INTO entry VALUES ('job/1', 0, x'00'), ('job/1', 1, x'01');
PRAGMA user_version = 1;
"""
#: Released steps, which are never edited.
RELEASED: Final = ("e432cb354c6d",)

MORE: Final = ("ALTER TABLE cell ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0",)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store that version 1 wrote."""
    path = tmp_path / "node.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(VERSION_1)
    database.close()
    path.chmod(0o600)
    return path


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def rows(path: Path) -> tuple[int, list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Return the version of the store, its cells and its entries."""
    database = opened(path)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    cells = database.execute("SELECT tbl, key, value FROM cell ORDER BY key").fetchall()
    entries = database.execute("SELECT log, seq, value FROM entry ORDER BY seq").fetchall()
    database.close()
    return version, cells, entries


def test_released_steps_are_as_they_were() -> None:
    made = [hashlib.sha256("\0".join(step).encode()).hexdigest()[:12] for step in MIGRATIONS]
    assert tuple(made[: len(RELEASED)]) == RELEASED, "add a step instead"


async def test_a_store_of_the_first_version_is_read_and_goes_on(old: Path) -> None:
    async with open_store(old) as store:
        assert await store.scan("award") == [("a1", b"\xc0"), ("a2", b"\xc1")]
        assert await store.log("job/1") == [b"\x00", b"\x01"]
        await store.commit(Append("job/1", 2, b"\x02"))


def test_an_upgrade_keeps_everything_and_a_copy_of_what_was(old: Path) -> None:
    _, cells, entries = before = rows(old)
    database = opened(old)
    migrate(database, old, [*MIGRATIONS, MORE])
    assert database.execute("SELECT at_ms FROM cell").fetchall() == [(0,), (0,)]
    database.close()
    assert rows(old) == (len(MIGRATIONS) + 1, cells, entries)
    kept = backup_path(old, 1)
    assert rows(kept) == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    # Nothing to do, nothing done.
    kept.unlink()
    database = opened(old)
    migrate(database, old, [*MIGRATIONS, MORE])
    database.close()
    assert not kept.exists()


def test_what_the_log_beside_the_store_holds_is_in_the_copy(old: Path) -> None:
    writer = opened(old)
    writer.execute("INSERT INTO cell VALUES ('award', 'a3', x'c2')")
    assert old.with_name("node.db-wal").stat().st_size > 0
    database = opened(old)
    migrate(database, old, [*MIGRATIONS, MORE])
    database.close()
    writer.close()
    assert len(rows(backup_path(old, 1))[1]) == 3


def test_steps_follow_one_another(tmp_path: Path) -> None:
    first = ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)")
    second = ("ALTER TABLE a ADD COLUMN y", "UPDATE a SET y = x + 1")
    third = ("UPDATE a SET y = y * 10",)
    path = tmp_path / "db"
    database = opened(path)
    migrate(database, path, [first])
    assert not list(tmp_path.glob("*.bak")), "there was nothing to keep"
    migrate(database, path, [first, second, third])
    assert database.execute("PRAGMA user_version").fetchone() == (3,)
    assert database.execute("SELECT x, y FROM a").fetchall() == [(1, 20)]
    database.close()


def test_a_step_that_fails_leaves_the_version_before_it(old: Path) -> None:
    before = rows(old)
    broken = ("DELETE FROM cell", "INSERT INTO nowhere VALUES (1)")
    database = opened(old)
    with pytest.raises(StoreError, match="can't be upgraded to version 2") as caught:
        migrate(database, old, [*MIGRATIONS, broken])
    database.close()
    assert str(backup_path(old, 1)) in caught.value.hint
    assert rows(old) == rows(backup_path(old, 1)) == before


def test_without_room_for_the_copy_nothing_is_changed(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows(old)
    backup_path(old, 1).mkdir()  # stands for a disk that doesn't take it
    database = opened(old)
    with pytest.raises(StoreError, match="can't be copied") as caught:
        migrate(database, old, [*MIGRATIONS, MORE])
    database.close()
    assert caught.value.hint
    assert rows(old) == before
    assert not [path for path in old.parent.iterdir() if path.name.endswith(".new")]


async def test_a_newer_store_names_the_older_copy(old: Path) -> None:
    database = opened(old)
    migrate(database, old, [*MIGRATIONS, MORE])
    database.close()
    with pytest.raises(StoreError, match="has version 2, this program knows up to 1") as caught:
        async with open_store(old):
            pass
    assert str(backup_path(old, 1)) in caught.value.hint


async def test_a_kill_in_the_middle_leaves_the_store_as_it_was(old: Path) -> None:
    before = rows(old)
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.meshnode.adapters.migrating_child", str(old)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
        child.kill()
        child.wait()
        child.stdout.close()
        assert rows(old) == before
    database = opened(old)
    migrate(database, old, [*MIGRATIONS, MORE])
    database.close()
    assert rows(old)[1:] == before[1:]
