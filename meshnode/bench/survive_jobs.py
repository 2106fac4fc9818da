"""R1: jobs on a mesh whose nodes are killed at random.

Jobs are asked for with idempotency keys, by a program that knows nothing but the homes:
it asks again while a node is down.  Every other job has standbys, and some of the nodes that
die stay away for longer than a broker's lease: then another goes on with their jobs, and
whoever asked for one has its end from the node that it asked.  When all is over the stores
of all nodes are read by an auditor that trusts none of them
(:mod:`meshnode.bench.survive_audit`).
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import trio

from meshnode.bench.survive_audit import audit, due
from meshnode.bench.survive_mesh import Place, RealMesh, real_mesh
from meshnode.errors import NoStandbys

#: Jobs at work at once, and who kills at once.
_JOBS_AT_ONCE: Final = 6
_KILLERS: Final = 3
_WORDS: Final = 6
_DEADLINE_S: Final = 240
_POLL_S: Final = 0.4
#: What is asked for its outputs once more after this, seconds; and of an answer that is told.
_OUTPUTS_AGAIN_S: Final = 10.0
_TOLD_CHARS_MAX: Final = 200
_OK: Final = 200
#: After a job's deadline it must have ended; so much later it is lost, seconds.
_SLACK_S: Final = 60.0
#: A killed node is down for so long, and the next one dies so much later, seconds.
_DOWN_S: Final = (0.05, 1.0)
_PAUSE_S: Final = (0.0, 1.0)
#: One in so many is down for longer than a broker's lease, seconds.
_AWAY_EVERY: Final = 6
_AWAY_S: Final = (6.0, 12.0)
#: Every how manieth job has standbys, and how many.
_STANDBYS_EVERY: Final = 2
STANDBYS: Final = 2
#: Receipts that are due are delivered within this once all are up, seconds.
_SETTLE_S: Final = 90.0
_TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})

_GRAPH: Final = {
    "name": "shouts",
    "subtasks": {
        "shouts": {
            "capability": "bench.shout@1",
            "each": ["text"],
            "inputs": {"text": "@words"},
            "batch_items_max": 1,
        }
    },
    "outputs": {"texts": "shouts"},
}

#: Is told how many jobs and kills there were.
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Survived:
    """What came of it.

    Attributes:
        jobs: How many were taken.
        states: How they ended.
        wrong: Completed, and then there was something else than the right outputs: what that
            was, and whether it was right later.
        lost: That did not end in time, or of which their broker knows nothing.
        kills: By role.
        last_end_s: From the last kill until every job had ended.
        unsettled: Receipts that were not delivered in time.
        troubles: What the auditor found.
        reached: Crash point -> how often somebody died there.
        passed_on: Jobs with standbys, by how many brokers they had: 1, 2 and more.
    """

    jobs: int = 0
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    last_end_s: float = 0.0
    unsettled: int = 0
    troubles: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    passed_on: Counter[int] = field(default_factory=Counter)


async def kill_at_random(
    folder: Path, *, jobs: int, kills: int, seed: int, progress: Progress
) -> Survived:
    """Do ``jobs`` or more while ``kills`` nodes or more are killed, of whatever role."""
    found, rng = Survived(), Random(seed)  # noqa: S311 - draws, no secrets
    async with real_mesh(folder, desks=2, workers=4) as mesh:

        def enough() -> bool:
            progress(found.jobs, found.kills.total())
            return found.jobs >= jobs and found.kills.total() >= kills

        async def ask() -> None:
            while not enough():
                number = found.jobs
                found.jobs += 1
                desk = mesh.desks[number % len(mesh.desks)]
                standbys = 0 if number // len(mesh.desks) % _STANDBYS_EVERY else STANDBYS
                await do_job(desk, f"job-{number}", found, standbys=standbys)

        async def kill() -> None:
            while found.kills.total() < kills:
                await _kill_one(mesh, found, rng)
                await trio.sleep(rng.uniform(*_PAUSE_S))

        async with trio.open_nursery() as nursery:
            for _ in range(_JOBS_AT_ONCE):
                nursery.start_soon(ask)
            async with trio.open_nursery() as killing:
                for _ in range(_KILLERS):
                    killing.start_soon(kill)
            killed_s = trio.current_time()
        found.last_end_s = trio.current_time() - killed_s
        await settle(mesh, found)
    found.troubles += audit(folder)
    return found


async def _kill_one(mesh: RealMesh, found: Survived, rng: Random) -> None:
    place = rng.choice([place for place in mesh.places if not place.busy])
    place.busy = True
    await place.kill()
    await trio.sleep(rng.uniform(*(_DOWN_S if rng.randrange(_AWAY_EVERY) else _AWAY_S)))
    await place.start()
    place.busy = False
    found.kills[place.name.rstrip("0123456789")] += 1


async def do_job(
    desk: Place, key: str, found: Survived, *, standbys: int = 0, assurance: str = ""
) -> None:
    """Have one job done at ``desk``, whatever happens to it meanwhile.

    Args:
        desk: Its owner.
        key: Of the job, the same whenever it is asked for.
        found: What comes of it is counted there.
        standbys: How many it is to have.
        assurance: How sure it is to be; empty for what a job has by itself.
    """
    words = [f"{key} word {number}" for number in range(_WORDS)]
    body = {
        "graph": _GRAPH,
        "inputs": {"words": words},
        "deadline_s": _DEADLINE_S,
        "idempotency_key": key,
        **({"standbys": standbys} if standbys else {}),
        **({"assurance": assurance} if assurance else {}),
    }
    status: dict[str, Any] = {}
    with trio.move_on_after(_DEADLINE_S + _SLACK_S):
        code, taken = await _submit(desk, body)
        if code not in {200, 201}:
            found.lost.append(f"{key}: refused: {taken}")
            return
        while status.get("state") not in _TERMINAL:
            await trio.sleep(_POLL_S)
            code, status = await desk.ask("GET", f"/api/jobs/{taken['job']}")
            if code != _OK:  # it knows nothing of what it took
                found.lost.append(f"{key}: {status}")
                return
        found.states[status["state"]] += 1
        if standbys:
            found.passed_on[status["epoch"]] += 1
        if status["state"] == "completed":
            wanted = {"texts": [word.upper() for word in words]}
            trouble = await outputs_trouble(desk, taken["job"], wanted)
            if trouble:
                ended = f"{standbys} standbys, ended in epoch {status['epoch']}"
                found.wrong.append(f"{key} ({taken['job']}; {ended}): {trouble}")
        return
    found.lost.append(f"{key}: not ended: {status.get('state', 'never taken')}")


class Asked(Protocol):
    """Who answers over HTTP, as :class:`Place` does."""

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and answer."""


async def outputs_trouble(desk: Asked, job: str, wanted: object) -> str:
    """Return what came when a completed job's outputs weren't ``wanted``, or nothing.

    Whoever asks once gets what comes first: what is right only later is wrong, too.
    """
    path = f"/api/jobs/{job}/outputs"
    first = await desk.ask("GET", path)
    if first == (_OK, wanted):
        return ""
    await trio.sleep(_OUTPUTS_AGAIN_S)
    second = await desk.ask("GET", path)
    later = "right" if second == (_OK, wanted) else _told(second)
    return f"got {_told(first)}; {_OUTPUTS_AGAIN_S:g} s later: {later}"


def _told(answer: tuple[int, Any]) -> str:
    code, body = answer
    return f"HTTP {code} {json.dumps(body)[:_TOLD_CHARS_MAX]}"


async def _submit(desk: Place, body: dict[str, Any]) -> tuple[int, Any]:
    """Ask for a job until there are standbys for it: they die, too."""
    while True:
        code, taken = await desk.ask("POST", "/api/jobs", body)
        if taken.get("error", {}).get("code") != NoStandbys.code:
            return code, taken
        await trio.sleep(_POLL_S)


async def settle(mesh: RealMesh, found: Survived) -> None:
    """Wait until no receipt is due any more."""
    with trio.move_on_after(_SETTLE_S):
        while _due(mesh):  # noqa: ASYNC110 - another process's file: it calls nobody
            await trio.sleep(_POLL_S)
    found.unsettled += _due(mesh)


def _due(mesh: RealMesh) -> int:
    return sum(due(place.seen) for place in mesh.brokers)
