"""A job that ended early goes on as another one, and what is finished isn't run again."""

from collections.abc import AsyncIterator

import pytest
import trio

from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import AgentError, JobEnded, KeyReused, NotFound
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.job_terms import Terms
from meshnode.services.resuming import left_of
from protocol.graph import Source, SubTask, TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    never,
    play,
    shouting,
    start,
    told,
    until,
)


class Second:
    """An agent that fails until it is mended."""

    def __init__(self) -> None:
        self.is_broken = True
        self.keys: dict[str, list[str]] = {}
        self.agent = TextAgent(self.work, name="second", capability="text.again@1")

    async def work(self, text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        self.keys.setdefault(text, []).append(call.idempotency_key)
        await trio.lowlevel.checkpoint()
        if self.is_broken:
            raise AgentError("not today")
        yield Output({"text": f"{text}!"})

    def another(self) -> TextAgent:
        """Another agent that works alike."""
        return TextAgent(self.work, name="second", capability="text.again@1")


def two_steps() -> TaskGraph:
    """A map, and after it a step that takes all of it, item by item."""
    again = SubTask(
        id="again",
        capability="text.again",
        inputs={"text": Source(kind="task", name="say", pointer="/text")},
        each=["text"],
        attempts_max=1,
    )
    return TaskGraph(
        name="two",
        subtasks=[*shouting(3).subtasks, again],
        outputs={
            "said": Source(kind="task", name="say", pointer="/text"),
            "again": Source(kind="task", name="again", pointer="/text"),
        },
    )


async def ended(node: Node, job: str) -> str:
    with trio.fail_after(300):
        state = await node.wait(job)
    assert state.done is not None
    return state.done.state


def test_finished_sub_tasks_are_not_run_or_paid_again() -> None:
    first, second = TextAgent(), Second()

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[first], c=[second.agent])
        terms = Terms(budget_mc=100, hedges_pct=0, replans_max=1)
        job = await a.submit(two_steps(), inputs("x", "y", "z"), terms)
        assert await ended(a, job) == "failed"
        assert sorted(first.calls) == ["x", "y", "z"]
        second.is_broken = False
        with pytest.raises(NotFound):
            await a.broker.resume("nosuchjob")

        resumed = await a.broker.resume(job)
        assert await ended(a, resumed) == "completed"
        assert await a.outputs(resumed) == {
            "said": ["X", "Y", "Z"],
            "again": ["X!", "Y!", "Z!"],
        }
        assert sorted(first.calls) == ["x", "y", "z"], "it was finished"
        journal = await a.journal(resumed)
        plan = journal.state.required_plan
        assert (plan.resumes, plan.budget_mc, plan.hedges_pct) == (job, 100, 0)
        assert plan.replans_max == 1
        assert journal.state.spent_mc == 6, "of both steps the second"
        assert verify_provenance(await journal.export()).state == "completed"
        assert await a.broker.resume(job) == resumed, "asked again, it is the same"
        life = mesh.members["a"].life
        assert life is not None
        for table in ("artifact", "artifact_chunk"):
            mesh.members["a"].disk.tables[table].clear()
        a.artifacts._memory.clear()
        assert await a.broker.resume(job) == resumed, "its inputs kept or not"
        with pytest.raises(KeyReused, match=resumed):
            await a.broker.resume(job, budget_mc=7)
        with pytest.raises(JobEnded, match="is completed"):
            await a.broker.resume(resumed)

    play(story)


def test_an_item_keeps_its_key_through_every_resumption() -> None:
    second = Second()

    async def story(mesh: SimMesh) -> None:
        words = [f"w{number}" for number in range(20)]
        a, *_ = await start(mesh, a=[], b=[TextAgent()], c=[second.agent])
        job = first = await a.submit(two_steps(), inputs(*words))
        for _ in range(2):
            assert await ended(a, job) == "failed"
            job = await a.broker.resume(job)
        assert await ended(a, job) == "failed"
        second.is_broken = False
        for name in "de":  # with others there it would be cut otherwise
            await mesh.start(name, agents=lambda: [second.another()])
        await until(lambda: len(a.known()) == 5)
        job = await a.broker.resume(job)
        assert await ended(a, job) == "completed"
        assert (await a.outputs(job))["again"] == [f"{word.upper()}!" for word in words]
        assert all(len(set(keys)) == 1 for keys in second.keys.values())
        assert max(map(len, second.keys.values())) > 1
        every = {key for keys in second.keys.values() for key in keys}
        assert len(every) == len(second.keys) == len(words), "and no other item has it"
        assert {key.split("/")[0] for key in every} == {first}
        assert verify_provenance(await (await a.journal(job)).export()).state == "completed"

    play(story)


def test_what_a_cancelled_job_has_not_finished_is_begun_again_with_terms_of_its_own() -> None:
    second = Second()
    second.is_broken = False

    async def story(mesh: SimMesh) -> None:
        stuck = TextAgent(never)
        a, b, _ = await start(mesh, a=[], b=[stuck], c=[second.agent])
        job = await a.submit(two_steps(), inputs("x", "y", "z"))
        await until(lambda: stuck.running > 0)
        assert await a.broker.resume(job) == job, "it goes on by itself"
        await a.cancel(job)
        assert await ended(a, job) == "cancelled"
        await b.remove_agent("shout")
        b.add_agent(TextAgent())
        resumed = await a.broker.resume(job, budget_mc=50, deadline_s=90)
        plan = (await a.journal(resumed)).state.required_plan
        assert plan.budget_mc == 50
        assert plan.deadline_ms - (await a.journal(resumed)).state.planned_ms == 90_000
        assert await ended(a, resumed) == "completed"
        assert (await a.outputs(resumed))["again"] == ["X!", "Y!", "Z!"]

    play(story)


def test_an_output_that_is_no_longer_kept_is_made_again() -> None:
    first, second = TextAgent(), Second()

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[first], c=[second.agent])
        job = await a.submit(two_steps(), inputs("x", "y", "z"))
        assert await ended(a, job) == "failed"
        second.is_broken = False
        state = (await a.journal(job)).state
        (_, made), *_ = state.outputs("say")
        a.artifacts._memory.pop(made.output, None)
        del mesh.members["a"].disk.tables["artifact"][made.output.hex()]
        resumed = await a.broker.resume(job)
        assert await ended(a, resumed) == "completed"
        assert (await a.outputs(resumed))["again"] == ["X!", "Y!", "Z!"]
        assert sorted(first.calls) == ["x", "x", "y", "y", "z", "z"]
        # It may have come out otherwise: what draws from it is other work than before.
        assert (await a.journal(resumed)).state.required_plan.again.keys() == {"say"}
        whose = {key.split("/")[0] for keys in second.keys.values() for key in keys}
        assert whose == {job, resumed}

    play(story)


def test_a_job_that_is_held_up_is_tried_again_at_once() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        job = await a.submit(shouting(), inputs("x"))
        mesh.fill_disk("a", count=1_000)
        held = await until(lambda: len(told(a, "job.held_up")) >= 6, within_s=300)
        assert held > 30, "each pause is longer than the one before"
        life = mesh.members["a"].life
        assert life is not None
        life.store._failures.clear()  # there is room again
        began_s = trio.current_time()
        assert await a.broker.resume(job) == job
        assert await ended(a, job) == "completed"
        assert trio.current_time() - began_s < 5

    play(story)


def three_steps() -> TaskGraph:
    """A map, one step that takes all of it, and a last one that takes that."""
    two = two_steps()
    last = SubTask(
        id="last",
        capability="text.last",
        inputs={"text": Source(kind="task", name="again", pointer="/text")},
        each=["text"],
        attempts_max=1,
    )
    return TaskGraph(
        name="three",
        subtasks=[*two.subtasks, last],
        outputs={"last": Source(kind="task", name="last", pointer="/text")},
    )


async def failed_at_last(mesh: SimMesh) -> tuple[Node, str]:
    """Have the last of three steps fail; return its broker and the job."""
    second, third = Second(), Second()
    second.is_broken = False
    last = TextAgent(third.work, name="last", capability="text.last@1")
    a, *_ = await start(mesh, a=[], b=[TextAgent()], c=[second.agent], d=[last])
    job = await a.submit(three_steps(), inputs(*"xyzuvw"), Terms(budget_mc=100, hedges_pct=0))
    assert await ended(a, job) == "failed"
    return a, job


def forget(node: Node, state: JobState, subtask: str) -> list[bytes]:
    """Let ``node`` no longer keep what ``subtask`` made; return what it asks for from now."""
    gone = {made.output for _, made in state.outputs(subtask)}
    asked: list[bytes] = []
    local = node.artifacts.local

    async def without(artifact: bytes, *, size: int | None = None) -> bytes | None:
        asked.append(artifact)
        return None if artifact in gone else await local(artifact, size=size)

    vars(node.artifacts)["local"] = without
    return asked


def test_what_nothing_left_draws_from_is_neither_read_nor_made_again() -> None:
    async def story(mesh: SimMesh) -> None:
        a, job = await failed_at_last(mesh)
        state = (await a.journal(job)).state
        asked = forget(a, state, "say")
        left = await left_of(state, a.artifacts)
        assert [task.id for task in left.graph.subtasks] == ["last"]
        assert not {made.output for _, made in state.outputs("say")} & set(asked)
        forget(a, state, "again")
        left = await left_of(state, a.artifacts)
        assert [task.id for task in left.graph.subtasks] == ["say", "again", "last"]

    play(story)


def test_others_have_their_turn_while_what_is_left_is_found_out() -> None:
    async def story(mesh: SimMesh) -> None:
        a, job = await failed_at_last(mesh)
        state = (await a.journal(job)).state
        units = len(state.outputs("again"))
        assert units > 2
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await left_of(state, a.artifacts)
            nursery.cancel_scope.cancel()
        assert turns >= units - 1, "each has its turn after the other, whoever is first"

    play(story)
