"""The Python API for asyncio programs: the node runs on Trio in a thread of its own.

::

    from meshnode.aio import Node

    async with Node.open(config) as node:
        await node.host(word_count)
        job = await node.submit(graph, inputs)
        async for event in job.events(): ...
        result = await job.result()

The same classes and names as :mod:`meshnode.public`, and every call is awaited.  A
cancelled call is cancelled over there too, and returns when that is done.  Agents run on
the Trio side: an async function that is hosted must be a Trio one; a plain function runs
in a thread and doesn't care.
"""

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from os import PathLike
from typing import Any, TypeVar

import trio
from typing_extensions import Unpack

from meshnode import public
from meshnode.adapters.agents.function import Terms as AgentTerms
from meshnode.errors import MeshError
from meshnode.ports import JsonValue
from meshnode.public import (
    Agent,
    JobEvent,
    JobResult,
    NodeConfig,
    SubmitTerms,
    TaskGraph,
)

T = TypeVar("T")

__all__ = ["Job", "Node"]


class _TrioThread:
    """Trio's loop in a thread, and calls into it from one asyncio loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._over = False
        self._outcomes: set[asyncio.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="meshnode", daemon=True)

    async def start(self) -> None:
        self._thread.start()
        await self._ready

    async def stop(self) -> None:
        """End the loop; what still runs in it is cancelled."""
        assert self._token is not None
        self._token.run_sync_soon(self._cancel)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _cancel(self) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        finally:
            with suppress(RuntimeError):  # the program's own loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        """Tell whoever still waits that there will be no answer."""
        for outcome in [*self._outcomes]:
            outcome.cancel()

    async def _main(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._token, self._nursery = trio.lowlevel.current_trio_token(), nursery
                self._loop.call_soon_threadsafe(self._ready.set_result, None)
                await trio.sleep_forever()
        finally:
            self._over = True

    async def call(self, do: Callable[[], Awaitable[T]]) -> T:
        """Run ``do`` over there; return or raise what it does.

        Raises:
            MeshError: The node has ended.
        """
        assert self._token is not None
        scope = trio.CancelScope()
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._outcomes.add(outcome)
        outcome.add_done_callback(self._outcomes.discard)
        try:
            self._token.run_sync_soon(self._begin, do, scope, outcome)
        except trio.RunFinishedError:
            outcome.cancel()
            raise MeshError("this node has ended", hint="open it again") from None
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if outcome.cancelled():
                raise MeshError("this node has ended", hint="open it again") from None
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(scope.cancel)
            await asyncio.wait([outcome])  # until nothing of it runs any more
            raise

    def _begin(
        self,
        do: Callable[[], Awaitable[T]],
        scope: trio.CancelScope,
        outcome: "asyncio.Future[T]",
    ) -> None:
        assert self._nursery is not None
        if self._over:  # Trio would take it for a bug of its own
            self._loop.call_soon_threadsafe(_unless_done, outcome, outcome.cancel)
            return
        self._nursery.start_soon(self._carry, do, scope, outcome)

    async def _carry(
        self,
        do: Callable[[], Awaitable[T]],
        scope: trio.CancelScope,
        outcome: "asyncio.Future[T]",
    ) -> None:
        def report(tell: Callable[[], object]) -> None:
            self._loop.call_soon_threadsafe(_unless_done, outcome, tell)

        try:
            with scope:
                report(partial(outcome.set_result, await do()))
        except Exception as error:  # noqa: BLE001 - reported: raised again, in the caller
            report(partial(outcome.set_exception, error))
        finally:
            report(outcome.cancel)  # nothing, if one of the others was first


def _unless_done(outcome: "asyncio.Future[Any]", tell: Callable[[], object]) -> None:
    if not outcome.done():
        tell()


class Job:
    """As :class:`meshnode.public.Job`."""

    def __init__(self, thread: _TrioThread, job: public.Job) -> None:
        """Made by :meth:`Node.submit` and :meth:`Node.job`."""
        self._thread = thread
        self._job = job

    @property
    def id(self) -> str:
        """Its name."""
        return self._job.id

    @property
    def state(self) -> str:
        """``running``, ``completed``, ``failed`` or ``cancelled``."""
        return self._job.state

    async def status(self) -> dict[str, JsonValue]:
        """Return how each unit of work stands."""
        return await self._thread.call(partial(_soon, self._job.status))

    async def events(
        self, since: int = 0, *, after: int | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield events until the job has ended; see :meth:`meshnode.public.Job.events`."""
        events = self._job.events(since, after=after)
        try:
            while (event := await self._thread.call(partial(anext, events, None))) is not None:
                yield event
        finally:
            await self._thread.call(events.aclose)

    async def result(self) -> JobResult:
        """Wait until the job has ended, and return what came of it.

        Raises:
            JobFailed: It failed or was cancelled; says why.
        """
        return await self._thread.call(self._job.result)

    async def partial_outputs(self) -> dict[str, JsonValue]:
        """Return what was accepted of it; see :meth:`meshnode.public.Job.partial_outputs`."""
        return await self._thread.call(self._job.partial_outputs)

    async def explain(self) -> dict[str, JsonValue]:
        """Return why it went as it did; see :meth:`meshnode.public.Job.explain`."""
        return await self._thread.call(partial(_soon, self._job.explain))

    async def cancel(self) -> None:
        """End it early."""
        await self._thread.call(self._job.cancel)

    async def resume(
        self, *, budget_mc: int | None = None, deadline_s: float | None = None
    ) -> "Job":
        """Go on with what it left; see :meth:`meshnode.public.Job.resume`."""
        resume = partial(self._job.resume, budget_mc=budget_mc, deadline_s=deadline_s)
        return Job(self._thread, await self._thread.call(resume))


class Node:
    """As :class:`meshnode.public.Node`."""

    def __init__(self, thread: _TrioThread, node: public.Node) -> None:
        """Made by :meth:`open`."""
        self._thread = thread
        self._node = node

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: NodeConfig | str | PathLike[str] | None = None,
        *,
        agents: Sequence[Agent] = (),
    ) -> AsyncIterator["Node"]:
        """Run a node while the context lasts; see :meth:`meshnode.public.Node.open`."""
        thread = _TrioThread()
        await thread.start()
        try:
            opened = _Opened(partial(public.Node.open, config, agents=agents))
            running = asyncio.create_task(thread.call(opened.run))
            node = await _first(running, thread.call(opened.node))
            try:
                yield cls(thread, node)
            finally:
                await thread.call(partial(_soon, opened.close))
                await running
        finally:
            await thread.stop()

    @property
    def peer(self) -> str:
        """Its PeerId."""
        return self._node.peer

    @property
    def addresses(self) -> Sequence[str]:
        """Where others can dial it, with its PeerId."""
        return self._node.addresses

    async def host(
        self,
        what: Agent | Callable[..., object],
        capability: str = "",
        **terms: Unpack[AgentTerms],
    ) -> Agent:
        """Host one more agent; see :meth:`meshnode.public.Node.host`."""
        return await self._thread.call(
            partial(_soon, partial(self._node.host, what, capability, **terms))
        )

    async def plan(
        self,
        goal: str,
        inputs: Mapping[str, JsonValue] | None = None,
        *,
        files: Sequence[str | PathLike[str]] = (),
    ) -> dict[str, JsonValue]:
        """Return what was made of a goal; see :meth:`meshnode.public.Node.plan`."""
        return await self._thread.call(partial(self._node.plan, goal, inputs, files=files))

    async def submit(
        self,
        work: TaskGraph | str,
        inputs: Mapping[str, JsonValue] | None = None,
        **terms: Unpack[SubmitTerms],
    ) -> Job:
        """Take a job; see :meth:`meshnode.public.Node.submit`."""
        job = await self._thread.call(partial(self._node.submit, work, inputs, **terms))
        return Job(self._thread, job)

    async def job(self, id: str) -> Job:  # noqa: A002 - what a job calls it
        """Return a job of this node.

        Raises:
            NotFound: There is none of that id.
        """
        return Job(self._thread, await self._thread.call(partial(self._node.job, id)))

    async def agents(
        self, capability: str = "", *, count: int = 0, wait_s: float = 0.0
    ) -> list[dict[str, JsonValue]]:
        """Return the agents that it knows of; see :meth:`meshnode.public.Node.agents`."""
        return await self._thread.call(
            partial(self._node.agents, capability, count=count, wait_s=wait_s)
        )


class _Opened:
    """A node's context, entered and left in one Trio task, as Trio wants it."""

    def __init__(
        self, open_node: Callable[[], AbstractAsyncContextManager[public.Node]]
    ) -> None:
        self._open = open_node
        self._node: public.Node | None = None
        self._is_open = trio.Event()
        self._closing = trio.Event()

    async def run(self) -> None:
        async with self._open() as self._node:
            self._is_open.set()
            await self._closing.wait()

    async def node(self) -> public.Node:
        await self._is_open.wait()
        assert self._node is not None
        return self._node

    def close(self) -> None:
        self._closing.set()


async def _soon(do: Callable[[], T]) -> T:
    """Run a plain function on Trio's side."""
    await trio.lowlevel.checkpoint()
    return do()


async def _first(running: "asyncio.Task[None]", opening: Awaitable[T]) -> T:
    """Return what ``opening`` gives, unless ``running`` fails first: raise that."""
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait([running, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await running
        return await task
    finally:
        task.cancel()
