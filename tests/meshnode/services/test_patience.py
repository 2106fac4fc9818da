"""Work for a node that is away is kept, and done when it is back, if the deadline allows.

The hours pass in a MockClock's time.
"""

import trio

from meshnode.domain.job import JobState
from meshnode.node import Node
from meshnode.services.job_terms import Terms
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start


async def ended(node: Node, job: str) -> JobState:
    with trio.fail_after(100_000):
        return await node.wait(job)


def test_a_job_waits_for_a_node_that_is_away_through_a_restart_of_its_broker() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[agent], c=[])
        mesh.crash("b")
        terms = Terms(deadline_s=2 * 3600, patience_s=3600)
        job = await a.submit(shouting(), inputs("x"), terms)
        await trio.sleep(600)
        assert (await a.journal(job)).done is None, "it is waited for"
        mesh.crash("a")
        await trio.sleep(60)
        a = await mesh.restart("a")
        await trio.sleep(300)
        assert (await a.journal(job)).done is None, "after a restart too"
        back_s = trio.current_time()
        await mesh.restart("b")
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert trio.current_time() - back_s < 120, "soon after it is back"
        assert agent.calls == ["x"]

    play(story)


def test_who_is_away_for_longer_than_that_is_given_up() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[TextAgent()], c=[])
        mesh.crash("b")
        begun_s = trio.current_time()
        terms = Terms(deadline_s=3600, patience_s=600)
        state = await ended(a, await a.submit(shouting(), inputs("x"), terms))
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "cfp.unanswered")
        assert 600 <= trio.current_time() - begun_s < 720

    play(story)
