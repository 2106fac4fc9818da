"""R4: a mesh that is cut in half for a minute, in virtual time.

Twenty real nodes on simulated ports; half of them can do the work.  Jobs come all the
time, from both halves.  Lost is a job that did not complete; recovered is the mesh when
every job that was begun before the cut healed has ended.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from meshnode.bench.figures import Figure, Told
from simulations.agents import UPPER
from simulations.graphs import map_graph
from simulations.stage import JobEnd, Stage
from simulations.weather import Weather
from simulations.world import World
from simulations.world import run as run_world

_NODES: Final = 20
_WORKERS: Final = 10
_WORDS: Final = 6
_CUT_S: Final = 60.0
#: Before the cut, and after it, seconds.
_BEFORE_S: Final = 20.0
_AFTER_S: Final = 20.0
#: Between two jobs, on average, seconds.
_GAP_S: Final = 1.5
_DEADLINE_S: Final = 180.0
_GOAL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Healed:
    """What came of one cut.

    Attributes:
        ends: Of all jobs.
        healed_s: When the halves met again, on the world's clock.
    """

    ends: list[JobEnd]
    healed_s: float

    @property
    def lost(self) -> int:
        """Jobs that did not complete, or wrongly."""
        return sum(end.state != "completed" or end.right is False for end in self.ends)

    @property
    def recovered_s(self) -> float:
        """From the healing to the end of the last job that was begun before it."""
        begun = [end for end in self.ends if end.begun_s < self.healed_s]
        return max([0.0, *(end.ended_s - self.healed_s for end in begun)])


def partition_figures(told: Told, *, seeds: int) -> list[Figure]:
    """Cut a mesh in half with each of ``seeds``.

    Raises:
        Broken: Something that must hold did not; names all of it.
    """
    found = []
    for seed in range(seeds):
        told("half against half for a minute", seed / seeds)
        found.append(cut_in_half(seed))
    jobs = sum(len(one.ends) for one in found)
    note = f"{seeds} seeds, {_NODES} simulated nodes, cut for {_CUT_S:g} s"
    return [
        Figure(
            id="R4", value=sum(one.lost for one in found), unit="jobs lost or wrong", goal=0,
            n=jobs, note=note,
        ),
        Figure(
            id="R4.recovered", value=max(one.recovered_s for one in found), unit="s",
            goal=_GOAL_S, n=seeds,
            note="worst: from the healing until every job from before it had ended",
        ),
    ]  # fmt: skip


def cut_in_half(seed: int) -> Healed:
    """Play one cut and check everything."""
    found: list[Healed] = []

    async def story(world: World) -> None:
        stage = Stage(world, weather=Weather())
        workers = stage.add([UPPER], n=_WORKERS)
        others = stage.add(n=_NODES - _WORKERS, name="desk")
        await stage.ready()
        chance = world.random("cut")
        names = [*workers, *others]
        chance.shuffle(names)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_jobs, stage, nursery, names, chance)
            await trio.sleep(_BEFORE_S)
            stage.partition(names[: _NODES // 2], for_s=_CUT_S)
            await trio.sleep(_CUT_S)
            healed_s = trio.current_time()
        await stage.settle()
        found.append(Healed(list(stage.ends), healed_s))

    run_world(story, seed=seed)
    return found[0]


async def _jobs(stage: Stage, nursery: trio.Nursery, names: list[str], chance: Random) -> None:
    until_s = trio.current_time() + _BEFORE_S + _CUT_S + _AFTER_S
    number = 0
    while trio.current_time() < until_s:
        await trio.sleep(chance.expovariate(1 / _GAP_S))
        number += 1
        nursery.start_soon(_job, stage, chance.choice(names), number)


async def _job(stage: Stage, by: str, number: int) -> None:
    words = [f"word {number} {part}" for part in range(_WORDS)]
    await stage.submit(
        map_graph(UPPER),
        {"words": list(words)},
        by=by,
        deadline_s=_DEADLINE_S,
        wanted={"texts": [word.upper() for word in words]},
    )
