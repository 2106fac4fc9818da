"""A job gets done, or ends in time, whatever happens to the five nodes that share it.

Given five nodes of which one brokers and all offer something, with overlap, some of
their agents bad in one way or another,
when a job (two maps over some twenty words, a join of them, and a sum beside) is
submitted, and a schedule of faults drawn from the seed befalls links, disks and nodes,
the broker included,
then the job has ended by its deadline, its outputs are right, its provenance verifies,
nobody did an award twice in one life, nobody charged one twice, both sides hold the same
receipts, whoever acknowledged a cancel had stopped, and in the end all is at rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import msgspec
import trio

from meshnode.domain.job import JobState
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.ports import Agent, JsonValue
from meshnode.services.job_terms import Terms
from protocol.graph import Check, Source, SubTask, TaskGraph
from simulations.agents import (
    ECHO,
    JOIN,
    SUM,
    UPPER,
    CallBook,
    SimAgent,
    Skill,
    Temper,
    draw_temper,
)
from simulations.checkers import (
    Ending,
    Watch,
    check_ending,
    check_receipts,
    check_rest,
    come_to_rest,
)
from simulations.directory import LIKE_KADEMLIA
from simulations.faults import Schedule, carry_out, draw_schedule, heal
from simulations.graphs import pipeline_graph
from simulations.mesh import Down, SimMesh
from simulations.money import check_money
from simulations.opinions import check_opinions
from simulations.stage import Broken
from simulations.weather import Weather
from simulations.world import Run, World, run

BROKER: Final = "a"
#: Who offers what; every skill has its first provider behave well.
OFFERS: Final[Mapping[str, Sequence[Skill]]] = {
    "a": (SUM, JOIN),
    "b": (UPPER, JOIN),
    "c": (UPPER, ECHO),
    "d": (UPPER, ECHO, SUM),
    "e": (ECHO, JOIN, UPPER),
}
_RELIABLE: Final = {("a", "sum"), ("b", "upper"), ("c", "echo"), ("e", "join")}

#: Not too fair: now and then a connection breaks of itself.
FAIR: Final = Weather(latency_s=0.01, jitter_s=0.02, break_chance=0.0005)
DEADLINE_S: Final = 90.0
#: From the deadline to the end: every cancel is acknowledged or given up.
SLACK_S: Final = 25.0
#: After the last fault: leases lapse, hung agents time out, receipts arrive.
REST_S: Final = 40.0
_POLL_S: Final = 0.5
_SKEW_MS_MAX: Final = 20_000
_CANCEL_CHANCE: Final = 0.12
_POOR_CHANCE: Final = 0.08
#: Up to here a job may find that its budget isn't enough.
POOR_MC: Final = 120


@dataclass(frozen=True, slots=True)
class Story:
    """What a seed makes of the scenario.

    Attributes:
        words: The job's input.
        schedule: The faults.
        budget_mc: What the job may spend.
        cancel_s: When its owner cancels it, from the submit on, or None.
    """

    words: tuple[str, ...]
    schedule: Schedule
    budget_mc: int
    cancel_s: float | None


def draw_story(rng: Random) -> Story:
    """Draw what the seed has in store."""
    words = tuple(f"word{rng.randint(0, 999)}" for _ in range(rng.randint(20, 30)))
    schedule = draw_schedule(rng, list(OFFERS))
    budget_mc = rng.randint(20, POOR_MC) if rng.random() < _POOR_CHANCE else 100_000
    cancel_s = rng.uniform(0.2, 8.0) if rng.random() < _CANCEL_CHANCE else None
    return Story(words, schedule, budget_mc, cancel_s)


def graph() -> TaskGraph:
    """Return the job's plan: a pipeline, and a sum beside it."""
    pipeline = pipeline_graph(echo_items_max=8)
    total = SubTask(
        id="sum",
        capability="math.sum@1",
        inputs={"numbers": Source(kind="input", name="numbers")},
        checks=[Check(kind="recompute")],
    )
    return msgspec.structs.replace(
        pipeline,
        name="five nodes",
        subtasks=[*pipeline.subtasks, total],
        outputs={
            **pipeline.outputs,
            "total": Source(kind="task", name="sum", pointer="/total"),
        },
    )


def inputs_and_outputs(story: Story) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Return the job's inputs and, computed here without any node, its right outputs."""
    numbers: list[JsonValue] = [len(word) for word in story.words]
    inputs: dict[str, JsonValue] = {"words": list(story.words), "numbers": numbers}
    text = "-".join(word.upper() for word in story.words)
    return inputs, {"text": text, "total": sum(len(word) for word in story.words)}


# --- the mesh ------------------------------------------------------------------------


async def populate(mesh: SimMesh, book: CallBook) -> None:
    """Start the five nodes, each with agents and a clock of its own."""
    for name, skills in OFFERS.items():
        rng = mesh.world.random(f"{name}/tempers")
        tempers = {skill.name: draw_temper(rng) for skill in skills}
        for skill in skills:
            if (name, skill.name) in _RELIABLE:
                tempers[skill.name] = Temper(concurrency_max=rng.randint(1, 4))
        await mesh.start(
            name,
            agents=partial(_agents, mesh, book, name, tempers),
            skew_ms=rng.randint(-_SKEW_MS_MAX, _SKEW_MS_MAX),
        )


def _agents(
    mesh: SimMesh, book: CallBook, name: str, tempers: Mapping[str, Temper]
) -> list[Agent]:
    lives = mesh.members[name].lives
    return [
        SimAgent(
            skill,
            tempers[skill.name],
            node=name,
            rng=mesh.world.random(f"{name}/{lives}/{skill.name}"),
            book=book,
        )
        for skill in OFFERS[name]
    ]


# --- the job's owner -------------------------------------------------------------------


async def submit(mesh: SimMesh, story: Story) -> str:
    """Submit the job until the broker has taken it; the key makes it one job."""
    inputs, _ = inputs_and_outputs(story)
    terms = Terms(budget_mc=story.budget_mc, deadline_s=DEADLINE_S, idempotency_key="once")
    while True:
        try:
            return await mesh.ask(BROKER, lambda node: node.submit(graph(), inputs, terms))
        except (Down, MeshError) as exc:
            mesh.world.trace.note(f"submit again: {type(exc).__name__}")
        await trio.sleep(_POLL_S)


async def await_end(mesh: SimMesh, job: str, *, limit_s: float) -> JobState | None:
    """Return the job's state when it has ended, across crashes of its broker; None if never."""

    async def state(node: Node) -> JobState:
        return (await node.journal(job)).state

    with trio.move_on_after(limit_s):
        while True:
            try:
                found = await mesh.ask(BROKER, state)
                if found.done is not None:
                    return found
            except (Down, MeshError) as exc:
                mesh.world.trace.note(f"ask again: {type(exc).__name__}")
            await trio.sleep(_POLL_S)
    return None


async def cancel(mesh: SimMesh, job: str, after_s: float) -> None:
    """Cancel the job, as often as it takes to be heard."""
    await trio.sleep(after_s)
    while True:
        try:
            return await mesh.ask(BROKER, lambda node: node.cancel(job))
        except (Down, MeshError) as exc:
            mesh.world.trace.note(f"cancel again: {type(exc).__name__}")
        await trio.sleep(_POLL_S)


async def ending(mesh: SimMesh, job: str, story: Story, state: JobState) -> Ending:
    """Gather what the checkers look at."""
    assert state.done is not None
    node = mesh.node(BROKER)
    outputs = await node.outputs(job) if state.done.state == "completed" else None
    return Ending(
        broker=BROKER,
        job=job,
        state=(await node.journal(job)).state,
        outputs=outputs,
        export=await (await node.journal(job)).export(),
        wanted=inputs_and_outputs(story)[1],
        deadline_ms=state.required_plan.deadline_ms + int(SLACK_S * 1000),
    )


# --- the scenario ----------------------------------------------------------------------


async def five_nodes(world: World) -> None:
    """Play it.

    Raises:
        Broken: Something that must hold did not; names all of it.
    """
    story = draw_story(world.random("story"))
    world.trace.note(f"story: {story.schedule}; cancel {story.cancel_s}")
    mesh, book = SimMesh(world, weather=FAIR, lossiness=LIKE_KADEMLIA), CallBook()
    watch = Watch(mesh, book)
    await populate(mesh, book)
    await trio.sleep(1.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry_out, mesh, story.schedule)
        job = await submit(mesh, story)
        if story.cancel_s is not None:
            nursery.start_soon(cancel, mesh, job, story.cancel_s)
        state = await await_end(mesh, job, limit_s=DEADLINE_S + 2 * SLACK_S)
        nursery.cancel_scope.cancel()
    await heal(mesh)
    await come_to_rest(mesh, book, limit_s=REST_S)
    troubles = [*watch.troubles, *check_rest(mesh, book)]
    if await submit(mesh, story) != job:
        troubles.append("the same key gave another job")
    if state is None:
        troubles.append(f"job {job} has not ended {2 * SLACK_S:g} s after its deadline")
    else:
        end = await ending(mesh, job, story, state)
        troubles += _unexplained(story, state)
        troubles += check_ending(end)
        troubles += check_receipts(mesh, end)
        troubles += check_money(mesh)
        troubles += check_opinions(mesh)
    if troubles:
        raise Broken("\n  ".join([f"{story.schedule}", *troubles]))
    world.trace.note(f"ended: {state.done if state else None}")


def _unexplained(story: Story, state: JobState) -> Iterator[str]:
    """The story explains how the job ended."""
    assert state.done is not None
    outcome = state.done.code or state.done.state
    explained = {"completed"}
    if story.cancel_s is not None:
        explained.add("owner")
    if story.budget_mc <= POOR_MC:
        explained.add("budget.exceeded")
    if outcome not in explained:
        yield f"it ended as {outcome}: {state.done.text}"


def command(seed: int) -> str:
    """Return what to type to see a seed again."""
    return f"python -m simulations.world {__name__}:five_nodes --seed {seed} --lines 400"


def play(seed: int) -> Run:
    """Run the scenario with ``seed``; a failure says how to see it again."""
    return run(five_nodes, seed=seed, replay=command(seed))
