"""A whole node that nobody can dial: it works for others over the connections it opened."""

import trio

from meshnode.node import Node
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start


async def ends(node: Node) -> str:
    """Have ``node`` get something shouted; return how that ended."""
    job = await node.submit(shouting(), inputs("hello"))
    with trio.fail_after(60):
        while (done := (await node.journal(job)).state.done) is None:  # noqa: ASYNC110 - no event for it
            await trio.sleep(0.1)
    return done.state


def test_a_hidden_node_serves_everybody_and_again_after_a_crash() -> None:
    async def story(mesh: SimMesh) -> None:
        network = mesh.world.network
        agent = TextAgent()
        a, c = await start(mesh, a=[], c=[])
        await mesh.start("hidden", agents=lambda: [agent], listens=False)
        hidden = mesh.peer("hidden")
        assert [await ends(node) for node in (a, c)] == ["completed"] * 2
        mesh.crash("hidden")
        await trio.sleep(3)
        await mesh.restart("hidden")
        await trio.sleep(10)
        assert network.transport(hidden).addresses() == ()
        assert [await ends(node) for node in (a, c)] == ["completed"] * 2
        assert len(agent.calls) == 4

    play(story)
