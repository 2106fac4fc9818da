"""Small worlds for tests of services: real nodes on simulated ports, in virtual time.

A story is played in a MockClock's time, so a test may let time pass without waiting.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import trio

from meshnode.config import NodeConfig
from meshnode.node import Node
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output
from protocol.graph import Source, SubTask, TaskGraph
from simulations.mesh import CONFIG, SimMesh
from simulations.weather import Weather
from simulations.world import World, run

STILL: Final = Weather(latency_s=0.005, jitter_s=0.0, split_chance=0.0)

Behave = Callable[[str, AgentCall], AsyncIterator[Chunk | Output]]


async def shout(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    """Answer at once."""
    await trio.lowlevel.checkpoint()
    yield Output({"text": text.upper()})


class TextAgent:
    """An agent from text to text that behaves as it is told to.

    Attributes:
        calls: Inputs of every call.
        running: How many run now.
        stopped_s: When calls ended, on Trio's clock.
    """

    def __init__(self, behave: Behave = shout, **options: Any) -> None:
        self.calls: list[str] = []
        self.running = 0
        self.stopped_s: list[float] = []
        self._behave = behave
        shape: dict[str, JsonValue] = {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        }
        settings: dict[str, Any] = {
            "name": "shout",
            "capability": "text.shout@1",
            "description": "Shouts.",
            "input_schema": shape,
            "output_schema": shape,
            "price_mc": 2,
            "concurrency_max": 4,
            "timeout_s": 60.0,
        }
        self._spec = AgentSpec(**{**settings, **options})

    @property
    def spec(self) -> AgentSpec:
        return self._spec

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        assert isinstance(value, dict)
        text = value["text"]
        assert isinstance(text, str)
        self.calls.append(text)
        self.running += 1
        try:
            pieces: Any = self._behave(text, call)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        finally:
            self.running -= 1
            self.stopped_s.append(trio.current_time())

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def answers_after(seconds: float) -> Behave:
    """Return a behaviour that takes ``seconds``."""

    async def behave(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.sleep(seconds)
        yield Output({"text": text.upper()})

    return behave


async def never(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    """Don't return."""
    await trio.sleep_forever()
    yield Output(None)


def shouting(words: int = 1, **options: Any) -> TaskGraph:
    """Return a plan that shouts its input ``words``: one call, or a map of them."""
    text = Source(kind="input", name="words", pointer="/0" if words == 1 else "")
    each = [] if words == 1 else ["text"]
    task = SubTask(
        id="say", capability="text.shout", inputs={"text": text}, each=each, **options
    )
    return TaskGraph(
        name="test",
        subtasks=[task],
        outputs={"said": Source(kind="task", name="say", pointer="/text")},
    )


def inputs(*words: str) -> dict[str, JsonValue]:
    """Return the inputs of :func:`shouting`."""
    return {"words": list(words)}


def play(story: Callable[[SimMesh], Awaitable[None]], *, seed: int = 1) -> None:
    """Play ``story`` in a mesh without nodes yet; nothing may have gone wrong unseen."""

    async def scenario(world: World) -> None:
        mesh = SimMesh(world, weather=STILL)
        await story(mesh)
        assert mesh.failures == []
        assert world.network.handler_failures == []

    run(scenario, seed=seed)


async def start(
    mesh: SimMesh, config: NodeConfig = CONFIG, /, **agents: Sequence[Agent]
) -> list[Node]:
    """Start nodes by name with what they host; they know each other when this returns."""
    nodes = [
        await mesh.start(name, agents=partial(tuple, hosted), config=config)
        for name, hosted in agents.items()
    ]
    with trio.fail_after(30):
        while any(len(node.known()) < len(nodes) for node in nodes):  # noqa: ASYNC110 - no event for it
            await trio.sleep(0.1)
    return nodes


async def until(claim: Callable[[], bool], *, within_s: float = 30.0) -> float:
    """Wait until ``claim`` holds; return how long that took."""
    begun_s = trio.current_time()
    with trio.fail_after(within_s):
        while not claim():  # noqa: ASYNC110 - a claim has no event
            await trio.sleep(0.01)
    return trio.current_time() - begun_s


def told(node: Node, name: str) -> list[dict[str, object]]:
    """Return the fields of every recent event of that name."""
    return [dict(event.fields) for event in node.events.recent if event.name == name]


def slow_disk(mesh: SimMesh, name: str, commit_s: float) -> None:
    """Let each commit of the node called ``name`` take so long, until it is restarted."""
    life = mesh.members[name].life
    assert life is not None
    life.store._latency_s = (commit_s, commit_s)
