"""What the tests of adversaries are told with: small meshes of real nodes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from meshnode.ports import JsonValue
from protocol.graph import Check, Source, SubTask, TaskGraph
from simulations.agents import Skill, Temper
from simulations.stage import JobEnd, Offer, Stage
from simulations.weather import CALM
from simulations.world import World, run

#: Cheap, so that it gets the work, and dear, so that it gets what the other fails at.
CHEAP: Final = Temper(price_mc=0)
DEAR: Final = Temper(price_mc=200)

#: Until the records of those who have started have gone round, seconds.
KNOWN_S: Final = 8.0


def play(story: Callable[[Stage], Awaitable[None]], *, seed: int = 1) -> None:
    """Tell a story on an empty stage."""

    async def scenario(world: World) -> None:
        await story(Stage(world, weather=CALM))

    run(scenario, seed=seed, limit_s=3_600)


async def known(stage: Stage) -> None:
    """Wait until everybody knows everybody."""
    await stage.ready()
    await trio.sleep(KNOWN_S)


async def contest(stage: Stage, *offers: Offer) -> tuple[str, ...]:
    """Start a node that brokers, and a node for each of ``offers``; return these."""
    stage.add(name="broker")
    names = [stage.add([offer], name="n")[0] for offer in offers]
    await known(stage)
    return tuple(names)


async def ask(stage: Stage, text: str = "so it is", **terms: Any) -> JobEnd:
    """Have ``text`` put in capitals."""
    wanted: JsonValue = {"text": text.upper()}
    options = {"by": "broker0", "wanted": {"result": wanted}, **terms}
    return await stage.submit("text.upper@1", {"text": text}, **options)


async def done_by(stage: Stage, end: JobEnd) -> list[str]:
    """Return who was awarded the job's only call, in order."""
    state = (await stage.node(end.by).journal(end.job)).state
    return [
        stage.mesh.name(attempt.peer)
        for unit in state.units.values()
        for attempt in unit.attempts
        if attempt.award
    ]


def checked(skill: Skill, value: Mapping[str, JsonValue], check: Check) -> TaskGraph:
    """Return a graph of one call whose output is checked."""
    inputs = {name: Source(kind="input", name=name) for name in value}
    task = SubTask(id="call", capability=skill.capability, inputs=inputs, checks=[check])
    return TaskGraph(
        name="checked",
        subtasks=[task],
        outputs={"result": Source(kind="task", name="call", pointer="")},
    )
