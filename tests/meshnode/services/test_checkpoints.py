"""What an agent saved of long work it goes on from when its node is back.

The work is done in a MockClock's time.
"""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from meshnode.errors import CheckpointTooLarge
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.checkpoints import (
    AWARD_BYTES_MAX,
    CHECKPOINT_BYTES_MAX,
    CHECKPOINTED,
    CHECKPOINTS,
)
from meshnode.services.job_terms import Terms
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, until

STEPS = 50


class Counting:
    """An agent whose work has fifty steps of a second, each saved when it is done."""

    def __init__(self, **options: Any) -> None:
        self.steps: Counter[str] = Counter()
        self.begun_at: list[tuple[str, int]] = []
        self.agent = TextAgent(self.work, timeout_s=600.0, **options)

    async def work(self, text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        done = int(call.saved or b"0")
        self.begun_at.append((text, done))
        while done < STEPS:
            await trio.sleep(1.0)
            done += 1
            self.steps[text] += 1
            await call.save(str(done).encode())
        yield Output({"text": f"{text}: {done}"})


def kept(mesh: SimMesh, name: str) -> int:
    """How many rows of checkpoints the disk of ``name`` holds."""
    tables = mesh.members[name].disk.tables
    return sum(len(tables.get(table, {})) for table in (CHECKPOINTS, CHECKPOINTED))


async def ended(node: Node, job: str) -> str:
    with trio.fail_after(1_200):
        state = await node.wait(job)
    assert state.done is not None
    return state.done.state


def test_work_goes_on_from_its_checkpoint_when_its_node_is_back() -> None:
    counting = Counting()

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[counting.agent])
        job = await a.submit(shouting(), inputs("x"), Terms(hedges_pct=0))
        for step in (10, 30):
            await until(lambda step=step: counting.steps["x"] > step, within_s=60)  # type: ignore[misc]  # bound now
            mesh.crash("b")
            await mesh.restart("b")
        assert await ended(a, job) == "completed"
        assert await a.outputs(job) == {"said": "x: 50"}
        assert [text for text, _ in counting.begun_at] == ["x"] * 3
        assert [done for _, done in counting.begun_at] == sorted(
            {done for _, done in counting.begun_at}
        )
        assert STEPS <= counting.steps["x"] <= STEPS + 2, "at each death a step is lost at most"
        assert kept(mesh, "b") == 0, "with the award it is gone"
        state = (await a.journal(job)).state
        assert len(state.units["say/0"].attempts) == 1, "it is the same award"

    play(story)


def test_each_item_of_an_award_has_its_own() -> None:
    counting = Counting(concurrency_max=1)  # one after the other, several in an award

    async def story(mesh: SimMesh) -> None:
        words = "uvwxyz"
        a, _ = await start(mesh, a=[], b=[counting.agent])
        terms = Terms(hedges_pct=0, deadline_s=3_600)
        job = await a.submit(shouting(len(words)), inputs(*words), terms)
        await until(lambda: counting.steps["v"] > 10, within_s=400)
        state = (await a.journal(job)).state
        assert state.units["say/0"].calls > 1
        mesh.crash("b")
        await mesh.restart("b")
        assert await ended(a, job) == "completed"
        assert await a.outputs(job) == {"said": [f"{word}: 50" for word in words]}
        assert all(STEPS <= counting.steps[word] <= STEPS + 1 for word in words)
        assert counting.steps["u"] == STEPS, "it was done, and isn't done again"
        assert kept(mesh, "b") == 0

    play(story)


def test_what_was_saved_goes_with_a_cancel_and_with_a_deadline_that_passed_meanwhile() -> None:
    counting = Counting()

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[counting.agent])
        job = await a.submit(shouting(), inputs("x"), Terms(hedges_pct=0))
        await until(lambda: kept(mesh, "b") == 2)
        await a.cancel(job)
        assert await ended(a, job) == "cancelled"
        assert kept(mesh, "b") == 0

        job = await a.submit(shouting(), inputs("y"), Terms(hedges_pct=0, deadline_s=20))
        await until(lambda: kept(mesh, "b") == 2)
        mesh.crash("b")
        await trio.sleep(30)
        await mesh.restart("b")
        await until(lambda: kept(mesh, "b") == 0)
        assert await ended(a, job) == "failed"
        assert counting.begun_at == [("x", 0), ("y", 0)], "nobody wants it any more"

    play(story)


def test_too_much_is_refused_and_what_was_saved_before_stays() -> None:
    refused: list[CheckpointTooLarge] = []
    found: list[bytes | None] = []

    async def greedy(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        await call.save(text.encode())
        with pytest.raises(CheckpointTooLarge) as caught:
            await call.save(bytes(CHECKPOINT_BYTES_MAX + 1))
        refused.append(caught.value)
        found.append(call.saved)
        await call.save(bytes(CHECKPOINT_BYTES_MAX))
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(greedy)])
        job = await a.submit(shouting(), inputs("x"))
        assert await ended(a, job) == "completed"
        assert found == [b"x"]
        assert str(CHECKPOINT_BYTES_MAX) in str(refused[0])

    play(story)


def test_the_items_of_an_award_share_what_it_may_save() -> None:
    saved: list[str] = []
    refused: list[str] = []

    async def together(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        try:
            await call.save(bytes(CHECKPOINT_BYTES_MAX))
        except CheckpointTooLarge as exc:
            refused.append(str(exc))
        else:
            saved.append(text)
        await trio.sleep(1)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        most = AWARD_BYTES_MAX // CHECKPOINT_BYTES_MAX
        items = 3 * most  # in two awards or three
        a, _ = await start(mesh, a=[], b=[TextAgent(together, concurrency_max=1)])
        graph = shouting(items, batch_items_max=items)
        job = await a.submit(graph, inputs(*(f"w{n}" for n in range(items))))
        state = (await a.journal(job)).state
        assert await ended(a, job) == "completed"
        calls = [unit.calls for unit in state.units.values()]
        assert max(calls) > most
        assert len(saved) == sum(min(count, most) for count in calls)
        assert len(refused) == items - len(saved)
        assert str(AWARD_BYTES_MAX) in refused[0]
        assert kept(mesh, "b") == 0

    play(story)
