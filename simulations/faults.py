"""What goes wrong and when: a schedule drawn from a seed, as a value that prints.

Every fault heals, so that what a job may be asked for is clear: to have ended by its
deadline whatever happened, and to come to rest after the last of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Final, Literal

import trio
from typing_extensions import override

from meshnode.services.crash_points import JOB_LABELS, read_crash_point
from simulations.mesh import Down, SimMesh

Kind = Literal[
    "break",
    "half_open",
    "split",
    "one_way",
    "freeze",
    "crash",
    "crash_at",
    "burst",
    "disk",
    "leave",
]

#: How often each comes, against the others.
SHARES: dict[Kind, int] = {
    "break": 4,
    "half_open": 2,
    "split": 3,
    "one_way": 2,
    "freeze": 3,
    "crash": 5,
    "burst": 2,
    "disk": 2,
}


#: A crash point is drawn among the next so many commits of its kind.
_COMMITS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at_s: When, from the start of the schedule, seconds.
        kind: What.
        who: Whom it befalls: one node, two, or an island.
        for_s: How long, seconds; of no meaning to a broken link or a full disk.  Infinite:
            until all is healed.
        point: The crash point of a ``crash_at``, which counts from ``at_s``.
    """

    at_s: float
    kind: Kind
    who: tuple[str, ...]
    for_s: float = 0.0
    point: str = ""

    @override
    def __str__(self) -> str:
        where = f" {self.point}" if self.point else ""
        lasts = f" for {self.for_s:.1f} s" if 0 < self.for_s < inf else ""
        return f"{self.at_s:.2f} s {self.kind} {'+'.join(self.who)}{where}{lasts}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The faults of one run, by time."""

    faults: tuple[Fault, ...]

    @property
    def over_s(self) -> float:
        """When the last one has healed, from the start, seconds."""
        return max((fault.at_s + fault.for_s for fault in self.faults), default=0.0)

    @override
    def __str__(self) -> str:
        return "; ".join(str(fault) for fault in self.faults) or "nothing goes wrong"


def draw_schedule(
    rng: Random, names: Sequence[str], *, count_max: int = 6, within_s: float = 10.0
) -> Schedule:
    """Draw up to ``count_max`` faults that begin ``within_s``."""
    return Schedule(
        tuple(draw_faults(rng, names, count=rng.randint(0, count_max), within_s=within_s))
    )


def draw_faults(
    rng: Random,
    names: Sequence[str],
    *,
    count: int,
    within_s: float,
    shares: Mapping[Kind, int] = SHARES,
) -> list[Fault]:
    """Draw ``count`` faults that begin ``within_s``, by time, of kinds as in ``shares``."""
    faults = [
        _draw_fault(rng, names, round(rng.uniform(0.0, within_s), 3), shares)
        for _ in range(count)
    ]
    return sorted(faults, key=lambda fault: (fault.at_s, fault.kind))


def _draw_fault(
    rng: Random, names: Sequence[str], at_s: float, shares: Mapping[Kind, int]
) -> Fault:
    kind = rng.choices(list(shares), weights=list(shares.values()))[0]
    # Short enough for nobody to notice, or long enough for everybody to.
    for_s = round(rng.choice((rng.uniform(0.2, 4.0), rng.uniform(11.0, 30.0))), 2)
    match kind:
        case "break" | "half_open":
            return Fault(at_s, kind, tuple(rng.sample(list(names), 2)))
        case "one_way":
            return Fault(at_s, kind, tuple(rng.sample(list(names), 2)), for_s)
        case "split":
            size = rng.randint(1, len(names) - 1)
            return Fault(at_s, kind, tuple(rng.sample(list(names), size)), for_s)
        case "disk":
            return Fault(at_s, kind, (rng.choice(list(names)),))
        case "burst":
            return Fault(at_s, kind, (), for_s)
        case "crash_at":
            return Fault(at_s, kind, (rng.choice(list(names)),), for_s, draw_point(rng))
        case _:
            return Fault(at_s, kind, (rng.choice(list(names)),), for_s)


def draw_point(rng: Random) -> str:
    """Draw a crash point: any label of a job, any side, one of the next commits."""
    side, number = rng.choice(("before", "after")), rng.randint(1, _COMMITS_MAX)
    return f"{side}:{rng.choice(JOB_LABELS)}#{number}"


async def carry_out(mesh: SimMesh, schedule: Schedule) -> None:
    """Let everything in ``schedule`` happen; returns when the last fault has healed.

    With a crash point that nobody reaches, it does not return.
    """
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for fault in schedule.faults:  # by time: a task for each from the start would be many
            await trio.sleep_until(begun_s + fault.at_s)
            nursery.start_soon(_happen, mesh, fault)
    await heal(mesh)


async def _happen(mesh: SimMesh, fault: Fault) -> None:
    mesh.world.trace.note(f"fault {fault}")
    network, peers = mesh.world.network, [mesh.peer(name) for name in fault.who]
    match fault.kind:
        case "break" | "half_open":
            notice_s = None if fault.kind == "half_open" else 0.0
            if network.connected(*peers):
                network.break_link(*peers, notice_s=notice_s)
        case "split":
            rest = [m.peer for m in mesh.members.values() if m.name not in fault.who]
            network.partition(peers, rest)
            await trio.sleep(fault.for_s)
            network.partition()
        case "one_way":
            network.cut_one_way(*peers)
            await trio.sleep(fault.for_s)
            network.mend_one_way(*peers)
        case "freeze":
            network.freeze(*peers)
            await trio.sleep(fault.for_s)
            network.thaw(*peers)
        case "crash" | "leave":
            await _go(mesh, fault)
        case "crash_at":
            await _go_at(mesh, fault)
        case "burst":
            network.set_weather(replace(mesh.fair, latency_s=0.4, jitter_s=0.6))
            await trio.sleep(fault.for_s)
            network.set_weather(mesh.fair)
        case "disk":
            mesh.fill_disk(fault.who[0])


async def _go(mesh: SimMesh, fault: Fault) -> None:
    """Have a node go, with or without a word, and come back."""
    name = fault.who[0]
    if not mesh.up(name):
        return  # another fault has it down
    if fault.kind == "leave":
        try:
            await mesh.leave(name)
        except Down:
            return
    else:
        mesh.crash(name)
    await _come_back(mesh, fault)


async def _go_at(mesh: SimMesh, fault: Fault) -> None:
    """Have a node die when it gets there, which may be never."""
    gone = trio.Event()
    mesh.crash_at(fault.who[0], read_crash_point(fault.point), gone.set)
    await gone.wait()
    await _come_back(mesh, fault)


async def _come_back(mesh: SimMesh, fault: Fault) -> None:
    await trio.sleep(fault.for_s)
    if not mesh.up(fault.who[0]):
        await mesh.restart(fault.who[0])


async def heal(mesh: SimMesh) -> None:
    """Undo whatever is still wrong, and start who is down."""
    network = mesh.world.network
    network.partition()
    network.mend_all()
    network.set_weather(mesh.fair)
    for member in mesh.members.values():
        mesh.spare(member.name)
        if member.life is None and not member.retired:
            await mesh.restart(member.name)
        network.thaw(member.peer)
