"""Answers that wait to be compared, and can't be had any more.

(A MockClock's time.)
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from meshnode.domain.facts import Delivered
from meshnode.errors import ArtifactError
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.standby_artifacts import StandbyArtifacts
from simulations.mesh import SimMesh
from tests.meshnode.services.test_assurance import audited
from tests.meshnode.services.test_failover import broker_of, terms
from tests.meshnode.services.test_panel_heirs import mesh_of
from tests.meshnode.services.worlds import Behave, TextAgent, inputs, play, shouting, until


def at_length(delay_s: float, tail: str = "") -> Behave:
    """Answer with more than a result has room for: it is fetched."""

    async def behave(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.sleep(delay_s)
        yield Output({"text": text.upper() * 200_000 + tail})

    return behave


def test_an_heir_that_cannot_have_one_answer_judges_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch = vars(StandbyArtifacts)["_bytes"]

    async def inputs_only(self: Any, seat: Any, fact: Any, about: Any) -> bytes:
        if isinstance(fact, Delivered):
            raise ArtifactError("it takes too long")
        data: bytes = await fetch(self, seat, fact, about)
        return data

    monkeypatch.setattr(StandbyArtifacts, "_bytes", inputs_only)

    async def story(mesh: SimMesh) -> None:
        makers = [TextAgent(at_length(0.2, "?")), TextAgent(at_length(8.0))]
        a, *_ = await mesh_of(mesh, [], *makers)
        asked = terms(mesh, assurance=0.9, deadline_s=120.0)
        job = await a.submit(shouting(), inputs("hi"), asked)
        journal = await a.journal(job)

        def answers() -> int:
            units = journal.state.units
            return len(units["say/0"].answers()) if "say/0" in units else 0

        await until(lambda: answers() == 1, within_s=60.0)
        await trio.sleep(3.0)
        mesh.crash("m0")
        mesh.crash("a")
        heir = mesh.node(await broker_of(mesh, job, "c", "d"))
        begun_s = trio.current_time()
        state = await heir.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert trio.current_time() - begun_s < 60.0
        first, second = state.units["say/0"].attempts
        assert first.error is not None
        assert (first.error.code, first.error.blame) == ("artifact.unavailable", "artifact")
        assert second.paid_mc == 2
        assert await heir.outputs(job) == {"said": "HI" * 200_000}
        await audited(heir, state)
        mesh.failures.clear()

    play(story)
