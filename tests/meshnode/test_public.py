"""The Python API over a simulated mesh: the same classes, no sockets."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from meshnode import public
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import (
    BeyondEnd,
    CannotPlan,
    ConfigError,
    InputInvalid,
    JobFailed,
    KeyReused,
    NoProvider,
    NotFound,
)
from meshnode.public import NodeConfig, TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, never, play, start, until

if TYPE_CHECKING:
    from meshnode.ports import JsonValue


def shouting() -> TaskGraph:
    graph = TaskGraph("shouting")
    said = graph.task("text.shout@1", each={"text": graph.input("texts").each})
    graph.output("said", said)
    return graph


async def loud(text: str) -> str:
    """Return a text in capitals."""
    await trio.lowlevel.checkpoint()  # in the loop: a MockClock jumps while a thread works
    return text.upper()


def test_a_job_tells_every_event_and_then_its_result() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        node = public.Node(a)
        job = await node.submit(shouting(), {"texts": ["x", "y"]}, budget_mc=100)
        events = [event async for event in job.events()]
        assert [event.seq for event in events] == list(range(len(events)))
        assert (events[0].kind, events[-1].kind) == ("planned", "done")
        assert events[0].data["budget_mc"] == 100
        again = [event.seq async for event in job.events(since=3)]
        assert again == [event.seq for event in events[3:]]
        after = [event async for event in job.events(after=events[2].seq)]
        assert after == events[3:]
        assert [event async for event in job.events(after=events[-1].seq)] == []
        with pytest.raises(BeyondEnd, match=f"has {len(events)} events"):
            await anext(job.events(after=len(events)))
        for given, says in (
            ({"since": -5}, "since=-5"),
            ({"after": -2}, "after=-2"),
            ({"since": 3, "after": 2}, "say the same"),
        ):
            with pytest.raises(InputInvalid, match=says):
                await anext(job.events(**given))
        assert [event.seq async for event in job.events(after=-1)][:1] == [0]
        result = await job.result()
        assert result.outputs == {"said": [{"text": "X"}, {"text": "Y"}]}
        assert job.state == "completed"
        assert result.cost_mc == sum(
            paid for e in events if isinstance(paid := e.data.get("paid_mc"), int)
        )
        assert set(result.verdicts.values()) == {"unverified"}
        assert verify_provenance(result.provenance).state == "completed"
        assert (await node.job(job.id)).state == "completed"

    play(story)


def test_a_goal_in_words_is_planned_and_done(tmp_path: Path) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        node = public.Node(a)
        await node.agents("text.shout", count=1, wait_s=60)
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text(f"this is {name}")
        files = [tmp_path / "a.txt", tmp_path / "b.txt"]
        plan = await node.plan("Shout this text", files=files)
        job = await node.submit("Shout this text", files=files)
        result = await job.result()
        assert result.outputs == {
            "shout": [{"text": "THIS IS A.TXT"}, {"text": "THIS IS B.TXT"}]
        }
        assert result.cost_mc == plan["cost_mc"]
        with pytest.raises(CannotPlan, match="text of shout"):
            await node.submit("Shout this text")
        with pytest.raises(ConfigError, match=r"none\.txt can't be read"):
            await node.submit("Shout this text", files=["none.txt"])

    play(story)


def test_files_are_an_input_of_a_graph(tmp_path: Path) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        (tmp_path / "a.txt").write_text("quiet")
        graph = TaskGraph("files")
        graph.output("said", graph.task("text.shout@1", text=graph.input("files")[0]["text"]))
        job = await public.Node(a).submit(graph, files=[tmp_path / "a.txt"])
        assert (await job.result()).outputs == {"said": {"text": "QUIET"}}

    play(story)


def test_the_same_key_is_the_same_job() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        node = public.Node(a)
        inputs: dict[str, JsonValue] = {"texts": ["x"]}
        one = await node.submit(shouting(), inputs, idempotency_key="k")
        two = await node.submit(shouting(), inputs, idempotency_key="k")
        assert one.id == two.id
        with pytest.raises(KeyReused, match=one.id):
            await node.submit(shouting(), {"texts": ["y"]}, idempotency_key="k")

    play(story)


def test_the_same_key_is_the_same_job_for_a_goal_that_is_planned_otherwise_now() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        node = public.Node(a)
        goal, hello = "Shout this text", {"text": "hello"}
        before = await a.planner.plan(goal, inputs=hello)
        one = await node.submit(goal, hello, idempotency_key="k")
        better = TextAgent(capability="shout.text@1", description="Shout this text.")
        later = await mesh.start("c", agents=lambda: [better])
        await until(lambda: any(record.peer == later.peer for record in a.known()))
        after = await a.planner.plan(goal, inputs=hello)
        assert after.assembled.graph != before.assembled.graph
        assert (await node.submit(goal, hello, idempotency_key="k")).id == one.id
        with pytest.raises(KeyReused, match=one.id):
            await node.submit(goal, {"text": "goodbye"}, idempotency_key="k")

    play(story)


def test_a_job_that_is_cancelled_has_no_result_and_says_so() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(never)])
        job = await public.Node(a).submit(shouting(), {"texts": ["x"]})
        await job.cancel()
        with pytest.raises(JobFailed, match=f"job {job.id} cancelled") as caught:
            await job.result()
        assert (caught.value.job, caught.value.state) == (job.id, "cancelled")
        assert job.state == "cancelled"

    play(story)


def test_an_agent_that_comes_later_is_found_by_others() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        desk, host = public.Node(a), public.Node(b)
        with pytest.raises(NoProvider):
            await desk.submit(shouting(), {"texts": ["x"]})
        host.host(loud, "text.shout@1", price_mc=3)
        (found,) = await desk.agents("text.shout", count=1, wait_s=60)
        assert (found["peer"], found["price_mc"], found["alive"]) == (host.peer, 3, True)
        job = await desk.submit(shouting(), {"texts": ["x"]})
        assert (await job.result()).outputs == {"said": ["X"]}

    play(story)


def test_waiting_for_agents_that_nobody_has_ends_in_time() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        began_s = trio.current_time()
        assert await public.Node(a).agents("text.nothing", count=1, wait_s=5) == []
        assert trio.current_time() - began_s <= 5.1

    play(story)


def test_what_is_no_agent_is_refused_with_what_to_do() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        node = public.Node(a)
        with pytest.raises(ConfigError, match="is no agent") as caught:
            node.host(loud)
        assert "capability" in caught.value.hint
        hosted = node.host(loud, "text.shout@1")
        with pytest.raises(InputInvalid, match="two agents are called 'loud'"):
            node.host(hosted)
        with pytest.raises(ConfigError, match="has its terms"):
            node.host(hosted, "text.shout@2")
        with pytest.raises(NotFound):
            await node.job("nosuchjob")

    play(story)


async def test_a_config_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml can't be read"):
        async with public.Node.open("nowhere.toml"):
            pass


async def test_a_home_in_use_is_refused(tmp_path: object) -> None:
    config = NodeConfig(home=str(tmp_path))
    async with public.Node.open(config) as node:
        assert node.addresses[0].endswith(node.peer)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - looked at below
            async with public.Node.open(config):
                pass
    assert "in use" in repr(caught.value)
