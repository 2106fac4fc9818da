"""A rogues' gallery: seven of ten nodes are adversaries, things go wrong, and books are kept.

Given three honest nodes that broker and offer everything, seven whose roles are drawn from
all that there are (but those that don't pay, who break the books by themselves, and those
that change their names), and a schedule of faults drawn from the seed,
when each honest one has the five nodes' job done,
then every job has ended in time, its story verifies, whoever was paid was paid what was
charged, nobody began an award twice or went on after a cancel, and in the end all nodes
are up, at rest and answering.

Whether the outputs are *right* is noted and not demanded: today nothing stands between a
liar and a job without checks.
"""

from typing import Final

import trio

from simulations.agents import ECHO, JOIN, SUM, UPPER, Act, Temper
from simulations.checkers import check_answers
from simulations.faults import Schedule, carry_out, draw_schedule
from simulations.roles import ROLES, Role, enter, read_part
from simulations.scenarios import five_nodes
from simulations.scenarios.five_nodes import Story
from simulations.stage import Broken, Stage
from simulations.world import Run, World, run

#: Roles that the books can't be in order with, or that come and go.
_LEFT_OUT: Final = frozenset({"honest", "welsher", "repudiator", "whitewasher"})
CAST: Final = tuple(name for name in ROLES if name not in _LEFT_OUT)
_SKILLS: Final = (UPPER, ECHO, JOIN, SUM)
_HONEST: Final = 3
_ADVERSARIES: Final = 7
_FAULTS_MAX: Final = 8
_FAULTS_WITHIN_S: Final = 20.0
_DEADLINE_S: Final = 150.0
_WORDS: Final = 12
#: The flood is a trickle: what is meant to be seen is not how long it takes to simulate.
_KNOBS: Final = {"flooder": {"per_s": 40, "for_s": 60.0}}


def cast_of(seed: int) -> list[str]:
    """Return which adversaries a seed draws."""
    return World.chance(seed, "cast").sample(CAST, _ADVERSARIES)


def _role(name: str) -> Role:
    return read_part({"role": name, **_KNOBS.get(name, {})}).role


async def gallery(world: World) -> None:
    """Play it.

    Raises:
        Broken: Something that must hold did not; names all of it.
    """
    stage = Stage(world, weather=five_nodes.FAIR)
    brokers = stage.add(_SKILLS, n=_HONEST, name="honest")
    rng = world.random("prices")
    for name in cast_of(world.seed):
        acts = [Act(k, Temper(price_mc=rng.randint(0, 3))) for k in rng.sample(_SKILLS, 3)]
        enter(stage, acts, _role(name), name=f"{name}-")
    await stage.ready()
    await trio.sleep(5.0)
    schedule = draw_schedule(
        world.random("schedule"),
        list(stage.mesh.members),
        count_max=_FAULTS_MAX,
        within_s=_FAULTS_WITHIN_S,
    )
    world.trace.note(f"schedule: {schedule}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_out, stage.mesh, schedule)
        for broker in brokers:
            nursery.start_soon(_job, stage, broker)
    await stage.settle()
    if silent := await check_answers(stage.mesh):
        raise Broken("\n  ".join(silent))


async def _job(stage: Stage, broker: str) -> None:
    rng = stage.random(f"{broker}/words")
    words = tuple(f"word{rng.randint(0, 999)}" for _ in range(_WORDS))
    inputs, wanted = five_nodes.inputs_and_outputs(Story(words, Schedule(()), 0, None))
    end = await stage.submit(
        five_nodes.graph(), inputs, by=broker, wanted=wanted, deadline_s=_DEADLINE_S
    )
    stage.world.trace.note(f"{broker}: right {end.right}")


def command(seed: int) -> str:
    """Return what to type to see a seed again."""
    return f"python -m simulations.world {__name__}:gallery --seed {seed} --lines 400"


def play(seed: int) -> Run:
    """Run the scenario with ``seed``; a failure says how to see it again."""
    return run(gallery, seed=seed, limit_s=3_600, replay=command(seed))
