"""Every place at which a node may die: before and after it writes something down."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import trio

from meshnode.node import Node
from meshnode.services.crash_points import JOB_LABELS
from simulations.agents import ECHO, JOIN, UPPER, Act, Temper
from simulations.graphs import pipeline_graph
from simulations.mesh import Down
from simulations.stage import JobEnd, Stage
from simulations.weather import Weather
from simulations.world import World, run

SIDES = ("before", "after")
SEEDS = range(3)
WORDS = [f"word{n}" for n in range(12)]
#: They fail now and then, so that failures are written down too, and take their time, so
#: that what they have done so far is.
TEMPER = Temper(latency_s=(0.5, 2.0), error_chance=0.03, concurrency_max=1)
#: Offers come too late on such links, so that the broker calls for proposals.
FAR = Weather(latency_s=0.8)
#: What plans anew: nobody can do what was planned, and another version is there.
BROKEN = Temper(error_chance=1.0)
ECHO2 = replace(ECHO, name="echo2", capability="text.echo@2")
FAR_LABELS = {"job.called", "job.proposed", "job.refused"}


async def cancelled_later(mesh: Stage, after_s: float) -> None:
    """Cancel the one job of ``desk0``, however often its broker dies."""
    await trio.sleep(after_s)
    while True:
        try:
            for job, _ in await mesh.mesh.ask("desk0", lambda node: node.broker.jobs()):
                await mesh.mesh.ask("desk0", partial(Node.cancel, job=job))
                return
        except Down:
            pass
        await trio.sleep(0.5)


def die_everywhere(label: str, side: str, seed: int) -> tuple[JobEnd, Counter[str]]:
    """Play a job in which every node dies when it first gets there; who died how often.

    Raises:
        Broken: Something that must hold does not.
    """
    ends: list[JobEnd] = []
    died: Counter[str] = Counter()

    async def story(world: World) -> None:
        mesh = Stage(world, weather=FAR if label in FAR_LABELS else None)
        names = mesh.add(name="desk")
        skills = [Act(skill, TEMPER) for skill in (UPPER, ECHO, JOIN)]
        if label == "job.replanned":
            skills[1:2] = [Act(ECHO, BROKEN), Act(ECHO2, TEMPER)]
        names += mesh.add(agents=skills, n=4)
        await mesh.ready()
        await trio.sleep(5)
        for name in names:
            mesh.crash(name, at=f"{side}:{label}", for_s=4)
        if label == "job.refused":
            await mesh.node("n0").pause()
        if label == "job.cancelled":
            world.nursery.start_soon(cancelled_later, mesh, 1.5)
        ends.append(
            await mesh.submit(
                pipeline_graph(),
                {"words": list(WORDS)},
                by="desk0",
                deadline_s=150,
                wanted={"text": "-".join(WORDS).upper()},
                assurance="economy" if label == "job.judged" else "",
            )
        )
        await mesh.settle()
        died.update({name: mesh.mesh.members[name].lives - 1 for name in names})

    run(story, seed=seed)
    return ends[0], +died


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("label", JOB_LABELS)
def test_a_job_survives_the_death_of_everybody_at(label: str, side: str) -> None:
    reached = Counter[str]()
    cancels = label == "job.cancelled"
    for seed in SEEDS:
        end, died = die_everywhere(label, side, seed)
        assert end.state == ("cancelled" if cancels else "completed"), (seed, end)
        assert end.right is not False
        assert set(died.values()) <= {1}, "a point is passed once it was reached"
        reached += died
    assert reached, "nobody got there: the point shows nothing"
