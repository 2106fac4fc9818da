"""The bridge to asyncio: results, errors and cancels come back; nothing is left behind."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from meshnode import TaskGraph, public
from meshnode.aio import Node, _TrioThread
from meshnode.errors import ConfigError, JobFailed, MeshError
from meshnode.public import NodeConfig


def play(story: Callable[[], Awaitable[None]]) -> None:
    """Run ``story`` under asyncio, and see that no thread is left."""
    before = set(threading.enumerate())
    asyncio.run(asyncio.wait_for(story(), 50))
    left = [t for t in set(threading.enumerate()) - before if t.name == "meshnode"]
    assert left == []


def echo(text: str) -> str:
    """Return the text."""
    return text


def graph() -> TaskGraph:
    graph = TaskGraph("echo")
    graph.output("said", graph.task("text.echo@1", text=graph.input("text")))
    return graph


def test_a_job_from_asyncio(tmp_path: Path) -> None:
    async def story() -> None:
        async with Node.open(NodeConfig(home=str(tmp_path))) as node:
            await node.host(echo, "text.echo@1")
            await node.agents("text.echo", count=1, wait_s=30)
            job = await node.submit(graph(), {"text": "hello"}, deadline_s=30)
            kinds = [event.kind async for event in job.events()]
            assert (kinds[0], kinds[-1]) == ("planned", "done")
            assert (await job.result()).outputs == {"said": "hello"}
            assert (await (await node.job(job.id)).status())["state"] == "completed"
            async for event in job.events():  # left early: its generator is closed over there
                assert event.seq == 0
                break

    play(story)


def test_errors_arrive_as_they_are(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(ConfigError, match="can't be read"):
            async with Node.open(tmp_path / "nowhere.toml"):
                pass
        async with Node.open(NodeConfig(home=str(tmp_path))) as node:
            with pytest.raises(MeshError, match=r"text\.echo"):
                await node.submit(graph(), {"text": "x"})

    play(story)


def test_a_cancelled_wait_is_cancelled_over_there_and_the_job_goes_on(tmp_path: Path) -> None:
    async def forever(text: str) -> str:
        """Never return."""
        await trio.sleep_forever()
        return text

    async def story() -> None:
        async with Node.open(NodeConfig(home=str(tmp_path))) as node:
            await node.host(forever, "text.echo@1")
            await node.agents("text.echo", count=1, wait_s=30)
            job = await node.submit(graph(), {"text": "x"})
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(job.result(), 0.3)
            assert job.state == "running"
            await job.cancel()
            with pytest.raises(JobFailed):
                await job.result()

    play(story)


def test_a_call_that_is_cancelled_has_ended_over_there() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cleaned up")

    async def story() -> None:
        thread = _TrioThread()
        await thread.start()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(thread.call(work), 0.1)
        assert ended == ["cleaned up"]
        await thread.stop()
        with pytest.raises(MeshError, match="has ended"):
            await thread.call(work)

    play(story)


def test_what_still_runs_when_the_node_ends_is_told_so() -> None:
    async def story() -> None:
        thread = _TrioThread()
        await thread.start()
        call = asyncio.create_task(thread.call(trio.sleep_forever))
        await asyncio.sleep(0)
        await thread.stop()
        with pytest.raises(MeshError, match="has ended"):
            await call

    play(story)


def test_a_call_that_comes_while_the_node_ends_is_told_so() -> None:
    """Trio's loop runs on for a moment, and took it for a bug of its own."""

    async def story() -> None:
        thread = _TrioThread()
        await thread.start()
        lingering, over = trio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        async def linger() -> None:
            with trio.move_on_after(20, shield=True):
                while not thread._over:
                    await trio.lowlevel.checkpoint()
                loop.call_soon_threadsafe(over.set)
                await lingering.wait()

        await thread.call(partial(_later, linger))
        stopping = asyncio.create_task(thread.stop())
        await over.wait()
        with pytest.raises(MeshError, match="has ended"):
            await thread.call(trio.sleep_forever)
        assert thread._token is not None
        thread._token.run_sync_soon(lingering.set)
        await stopping

    play(story)


async def _later(work: Callable[[], Awaitable[None]]) -> None:
    trio.lowlevel.spawn_system_task(work)
    await trio.lowlevel.checkpoint()


def test_a_node_that_fails_later_is_reported_when_it_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = trio.Event()

    @asynccontextmanager
    async def fails(*_: object, **__: object) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                await failing.wait()
                raise MeshError("the disk is gone")

            nursery.start_soon(fail)
            yield "node"

    monkeypatch.setattr(public.Node, "open", fails)

    async def story() -> None:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - looked at below
            async with Node.open() as node:
                await node._thread.call(partial(_set, failing))
        assert "the disk is gone" in repr(caught.value)

    play(story)


async def _set(event: trio.Event) -> None:
    event.set()
    await trio.lowlevel.checkpoint()
