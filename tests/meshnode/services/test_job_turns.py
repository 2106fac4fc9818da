"""How often a job's runner asks what is next.

In virtual time (a MockClock's).
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
import trio

from meshnode.config import HostConfig
from meshnode.domain.job import JobState
from meshnode.domain.step_kinds import Step, View
from meshnode.domain.steps import next_steps
from meshnode.services import job_runner
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    slow_disk,
    start,
)


def test_results_that_come_together_are_decided_on_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given eight results, of which seven come while the disk is busy with the first."""
    honest, asked_s = next_steps, []

    def steps(state: JobState, now_ms: int, view: View) -> Sequence[Step]:
        asked_s.append(trio.current_time())
        return honest(state, now_ms, view)

    monkeypatch.setattr(job_runner, "next_steps", steps)

    async def story(mesh: SimMesh) -> None:
        config = msgspec.structs.replace(CONFIG, host=HostConfig(calls_max=8))
        agent = TextAgent(answers_after(5.0), concurrency_max=8)
        a, _ = await start(mesh, config, a=[], b=[agent])
        slow_disk(mesh, "a", 0.5)
        job = await a.submit(shouting(16, batch_items_max=1), inputs(*"abcdefghijklmnop"))
        state = await a.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert len(state.units) == 16
        at_once = max(Counter(asked_s).values())
        assert at_once == 2, "what is next is asked until nothing is, and once for all"

    play(story)
