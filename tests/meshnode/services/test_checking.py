"""Whose fault it is when a result can't be checked (a MockClock's time)."""

from collections.abc import AsyncIterator

import trio

from meshnode.domain.attempts import INPUTS_GONE, UNCHECKED_MAX
from meshnode.domain.circuits import CircuitState
from meshnode.errors import ArtifactError
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.artifacts import Wanted
from protocol.graph import Check
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start


async def brief(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    """Answer in one word, however much is asked."""
    await trio.lowlevel.checkpoint()
    yield Output({"text": "OK"})


def test_a_broker_that_lost_its_copy_of_an_input_blames_nobody_and_gives_up_soon() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(brief)
        a, b = await start(mesh, a=[], b=[agent])

        async def gone(wanted: Wanted, *, timeout_s: float) -> bytes:
            await trio.lowlevel.checkpoint()
            raise ArtifactError(f"artifact {wanted.artifact.hex()[:12]} is no longer held here")

        vars(a.artifacts)["fetch"] = gone
        graph = shouting(checks=[Check(kind="recompute")], attempts_max=1)
        state = await a.wait(await a.submit(graph, inputs("x" * 10_000)))
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", INPUTS_GONE)
        assert "this node's copy of an input is gone" in state.done.text
        failures = state.units["say/0"].failures()
        assert {(each.peer, each.blame) for each in failures} == {("", "broker")}
        assert len(agent.calls) == UNCHECKED_MAX + 1
        assert a.market.circuit(b.peer) is CircuitState.CLOSED

    play(story)
