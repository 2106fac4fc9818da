"""R5: what a store holds after its process was killed, and after its log was cut short.

A child writes receipts and says which are durable; it is killed at a random moment, and
the store is opened again: every receipt that it said must be there, whole, and with the
entry of the log that was written with it.  Then SQLite's write-ahead log is cut off at a
random byte, in a copy: the store must open still, with nothing in part.  What was being
copied from the log into the file when the process died is not cut off: SQLite syncs the log
before it copies, so no crash takes that, and a file with half of it is no store
(https://sqlite.org/walformat.html).
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import sleep
from typing import Final

import trio

from meshnode.adapters.sqlite_store import open_store
from meshnode.bench.figures import Figure, Told
from meshnode.errors import StoreError

_CHILD: Final = "meshnode.bench.survive_store_child"
#: A child lives so long after its first commit, seconds.
_LIFE_S: Final = (0.0, 0.12)
#: Of SQLite's write-ahead log and its index: https://sqlite.org/walformat.html.
_WAL_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_PAGE_SIZE: Final = slice(8, 12)
_ATTEMPTED: Final = slice(128, 132)
#: Kills after which a new file is begun: it grows, and each look reads all of it.
_FILE_KILLS: Final = 25


@dataclass(slots=True)
class Losses:
    """What was found.

    Attributes:
        kills: Processes killed.
        cuts: Logs cut short.
        told: Receipts that a child had said were durable.
        lost: Of those, gone after the kill.
        parted: Receipts without their entry, or entries without their receipt, after a kill.
        parted_by_cut: The same after a cut.
        unreadable: Stores that would not open.
        missing_after_cut: Receipts that a cut took; it may.
    """

    kills: int = 0
    cuts: int = 0
    told: int = 0
    lost: int = 0
    parted: int = 0
    parted_by_cut: int = 0
    unreadable: int = 0
    missing_after_cut: int = 0
    numbers: set[int] = field(default_factory=set)


def store_figures(told: Told, *, kills: int, seed: int) -> list[Figure]:
    """Kill a writing process ``kills`` times, and cut its log as often."""
    losses, rng = Losses(), Random(seed)  # noqa: S311 - draws, no secrets
    while losses.kills < kills:
        with tempfile.TemporaryDirectory() as folder:
            losses.numbers.clear()
            file = Path(folder) / "node.db"
            for _ in range(min(_FILE_KILLS, kills - losses.kills)):
                told("kill -9 of a store that writes", losses.kills / kills)
                _kill_once(file, losses, rng)
                _cut_once(file, losses, rng)
                _look(file, losses)
    note = f"{losses.told} receipts were durable"
    cut = (
        f"{losses.cuts} cuts took {losses.missing_after_cut} receipts,"
        f" {losses.parted_by_cut} in part"
    )
    return [
        Figure(id="R5.lost", value=losses.lost, unit="receipts", goal=0, n=kills, note=note),
        Figure(
            id="R5.parted", value=losses.parted, unit="commits in part", goal=0, n=kills,
            note="receipt and entry, one without the other",
        ),
        Figure(
            id="R5.unreadable", value=losses.unreadable, unit="stores", goal=0,
            n=losses.kills + losses.cuts, note=cut,
        ),
    ]  # fmt: skip


def _kill_once(file: Path, losses: Losses, rng: Random) -> None:
    first = max(losses.numbers, default=-1) + 1
    command = [sys.executable, "-m", _CHILD, str(file), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:  # noqa: S603 - our own
        assert child.stdout is not None
        said = child.stdout.readline()
        sleep(rng.uniform(*_LIFE_S))
        child.kill()
        said += child.stdout.read()
    losses.kills += 1
    # The last line may be cut: whoever read it was told nothing.
    numbers = [int(line) for line in said.split(b"\n")[:-1]]
    losses.told += len(numbers)
    losses.numbers.update(numbers)


def _cut_once(file: Path, losses: Losses, rng: Random) -> None:
    """Cut the write-ahead log in a copy, and look at what is left."""
    wal = file.with_name(file.name + "-wal")
    if not wal.exists() or (kept := _copied_bytes(file, wal)) >= wal.stat().st_size:
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        shutil.copy(file, copy)
        shutil.copy(wal, copy.with_name(wal.name))
        with copy.with_name(wal.name).open("r+b") as cut:
            cut.truncate(rng.randrange(kept, wal.stat().st_size))
        losses.cuts += 1
        found, parted = trio.run(_read, copy, losses)
        losses.missing_after_cut += len(losses.numbers - found)
        losses.parted_by_cut += parted


def _copied_bytes(file: Path, wal: Path) -> int:
    """Return how much of the log a checkpoint may have begun to copy into the file.

    Of the log's index that is the field ``nBackfillAttempted``, in the machine's byte order.
    """
    index = file.with_name(file.name + "-shm").read_bytes()
    frames = int.from_bytes(index[_ATTEMPTED], sys.byteorder)
    with wal.open("rb") as log:
        page_bytes = int.from_bytes(log.read(_WAL_HEADER_BYTES)[_PAGE_SIZE], "big")
    return _WAL_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes) if frames else 0


def _look(file: Path, losses: Losses) -> None:
    """Open the store after the kill; what it was told of must be there."""
    found, parted = trio.run(_read, file, losses)
    losses.parted += parted
    losses.lost += len(losses.numbers - found)
    losses.numbers |= found  # durable before anybody was told: it stays from now on


async def _read(file: Path, losses: Losses) -> tuple[set[int], int]:
    """Return which receipts are whole, and how many are there in part."""
    try:
        async with open_store(file) as store:
            rows = dict(await store.scan("receipt", count_max=10**9))
            entries = Counter[bytes]()
            for part in range(64):
                entries.update(await store.log(f"log/{part}"))
    except StoreError:
        losses.unreadable += 1
        return set(), 0
    values = Counter(rows.values())
    parted = (values - entries).total() + (entries - values).total()
    return {int(key) for key, row in rows.items() if row.rstrip(b".") == key.encode()}, parted
