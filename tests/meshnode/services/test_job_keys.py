"""Idempotency keys: one key is one job, and no other work is taken for it.

In virtual time (a MockClock's).
"""

from dataclasses import replace

import pytest
import trio

from meshnode.errors import KeyReused
from meshnode.node import Node
from meshnode.ports import JsonValue, Put
from meshnode.services.job_terms import Terms
from protocol.graph import TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start


def test_one_idempotency_key_is_one_job() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        a, _ = await start(mesh, a=[], b=[agent])
        terms = Terms(idempotency_key="k")
        jobs: list[str] = []

        async def submit() -> None:
            jobs.append(await a.submit(shouting(), inputs("x"), terms))

        async with trio.open_nursery() as nursery:
            for _number in range(3):
                nursery.start_soon(submit)
        await a.wait(jobs[0])
        await submit()
        mesh.crash("a")
        again = await mesh.restart("a")
        jobs.append(await again.submit(shouting(), inputs("x"), terms))
        assert len(jobs) == 5
        assert len(set(jobs)) == 1
        other = await again.broker.submit(shouting(), inputs("x"), terms, caller="another")
        assert other not in jobs, "a key is its caller's"
        assert agent.calls[0] == "x"

    play(story)


@pytest.mark.parametrize(
    ("graph", "given", "terms"),
    [
        (shouting(2), inputs("x", "y"), Terms()),
        (shouting(), inputs("y"), Terms()),
        (shouting(), inputs("x"), Terms(budget_mc=7)),
        (shouting(), inputs("x"), Terms(asked="another goal")),
    ],
    ids=["another graph", "other inputs", "another budget", "a goal"],
)
def test_a_key_is_refused_for_anything_else_than_it_was_first_used_for(
    graph: TaskGraph, given: dict[str, JsonValue], terms: Terms
) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        keyed = Terms(idempotency_key="monday")
        job = await a.submit(shouting(), inputs("x"), keyed)
        for restarts in (False, True):
            node = await restarted(mesh, "a") if restarts else a
            with pytest.raises(KeyReused, match=f"'monday' is that of job {job}"):
                await node.submit(graph, given, replace(terms, idempotency_key="monday"))
            hurried = replace(keyed, deadline_s=9)  # as who asks again with less time left
            assert await node.submit(shouting(), inputs("x"), hurried) == job
            assert len(await node.broker.jobs()) == 1

    play(story)


async def restarted(mesh: SimMesh, name: str) -> Node:
    mesh.crash(name)
    return await mesh.restart(name)


def test_a_goal_is_the_same_job_whatever_was_made_of_it_meanwhile() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        terms = Terms(idempotency_key="k", asked="shout x")
        job = await a.submit(shouting(), inputs("x"), terms)
        assert await a.submit(shouting(2), inputs("x", "y"), terms) == job
        with pytest.raises(KeyReused):
            await a.submit(shouting(), inputs("x"), replace(terms, asked="shout y"))

    play(story)


def test_a_key_of_an_older_version_matches_whatever_is_asked() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        terms = Terms(idempotency_key="k")
        job = await a.submit(shouting(), inputs("x"), terms)
        await a._ports.store.commit(Put("job_key", "local/k", job.encode()))
        assert await a.submit(shouting(2), inputs("x", "y"), terms) == job

    play(story)
