"""What else befalls real processes: one is frozen and goes on, a disk is full and has room.

A frozen broker loses its job to a standby and comes back in the belief that it is the
broker; a frozen contractor comes back to work that another did.  Neither may hurt.  A node
whose disk is full says so, refuses new work and goes on with what it took when there is
room again.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from meshnode.bench.survive_audit import audit, due
from meshnode.bench.survive_jobs import STANDBYS, Progress, Survived, do_job, settle
from meshnode.bench.survive_mesh import Place, real_mesh

#: Of one call: long enough to be frozen in, seconds.
_WORK_S: Final = 2.0
#: A job that is at work is given so long, and then somebody is frozen for longer than a
#: broker's lease, and than silence takes to be noticed, seconds.
_BEGUN_S: Final = 0.5
_FROZEN_S: Final = 14.0
_POLL_S: Final = 0.2
#: A node's own disk: a few times what a new home takes.
_DISK_BYTES: Final = 8 * 1024 * 1024
#: Jobs that a full disk may still take, since a log is written over from its beginning.
_TAKEN_MAX: Final = 200
_HELD_UP_S: Final = 5.0
_SETTLE_S: Final = 60.0


async def freeze_in_turn(folder: Path, *, times: int, progress: Progress) -> Survived:
    """Freeze the broker of a job, and a contractor of another, ``times`` each."""
    found = Survived()
    async with real_mesh(folder, desks=1, workers=2, work_s=_WORK_S) as mesh:
        desk = mesh.desks[0]
        for number in range(times):
            for place in (desk, mesh.workers[number % len(mesh.workers)]):
                progress(found.jobs, found.kills.total())
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_freeze, desk, place, found)
                    await do_job(desk, f"job-{found.jobs}", found, standbys=STANDBYS)
                found.jobs += 1
                await settle(mesh, found)
    found.troubles += audit(folder)
    return found


async def _freeze(desk: Place, place: Place, found: Survived) -> None:
    """Freeze ``place`` while ``desk`` has a job at work."""
    await _at_work(desk)
    await place.freeze(_FROZEN_S)
    found.kills[place.name.rstrip("0123456789")] += 1


async def _at_work(desk: Place) -> None:
    """Wait until ``desk`` has a job at work, and a little longer."""
    at_work = False
    while not at_work:
        await trio.sleep(_POLL_S)
        _, listed = await desk.ask("GET", "/api/jobs?limit=1")
        at_work = any(row["state"] == "running" for row in listed["jobs"])
    await trio.sleep(_BEGUN_S)


@dataclass(frozen=True, slots=True)
class Full:
    """What came of a full disk.

    Attributes:
        refusal: What the first job that was not taken was refused with.
        said: Lines of the node's log that say that the disk is full.
        survived: The jobs that were taken before, meanwhile and after.
    """

    refusal: str
    said: int
    survived: Survived


def can_mount() -> bool:
    """Tell whether a process can have a disk of its own here (Linux, user namespaces)."""
    try:
        done = subprocess.run(
            ["unshare", "-rm", "true"],  # noqa: S607 - the system's own
            check=False,
            capture_output=True,
        )
    except OSError:
        return False
    return done.returncode == 0


async def fill_disk(folder: Path) -> Full:
    """Have a broker's disk be full while it has a job at work; then ask for another."""
    found = Survived()
    async with real_mesh(
        folder, desks=1, workers=1, standbys=0, work_s=_WORK_S, disk_bytes=_DISK_BYTES
    ) as mesh:
        desk = mesh.desks[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(do_job, desk, "before", found)
            await _at_work(desk)
            with _full(desk.seen):
                refusal = await _until_refused(desk, nursery, found)
                await trio.sleep(_HELD_UP_S)
        await do_job(desk, "after", found)
        found.jobs += 2
        with trio.move_on_after(_SETTLE_S):
            while due(_copied(desk)):  # noqa: ASYNC110 - another process's file
                await trio.sleep(_POLL_S)
        found.unsettled += due(_copied(desk))
    found.troubles += audit(folder)
    log = desk.home.with_suffix(".log").read_text("utf-8", "replace")
    return Full(refusal, log.count("the disk is full"), found)


def _copied(desk: Place) -> Path:
    """Return its home on the disk on which all is: SQLite can't open files elsewhere."""
    for name in ("node.db", "node.db-wal", "keys"):
        with suppress(FileNotFoundError):
            shutil.copy(desk.seen / name, desk.home / name)
    return desk.home


@contextmanager
def _full(home: Path) -> Iterator[None]:
    """Let there be no room beside ``home`` for as long as the context lasts."""
    ballast = home / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


async def _until_refused(desk: Place, nursery: trio.Nursery, found: Survived) -> str:
    """Ask for jobs until one isn't taken; return why.  Those that are have to end."""
    for number in range(_TAKEN_MAX):
        refused = Survived()
        with trio.move_on_after(_HELD_UP_S):
            await do_job(desk, f"meanwhile-{number}", refused)
        if refused.lost:
            return refused.lost[0]
        found.jobs += 1  # asked for again by its key, it is the same
        nursery.start_soon(do_job, desk, f"meanwhile-{number}", found)
    return ""
