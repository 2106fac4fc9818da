"""What the SQLite store adds to the contract: real files, real kills, real refusals."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from meshnode.adapters import sqlite_store
from meshnode.adapters.sqlite_migrations import MIGRATIONS
from meshnode.adapters.sqlite_store import open_store
from meshnode.errors import StoreError
from meshnode.ports import Append, Delete, Put

ROOT = Path(__file__).parents[3]
LIMIT_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "store.sqlite"


async def refusal(path: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        async with open_store(path):
            pass
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return caught.value


# --- opening -----------------------------------------------------------------------


async def test_a_new_store_belongs_to_its_owner_alone(path: Path) -> None:
    async with open_store(path) as store:
        await store.commit(Put("t", "k", b"v"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(files) == {f"store.sqlite{end}" for end in ("", "-wal", "-shm", ".lock")}
    assert set(files.values()) == {0o600}


async def test_commits_are_synchronous_and_write_ahead(path: Path) -> None:
    async with open_store(path) as store:
        writer = store._file.writer
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_second_process_is_refused_and_told_who_holds_the_store(path: Path) -> None:
    program = f"""
import trio
from pathlib import Path
from meshnode.adapters.sqlite_store import open_store
from meshnode.errors import StoreError
async def main():
    try:
        async with open_store(Path({str(path)!r})):
            print("opened")
    except StoreError as error:
        print(error.line())
trio.run(main)
"""
    async with open_store(path):
        done = await trio.run_process(
            [sys.executable, "-c", program], cwd=ROOT, capture_stdout=True
        )
    said = done.stdout.decode()
    assert "is in use by another node" in said
    assert f"process {os.getpid()}" in said
    assert str(path) in said


async def test_a_newer_store_is_refused_untouched(path: Path) -> None:
    async with open_store(path) as store:
        await store.commit(Put("t", "k", b"v"))
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    before = path.read_bytes()
    error = await refusal(path)
    assert f"has version {len(MIGRATIONS) + 1}" in str(error)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    assert "another program" in str(await refusal(path))


@pytest.mark.parametrize("content", [b"not a database, but long enough to be one" * 50, b"x"])
async def test_a_file_that_is_no_database_is_refused_untouched(
    path: Path, content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert "damaged or not a store" in str(await refusal(path))
    assert path.read_bytes() == content


async def test_a_damaged_store_is_refused(path: Path) -> None:
    async with open_store(path) as store:
        for number in range(40):
            await store.commit(Put("t", f"{number:03}", bytes(1000)))
    content = bytearray(path.read_bytes())
    content[8192:20480] = Random(1).randbytes(12288)
    path.write_bytes(content)
    assert "damaged" in str(await refusal(path))


async def test_a_lost_database_beside_its_wal_is_refused_and_the_wal_kept(path: Path) -> None:
    async with open_store(path) as store:
        await store.commit(Put("t", "k", b"v"))
        wal = path.with_name(path.name + "-wal").read_bytes()
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(wal)
    assert "damaged or not a store" in str(await refusal(path))
    assert path.with_name(path.name + "-wal").read_bytes() == wal


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "can't be written" in str(await refusal(tmp_path / "file" / "store.sqlite"))


async def test_a_folder_that_takes_no_files_is_refused() -> None:
    # /proc refuses new files even from root, whom permission bits don't stop.
    assert "can't be written" in str(await refusal(Path("/proc/self/store.sqlite")))


async def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "can't be written" in str(await refusal(path))


async def test_a_refused_store_is_not_left_locked(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 100)
    await refusal(path)
    path.unlink()
    async with open_store(path) as store:
        await store.commit(Put("t", "k", b"v"))


# --- writing -----------------------------------------------------------------------


async def test_callers_share_transactions(path: Path) -> None:
    commits: list[str] = []
    async with open_store(path) as store:
        store._file.writer.set_trace_callback(
            lambda statement: commits.append(statement) if statement == "COMMIT" else None
        )
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(store.commit, Append(f"log{number}", 0, b""))
        assert 1 <= len(commits) <= 5


async def test_a_full_store_refuses_what_does_not_fit_and_keeps_the_rest(path: Path) -> None:
    outcome: dict[str, str] = {}

    async with open_store(path, bytes_max=256 * 1024) as store:

        async def put(key: str, size: int) -> None:
            try:
                await store.commit(Put("t", key, bytes(size)))
            except StoreError as error:
                outcome[key] = error.line()
            else:
                outcome[key] = "kept"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "small", 100)
            nursery.start_soon(put, "huge", 1024 * 1024)
            nursery.start_soon(put, "little", 100)
        assert outcome.pop("small") == outcome.pop("little") == "kept"
        assert f"store {path} can't grow" in outcome["huge"]
        assert "free some space" in outcome["huge"]
        assert [key for key, _ in await store.scan("t")] == ["little", "small"]
        await store.commit(Delete("t", "small"), Put("t", "next", bytes(100)))


async def test_after_a_disk_error_the_store_takes_no_more_commits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(path) as store:
        await store.commit(Put("t", "k", b"v"))

        def broken(*_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(sqlite_store, "_write", broken)
            with pytest.raises(StoreError, match="disk I/O error"):
                await store.commit(Put("t", "k", b"w"))
        with pytest.raises(StoreError, match="takes no more commits"):
            await store.commit(Put("t", "k", b"x"))
        assert await store.read("t", "k") == b"v"


async def test_a_bug_in_the_writer_is_told_to_every_caller_from_then_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise LookupError("a bug")

    with trio.fail_after(LIMIT_S):
        async with open_store(path) as store:
            await store.commit(Put("t", "k", b"v"))
            with monkeypatch.context() as broken:
                broken.setattr(sqlite_store, "_write", bug)
                with pytest.raises(StoreError, match="a bug"):
                    await store.commit(Put("t", "k", b"w"))
            with pytest.raises(StoreError, match="a bug"):  # what it left behind is unknown
                await store.commit(Put("t", "k", b"x"))
            assert await store.read("t", "k") == b"v"
    async with open_store(path) as store:
        assert await store.read("t", "k") == b"v"


async def test_cancelling_the_block_still_finishes_what_was_handed_over(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_store(path) as store, trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(store.commit, Put("t", f"{number}", b""))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    async with open_store(path) as store:
        assert len(await store.scan("t")) == 30


# --- killing -----------------------------------------------------------------------


def _acknowledged(output: bytes) -> dict[int, int]:
    """Return the last acknowledged entry of each worker; a torn last line counts not."""
    last: dict[int, int] = {}
    for line in output.split(b"\n")[:-1]:
        worker, seq = line.split()
        last[int(worker)] = int(seq)
    return last


async def _check_after_kill(path: Path, acknowledged: dict[int, int]) -> None:
    async with open_store(path) as store:
        for worker, seq in acknowledged.items():
            entries = await store.log(f"log{worker}")
            assert len(entries) > seq, "an acknowledged commit is gone"
            assert entries == [b"%d" % number for number in range(len(entries))]
            assert await store.read("last", f"{worker}") == entries[-1]


def test_every_acknowledged_commit_survives_twenty_kills(path: Path) -> None:
    chance = Random(20)
    child = Path(__file__).with_name("store_child.py")
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, str(child), str(path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        wanted = chance.randint(1, 120)
        lines = [process.stdout.readline() for _ in range(wanted)]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
        acknowledged = _acknowledged(b"".join(lines) + rest)
        assert acknowledged
        trio.run(_check_after_kill, path, acknowledged)
    assert kills == 20


async def test_a_wal_cut_anywhere_leaves_a_readable_prefix(path: Path, tmp_path: Path) -> None:
    async with open_store(path) as store:
        for seq in range(60):
            await store.commit(Append("log", seq, b"%d" % seq), Put("t", "last", b"%d" % seq))
        database, wal = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    chance = Random(7)
    offsets = sorted(chance.randrange(len(wal) + 1) for _ in range(60))
    found: list[int] = []
    for number, offset in enumerate([0, *offsets, len(wal)]):
        copy = tmp_path / f"cut{number}" / "store.sqlite"
        copy.parent.mkdir()
        copy.write_bytes(database)
        copy.with_name(copy.name + "-wal").write_bytes(wal[:offset])
        async with open_store(copy) as store:
            entries = await store.log("log")
            assert entries == [b"%d" % seq for seq in range(len(entries))]
            assert await store.read("t", "last") == (entries[-1] if entries else None)
            await store.commit(Append("log", len(entries), b"goes on"))
            found.append(len(entries))
        shutil.rmtree(copy.parent)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == 60
