"""A peer that failed gets one unit to show that it does well again (a MockClock's time)."""

import trio

from meshnode.domain.circuits import FAILURES_MAX, OPEN_S, CircuitState
from meshnode.services.looking import Provider
from simulations.agents import ECHO, Act, Temper
from simulations.stage import Stage
from simulations.world import World, run

LONG_S = 1.3 * OPEN_S


def circuit(mesh: Stage, peer: str) -> CircuitState:
    return mesh.node("broker0").market.circuit(mesh.mesh.peer(peer))


def offered(mesh: Stage) -> list[tuple[bool, bool]]:
    found = mesh.node("broker0").market.candidates("text.echo@1")
    return [(candidate.troubled, candidate.probe) for candidate in found]


def test_one_unit_goes_to_see_and_closes_the_circuit() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        agent = Act(ECHO, Temper(latency_s=(1.0, 1.0), concurrency_max=4))
        (maker,) = mesh.add([agent], n=1, name="maker")
        mesh.add(n=1, name="broker")
        await mesh.ready()
        await trio.sleep(2)
        market = mesh.node("broker0").market
        assert offered(mesh) == [(False, False)]
        market.failed(mesh.mesh.peer(maker), unreachable=False)
        assert offered(mesh) == [(True, False)], "the last choice"
        await trio.sleep(LONG_S)
        assert offered(mesh) == [(False, True)]
        ends: list[float] = []

        async def ask() -> None:
            await mesh.submit("text.echo@1", {"text": "x"}, by="broker0")
            ends.append(trio.current_time())

        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert circuit(mesh, maker) is CircuitState.CLOSED
        took_s = sorted(end_s - began_s for end_s in ends)
        assert took_s[0] < 2 <= took_s[1], "the others waited for what came of the first"
        assert took_s[3] - took_s[1] < 1, "and went all at once then"

    run(story, seed=1)


def test_others_are_looked_for_while_all_who_are_known_are_in_trouble() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        (maker,) = mesh.add([Act(ECHO, Temper())], n=1, name="maker")
        mesh.add(n=1, name="broker")
        await mesh.ready()
        node, searched = mesh.node("broker0"), []

        async def search(
            capability: str, *, timeout_s: float, records_max: int | None = None
        ) -> list[Provider]:
            searched.append((capability, timeout_s))
            await trio.lowlevel.checkpoint()
            return []

        vars(node.directory)["search"] = search
        await trio.sleep(5)
        assert offered(mesh) == [(False, False)]
        await trio.sleep(5)
        assert not searched, "who is known will do"
        node.market.failed(mesh.mesh.peer(maker), unreachable=True)
        assert offered(mesh) == [(True, False)]
        await trio.sleep(1)
        assert [capability for capability, _ in searched] == ["text.echo@1"]
        assert offered(mesh)
        await trio.sleep(1)
        assert len(searched) == 1, "now and then, not at each look"

    run(story, seed=1)


def test_agents_that_fail_in_a_row_open_the_circuit_of_their_node() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        (maker,) = mesh.add([Act(ECHO, Temper(error_chance=1.0))], n=1, name="maker")
        mesh.add(n=1, name="broker")
        await mesh.ready()
        seen = []
        for _ in range(FAILURES_MAX):
            await mesh.submit("text.echo@1", {"text": "x"}, by="broker0")
            seen.append(circuit(mesh, maker))
        closed = [CircuitState.CLOSED] * (FAILURES_MAX - 1)
        assert seen == [*closed, CircuitState.OPEN]

    run(story, seed=1)
