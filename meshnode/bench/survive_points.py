"""R2: jobs in which a node dies at a labelled crash point.

One job for each point, on a mesh of one desk, one contractor and two standbys.  Who dies
there is the desk of a job without standbys (``desk``) or with (``owner``), the standby that
goes on with a job whose broker is gone (``heir``), or a contractor (``worker``).
"""

from pathlib import Path
from typing import Final

import trio

from meshnode.bench.survive_audit import audit
from meshnode.bench.survive_jobs import STANDBYS, Progress, Survived, do_job, settle
from meshnode.bench.survive_mesh import Place, RealMesh, real_mesh
from meshnode.services.crash_points import LABELS, VARIABLE

#: What an ordinary job of a broker comes to; the others need a story of their own, and are
#: reached in virtual time (``tests/simulations/test_crash_points.py``).
_RARE: Final = frozenset(
    {
        "job.called",
        "job.proposed",
        "job.refused",
        "job.progressed",
        "job.failed",
        "job.cancelled",
        "job.replanned",
        "job.elected",
    }
)
_JOB: Final = tuple(
    label for label in LABELS if label.startswith("job.") and label not in _RARE
)
#: Role -> where it dies.
POINTS: Final = {
    "desk": (*_JOB, "receipt.kept", "acceptance.settled"),
    "owner": (*_JOB, "job.elected", "receipt.kept"),
    "heir": ("job.elected", "job.delivered", "job.charged", "job.done", "receipt.kept"),
    "worker": ("award.taken", "result.kept", "receipt.kept"),
}
#: Where the owner dies whose job an heir is to go on with, and for how long it is away,
#: seconds: longer than a broker's lease.
_LEAVES: Final = "after:job.delivered"
_AWAY_S: Final = 10.0


def all_points() -> list[tuple[str, str]]:
    """Return every (role, crash point) that is tried."""
    return [
        (role, f"{side}:{label}")
        for role, labels in POINTS.items()
        for label in labels
        for side in ("before", "after")
    ]


async def kill_at_points(
    folder: Path, points: list[tuple[str, str]], *, progress: Progress
) -> Survived:
    """Do a job for each of ``points``, in which one node dies there.

    Args:
        folder: An empty one.
        points: (role, crash point), such as in :func:`all_points`.
        progress: Is told how far it is.
    """
    found = Survived()
    # With one worker only: else a broker that saw it die has the others do everything.
    async with real_mesh(folder, desks=1, workers=1) as mesh:
        for number, (role, point) in enumerate(points):
            progress(number, found.reached.total())
            armed = dict.fromkeys(_doomed(mesh, role), point)
            if role == "heir":
                armed[mesh.desks[0]] = _LEAVES
            # Only a job that is to be sure has its answers judged.
            sure = "economy" if point.endswith(":job.judged") else ""
            await _die_at(mesh, armed, role, f"job-{number}", found, sure)
        await settle(mesh, found)
    found.troubles += audit(folder)
    return found


def _doomed(mesh: RealMesh, role: str) -> list[Place]:
    """Return who is to die: of the standbys both, since nobody knows which it will be."""
    return {
        "desk": mesh.desks,
        "owner": mesh.desks,
        "heir": mesh.standbys,
        "worker": mesh.workers,
    }[role]


async def _die_at(
    mesh: RealMesh, armed: dict[Place, str], role: str, key: str, found: Survived, sure: str
) -> None:
    """Do a job in which each of ``armed`` dies at its point, if it gets there."""
    for place, point in armed.items():
        await place.kill()
        await place.start({VARIABLE: point})
    lives = {place: place.lives for place in armed}
    found.jobs += 1
    async with trio.open_nursery() as nursery:
        for place, point in armed.items():
            leaves = role == "heir" and place in mesh.desks
            told = "" if leaves else f"{role} {point}"
            away_s = _AWAY_S if leaves else 0.0
            nursery.start_soon(_come_back, place, told, away_s, found)
        standbys = STANDBYS if role in {"owner", "heir"} else 0
        await do_job(mesh.desks[0], key, found, standbys=standbys, assurance=sure)
        await settle(mesh, found)
        nursery.cancel_scope.cancel()
    for place, life in lives.items():
        if place.lives == life:  # it did not get there, and would in another's job
            await place.kill()
            await place.start()


async def _come_back(place: Place, told: str, away_s: float, found: Survived) -> None:
    """Start ``place`` again when it has died; count that if it is ``told``."""
    assert place.process is not None
    await place.process.wait()
    with trio.CancelScope(shield=True):
        await place.gone()
        if told:
            found.reached[told] += 1
        await trio.sleep(away_s)
        await place.start()
