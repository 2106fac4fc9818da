"""Panels of jobs with standbys: judges are asked and paid once, by the job's owner.

(A MockClock's time.)
"""

from collections.abc import AsyncIterator, Sequence

import trio

from meshnode.node import Node
from meshnode.ports import Agent, AgentCall, Chunk, Output
from simulations.mesh import CONFIG, SimMesh
from simulations.money import check_money
from tests.meshnode.services.test_assurance import CAPABILITY, audited
from tests.meshnode.services.test_failover import WITH, broker_of, terms
from tests.meshnode.services.test_panels import JUDGING, Judge, believe, disputed
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    start,
    until,
)


async def lies_late(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    await trio.sleep(3.0)
    yield Output({"text": text.upper() + "?"})


async def mesh_of(mesh: SimMesh, judges: Sequence[Judge], *makers: Agent) -> list[Node]:
    """Start the owner's node a, standbys c and d, and makers and judges whom all believe."""
    (a,) = await start(mesh, CONFIG, a=[])
    standbys = await start(mesh, WITH, c=[], d=[])
    made = await start(mesh, CONFIG, **{f"m{n}": [agent] for n, agent in enumerate(makers)})
    seats = await start(mesh, CONFIG, **{f"j{n}": [judge] for n, judge in enumerate(judges)})
    count = 3 + len(makers) + len(judges)
    for one in (a, *standbys):
        await until(lambda one=one: len(one.known()) >= count - 1)  # type: ignore[misc]
        await believe(one, CAPABILITY, "shout", made)
        await believe(one, JUDGING, "judge", seats)
    return [a, *standbys]


def disputants() -> list[TextAgent]:
    return [TextAgent(lies_late), TextAgent(answers_after(3.0))]


def test_an_heir_calls_no_panel_and_the_owner_owes_it_all_that_it_paid() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges, *disputants())
        job = await a.submit(disputed(), inputs("hi"), terms(mesh, assurance=0.9))
        await trio.sleep(2.5)
        mesh.crash("a")
        heir = mesh.node(await broker_of(mesh, job, "c", "d"))
        await heir.wait(job)
        again = await mesh.restart("a")
        state = await again.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.outcome == "contested"
        assert not any(judge.calls for judge in judges)
        await trio.sleep(60.0)
        balances = heir.ledger.balances
        assert sum(balances.due_mc(peer) for peer in balances.peers()) == 0
        assert list(check_money(mesh)) == []
        await audited(again, state)

    play(story)


def test_no_judge_is_asked_before_heirs_know_that_there_is_a_panel() -> None:
    judges = [Judge(delay_s=0.3) for _ in range(3)]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges, *disputants())
        job = await a.submit(disputed(), inputs("hi"), terms(mesh, assurance=0.9))
        await trio.sleep(2.9)
        mesh.world.network.partition([a.peer], [mesh.peer("c"), mesh.peer("d")])
        journal = await a.journal(job)
        await until(lambda: journal.state.units["say/0"].summons is not None)
        await trio.sleep(2.0)
        asked = sum(len(judge.calls) for judge in judges)
        mesh.crash("a")
        mesh.world.network.partition()
        heir = await broker_of(mesh, job, "c", "d")
        await mesh.node(heir).wait(job)
        again = await mesh.restart("a")
        state = await again.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        await trio.sleep(60.0)
        assert list(check_money(mesh)) == []
        assert asked == 0
        await audited(again, state)

    play(story)
