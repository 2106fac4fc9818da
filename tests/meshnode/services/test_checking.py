"""Whose fault it is when a result can't be checked or kept (a MockClock's time)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import NodeConfig
from meshnode.domain.attempts import INPUTS_GONE, UNCHECKED_MAX
from meshnode.domain.circuits import CircuitState
from meshnode.domain.programs import PROGRAM
from meshnode.errors import ArtifactError, ArtifactTooLarge
from meshnode.gateway.auth import status_of
from meshnode.ports import AgentCall, Chunk, Confinement, Finished, Output
from meshnode.services.artifact_sizes import check_size
from meshnode.services.artifacts import Wanted
from protocol.graph import Check
from protocol.limits import ARTIFACT_SIZE_MAX
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, until


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


def keeping(bytes_max: int) -> NodeConfig:
    host: Any = msgspec.structs.replace(CONFIG.host, artifact_bytes_max=bytes_max)
    config: NodeConfig = msgspec.structs.replace(CONFIG, host=host)
    return config


async def at_length(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    await trio.lowlevel.checkpoint()
    yield Output({"text": "x" * 50_000})


def test_an_output_that_its_maker_can_not_keep_is_made_by_another() -> None:
    async def story(mesh: SimMesh) -> None:
        small, large = TextAgent(at_length), TextAgent(at_length, price_mc=50)
        b = await mesh.start("b", agents=lambda: [small], config=keeping(20_000))
        a, _ = await start(mesh, a=[], c=[large])
        await until(lambda: len(a.known()) == 3)
        state = await a.wait(await a.submit(shouting(), inputs("x")))
        assert state.done is not None
        assert state.done.state == "completed"
        (failure,) = state.units["say/0"].failures()
        assert (failure.peer, failure.code) == (b.peer, "artifact.too_large")
        assert "20000 are the most" in failure.text
        assert (len(small.calls), len(large.calls)) == (1, 1)

    play(story)


def test_an_output_that_the_broker_can_not_keep_is_blamed_on_nobody() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(at_length)
        a = await mesh.start("a", config=keeping(20_000))
        (b,) = await start(mesh, b=[agent])
        await until(lambda: len(a.known()) == 2)
        state = await a.wait(await a.submit(shouting(), inputs("x")))
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "artifact.too_large")
        failures = state.units["say/0"].failures()
        assert {(each.peer, each.blame) for each in failures} == {("", "broker")}
        assert a.market.circuit(b.peer) is CircuitState.CLOSED

    play(story)


def test_a_job_whose_input_is_too_large_to_keep_is_told_which_setting_that_is() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", agents=lambda: [TextAgent()], config=keeping(20_000))
        with pytest.raises(ArtifactTooLarge, match="20000 are the most") as told:
            await a.submit(shouting(), inputs("x" * 30_000))
        assert "artifact_bytes_max" in told.value.hint
        assert status_of(told.value) == 413

    play(story)


def test_nothing_is_larger_than_the_mesh_lets_one_artifact_be() -> None:
    check_size(ARTIFACT_SIZE_MAX, kept_bytes_max=2 * ARTIFACT_SIZE_MAX)
    with pytest.raises(ArtifactTooLarge) as told:
        check_size(ARTIFACT_SIZE_MAX + 1, kept_bytes_max=2 * ARTIFACT_SIZE_MAX)
    assert (told.value.limit, told.value.hint) == (ARTIFACT_SIZE_MAX, "hand it over in parts")


class Runs:
    """A sandbox in which each program gives what it says."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def check(self, within: Confinement, program: str = "") -> str:
        await trio.lowlevel.checkpoint()
        return f"{program} within {within.timeout_s} s"

    async def run(
        self,
        argv: Sequence[str],
        within: Confinement,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        await trio.sleep(1)
        assert argv
        assert env is None
        self.asked.append(stdin)
        return Finished(0, within.files[PROGRAM], "")


def writes(text: str) -> TextAgent:
    async def behave(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.lowlevel.checkpoint()
        yield Output({"text": text})

    return TextAgent(behave)


@pytest.mark.parametrize(
    ("program", "sandbox", "end"),
    [
        ("[4]", Runs(), ("completed", "verified", "program")),
        ("[5]", Runs(), ("failed", "", "")),
        ("[4]", None, ("completed", "unverified", "")),
    ],
)
def test_a_program_is_tried_before_it_is_taken(
    program: str, sandbox: Runs | None, end: tuple[str, str, str]
) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[writes(program)])
        a.broker._tools.checking._sandbox = sandbox
        cases = b'[{"args":[2],"call":"double","gives":4}]'
        check = Check(kind="program", output="/text", value=cases)
        graph = shouting(checks=[check], attempts_max=1)
        state = await a.wait(await a.submit(graph, inputs("x")))
        assert state.done is not None
        unit = state.units["say/0"]
        found = unit.attempts[0].verdict
        assert state.done.state == end[0]
        if end[1]:
            assert found is not None
            assert (found.verdict, found.check) == end[1:]
        else:
            (failure,) = unit.failures()
            assert (failure.peer, failure.blame) == (b.peer, "peer")
            assert "case 0, double: it gave '5'" in failure.text
        if sandbox is not None:
            assert sandbox.asked == [b'[{"args":[2],"call":"double"}]']

    play(story)


def test_each_program_of_a_batch_is_tried_until_one_fails() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        checking, sandbox = a.broker._tools.checking, Runs()
        checking._sandbox = sandbox
        check = Check(
            kind="program", output="/text", value=b'[{"args":[],"call":"f","gives":4}]'
        )

        async def told(*programs: str) -> str | None:
            return await checking._trial(check, [{"text": text} for text in programs], [])

        assert await told("[4]", "[4]") == ""
        assert "it gave '5'" in (await told("[4]", "[5]", "[4]") or "")
        assert len(sandbox.asked) == 4
        checking._sandbox = None
        assert await told("[4]") is None

    play(story)
