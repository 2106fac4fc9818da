"""What was accepted of a job that ended early can be had, and nothing else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from meshnode import public
from meshnode.errors import JobFailed, NotFound
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.partial_outputs import partial_outputs
from protocol.graph import Source, SubTask, TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    until,
)


async def some(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    """Answer, unless told to be stuck."""
    if text == "stuck":
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()
    yield Output({"text": text.upper()})


def then_again() -> TaskGraph:
    """A map, one call a unit, and what waits for all of it."""
    again = SubTask(
        id="again",
        capability="text.shout",
        inputs={"text": Source(kind="task", name="say", pointer="/text")},
        each=["text"],
    )
    graph = shouting(3, batch_items_max=1)
    return TaskGraph(name="two", subtasks=[*graph.subtasks, again], outputs=graph.outputs)


def test_a_cancelled_job_gives_what_was_accepted_and_says_what_is_missing() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(some)])
        job = public.Job(
            a, await a.journal(await a.submit(then_again(), inputs("x", "stuck", "z")))
        )
        await until(lambda: job.status()["kept"] == 2)
        with pytest.raises(NotFound, match="has not ended"):
            await job.partial_outputs()
        await job.cancel()
        with pytest.raises(JobFailed) as failed:
            await job.result()
        assert "partial_outputs" in failed.value.hint
        with pytest.raises(NotFound) as refused:
            await a.outputs(job.id)
        assert "those of 2 units were accepted" in refused.value.hint
        assert "--partial" in refused.value.hint

        made: Any = await job.partial_outputs()
        assert made["state"] == "cancelled"
        assert (made["kept"], made["units"]) == (2, 3), "of what waits for them there is none"
        assert made["subtasks"] == [
            {
                "id": "say",
                "capability": "text.shout",
                "finished": False,
                "units": 3,
                "kept": [
                    {"unit": "say/0", "start": 0, "items": 1, "value": [{"text": "X"}]},
                    {"unit": "say/2", "start": 2, "items": 1, "value": [{"text": "Z"}]},
                ],
                "gone": [],
            },
            {
                "id": "again",
                "capability": "text.shout",
                "finished": False,
                "units": None,
                "kept": [],
                "gone": [],
            },
        ]
        told: Any = job.explain()
        assert told["kept"] == 2
        assert any(
            "The outputs of 2 of 3 units were accepted" in line for line in _lines(told)
        ), told["words"]

        mesh.crash("a")
        again = await mesh.restart("a")
        assert await again.broker.partial_outputs(job.id) == made, "it outlives the process"

    play(story)


def test_what_is_no_longer_kept_or_too_large_is_named() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(some)])
        name = await a.submit(then_again(), inputs("long" * 9, "stuck", "z"))
        journal = await a.journal(name)
        await until(lambda: journal.state.kept() == 2)
        await a.cancel(name)
        await a.wait(name)
        few: Any = await partial_outputs(journal.state, a.artifacts, bytes_max=30)
        (say, _) = few["subtasks"]
        assert [row["unit"] for row in say["kept"]] == ["say/2"]
        assert [(row["unit"], row["why"]) for row in say["gone"]] == [("say/0", "too_large")]
        for table in ("artifact", "artifact_chunk"):
            mesh.members["a"].disk.tables[table].clear()
        a.artifacts._memory.clear()
        none: Any = await a.broker.partial_outputs(name)
        (say, _) = none["subtasks"]
        assert say["kept"] == []
        assert [(row["unit"], row["why"]) for row in say["gone"]] == [
            ("say/0", "lapsed"),
            ("say/2", "lapsed"),
        ]
        assert none["kept"] == 2, "they were accepted all the same"

    play(story)


def test_a_job_of_which_nothing_was_accepted_promises_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(50))])
        job = await a.submit(shouting(), inputs("x"))
        await a.cancel(job)
        await a.wait(job)
        with pytest.raises(NotFound) as refused:
            await a.outputs(job)
        assert "none of its units" in refused.value.hint
        assert "--partial" not in refused.value.hint

    play(story)


def _lines(told: Any) -> list[str]:
    return [" ".join(section["lines"]) for section in told["words"]]
