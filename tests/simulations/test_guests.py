"""Agents of the user's own in simulated nodes: in place, shared, and counted."""

import threading
from collections.abc import AsyncGenerator

import pytest
import trio

from meshnode import Agent, AgentCall, AgentSpec, Chunk, Output, agent
from meshnode.ports import JsonValue
from simulations.agents import UPPER
from simulations.checkers import check_rest
from simulations.stage import Broken, Stage


@agent("text.reversal@1")
def reverse(text: str) -> str:
    """Return a text backwards."""
    assert threading.current_thread() is threading.main_thread(), "no threads in virtual time"
    return text[::-1]


@agent("text.slow_reversal@1", timeout_s=1000.0)
async def reverse_slowly(text: str) -> str:
    """Return a text backwards, after a while."""
    await trio.sleep(500)
    return text[::-1]


@agent("text.spelling@1")
async def spell(text: str) -> AsyncGenerator[str, None]:
    """Spell a text."""
    for letter in text:
        await trio.sleep(1)
        yield letter
    yield "-".join(text)


@pytest.mark.parametrize(
    ("made", "result", "took_s"),
    [(reverse, "cba", 0), (reverse_slowly, "cba", 500), (spell, "a-b-c", 3)],
)
async def test_every_kind_of_function_runs_in_virtual_time(
    mesh: Stage, made: Agent, result: str, took_s: float
) -> None:
    mesh.add(agents=[made], n=3)
    end = await mesh.submit(made.spec.capability, {"text": "abc"}, deadline_s=2000)
    assert end.result == result
    assert took_s <= end.took_s < took_s + 2
    assert sum(mesh.book.begun.values()) == 1


async def test_a_simulated_and_an_own_agent_work_side_by_side(mesh: Stage) -> None:
    mesh.add(agents=[reverse, UPPER], n=2)
    assert (await mesh.submit("text.upper@1", {"text": "a"})).result == {"text": "A"}
    assert (await mesh.submit("text.reversal@1", {"text": "ab"})).result == "ba"


class Counted:
    """An agent that counts how often it is opened and closed."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.spec = AgentSpec(
            name="counted",
            capability="text.counted@1",
            description="Counts.",
            input_schema={"type": "object"},
            output_schema={"type": "integer"},
            concurrency_max=1,
        )

    async def open(self) -> None:
        await trio.sleep(0.1)
        self.told.append("open")

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        assert self.told[-1] == "open", (value, call)
        await trio.sleep(20)
        yield Output(len(self.told))

    async def aclose(self) -> None:
        self.told.append("close")
        await trio.sleep(0.1)


async def test_one_agent_of_many_nodes_is_opened_once_and_closed_by_the_last(
    mesh: Stage,
) -> None:
    counted = Counted()
    mesh.add(agents=[counted], n=3)
    mesh.add(name="desk")
    await mesh.ready()
    results: list[object] = []

    async def submit(number: int) -> None:
        end = await mesh.submit("text.counted@1", {"number": number}, by="desk0")
        results.append(end.result)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(submit, number)
        await trio.sleep(10)
        assert sorted(mesh.working()) == ["n0", "n1", "n2"]
        assert counted.told == ["open"]
        mesh.crash("n0", for_s=5)
        await trio.sleep(1)
        assert counted.told == ["open"], "two others still have it open"
    assert results == [1, 1, 1]
    for name in ("n0", "n1", "n2"):
        mesh.crash(name)
    await trio.sleep(1)
    assert counted.told == ["open", "close"]


async def test_a_factory_makes_one_for_each_life(mesh: Stage) -> None:
    made: list[Counted] = []

    def make() -> Counted:
        made.append(Counted())
        return made[-1]

    mesh.add(agents=[make], n=2)
    await mesh.ready()
    mesh.crash("n1")
    await mesh.heal()
    assert len(made) == 3


async def test_a_crash_ends_a_call_and_another_node_does_it(mesh: Stage) -> None:
    mesh.add(agents=[reverse_slowly], n=3)
    mesh.add(name="desk")
    hit: list[str] = []

    def crash() -> None:
        hit.extend(mesh.working())
        mesh.crash(hit[0])

    mesh.later(100, crash)
    end = await mesh.submit("text.slow_reversal@1", {"text": "ab"}, by="desk0", deadline_s=2000)
    assert end.result == "ba"
    assert 600 < end.took_s < 700, "the crash cost a hundred seconds"
    assert next(iter(mesh.book.begun))[0] == hit[0]
    assert len(mesh.book.begun) == 2


@agent("text.deaf@1", timeout_s=30.0)
async def deaf(text: str) -> str:
    """Go on when told to stop."""
    with trio.CancelScope(shield=True):
        await trio.sleep(3600)
    return text


@pytest.mark.mesh(settle=False)
async def test_an_own_agent_that_goes_on_is_found(mesh: Stage) -> None:
    mesh.add(agents=[deaf], n=2)
    end = await mesh.submit("text.deaf@1", {"text": "a"}, deadline_s=40)
    assert end.state != "completed"
    assert any("still runs" in trouble for trouble in check_rest(mesh.mesh, mesh.book))
    with pytest.raises(Broken, match="still runs"):
        await mesh.settle()
