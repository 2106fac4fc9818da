"""The planner in a mesh: it knows what is advertised, and says what it can't place."""

from collections.abc import Sequence

import pytest

from meshnode.errors import AgentError, CannotPlan, InputInvalid, NoProvider
from meshnode.node import Node
from meshnode.public import TaskGraph
from meshnode.services.planner import GOAL_CHARACTERS_MAX, Planner
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, play, start, until


async def knowing(mesh: SimMesh) -> Node:
    a, _ = await start(mesh, a=[], b=[TextAgent()])
    await until(lambda: bool(a.planner.offers()))
    return a


def test_a_goal_becomes_a_graph_that_runs() -> None:
    async def story(mesh: SimMesh) -> None:
        node = await knowing(mesh)
        files = [{"path": "a", "text": "one"}, {"path": "b", "text": "two"}]
        plan = await node.planner.plan("Shout this text", files=files)
        assert not plan.by_meaning
        job = await node.submit(plan.assembled.graph, plan.assembled.inputs)
        await node.wait(job)
        assert await node.outputs(job) == {"shout": [{"text": "ONE"}, {"text": "TWO"}]}
        state = (await node.journal(job)).state
        assert state.spent_mc == plan.assembled.cost_mc

    play(story)


def test_what_cant_be_served_is_refused_with_the_nearest() -> None:
    async def story(mesh: SimMesh) -> None:
        node = await knowing(mesh)
        with pytest.raises(
            NoProvider, match="nothing here can serve 'Paint my house'"
        ) as caught:
            await node.planner.plan("Paint my house")
        assert "text.shout@1" in caught.value.hint
        with pytest.raises(CannotPlan, match="'paint my house'") as partly:
            await node.planner.plan("Shout this text and paint my house")
        assert "--partial" in partly.value.hint
        plan = await node.planner.plan("Shout this text and paint my house", partial=True)
        assert len(plan.outline.steps) == 1

    play(story)


@pytest.mark.parametrize("goal", ["", "  \n", "x" * (GOAL_CHARACTERS_MAX + 1)])
def test_no_goal_and_too_long_a_goal_are_refused(goal: str) -> None:
    async def story(mesh: SimMesh) -> None:
        node = await knowing(mesh)
        with pytest.raises(InputInvalid, match="the goal"):
            await node.planner.plan(goal)

    play(story)


def test_a_node_that_knows_nobody_says_what_to_do() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        with pytest.raises(NoProvider, match="no agent is known") as caught:
            await a.planner.plan("Shout this text")
        assert "--join" in caught.value.hint

    play(story)


def test_without_a_model_it_goes_by_words_and_says_so() -> None:
    class Broken:
        async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
            raise AgentError(f"no model for {len(texts)} texts")

    async def story(mesh: SimMesh) -> None:
        node = await knowing(mesh)
        told: list[str] = []
        planner = Planner(
            node.directory,
            embedder=Broken(),
            emit=lambda name, /, **_: told.append(name),
            clock=node.clock,
        )
        assert not (await planner.plan("Shout this text")).by_meaning
        assert "plan.by_words" in told
        (name, score), *_ = await planner.near("shout something")
        assert (name, score > 0.2) == ("text.shout@1", True)

    play(story)


def test_the_graph_builder_and_the_planner_make_the_same() -> None:
    async def story(mesh: SimMesh) -> None:
        node = await knowing(mesh)
        plan = await node.planner.plan("Shout this text", files=[{"path": "a", "text": "x"}])
        graph = TaskGraph("Shout this text")
        place = graph.task("text.shout@1", text=graph.input("files")[0]["text"])
        graph.output("shout", place)
        assert plan.assembled.graph == graph.build()

    play(story)
