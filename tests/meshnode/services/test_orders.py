"""Work is ordered by letter of a node that is away, and comes back to one that was."""

import trio

from simulations.mesh import SimMesh
from tests.meshnode.services.ordering import TERMS, deposited, ended, three
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting


def test_a_broker_and_a_contractor_that_are_never_up_at_once_finish_a_job() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, bob = await three(mesh, [agent])
        mesh.crash("bob")
        job = await ada.submit(shouting(), inputs("x"), TERMS)
        await deposited(mesh)
        mesh.crash("ada")
        await trio.sleep(300)
        bob = await mesh.restart("bob")
        await deposited(mesh, for_="ada")
        assert agent.calls == ["x"]
        mesh.crash("bob")
        await trio.sleep(300)
        ada = await mesh.restart("ada")
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert await ada.outputs(job) == {"said": "X"}
        assert state.spent_mc == 2
        await deposited(mesh)  # the acceptance
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(60)
        assert bob.ledger.balances.due_mc(mesh.peer("ada")) == 2
        assert len(await bob.contractor.receipts()) == 1
        assert agent.calls == ["x"], "once"

    play(story)
