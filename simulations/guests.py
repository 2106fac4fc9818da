"""Agents of the user's own, in nodes that are simulated.

They are what they are in production, but for three things.  A plain function runs in
place and not in a thread, for threads know nothing of virtual time
(:meth:`meshnode.adapters.agents.function.FunctionAgent.inline`).  One that is given to
several nodes is opened by the first that needs it and closed by the last, however often
they crash and come back.  And every call is written into the book of calls, so that the
checkers see what runs where.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import trio

from meshnode.errors import AgentError
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output
from simulations.agents import CallBook
from simulations.answers import Answers, Recorded


@runtime_checkable
class Inlined(Protocol):
    """An agent that uses threads, and can do without."""

    def inline(self) -> Agent:
        """Return one that does the same without a thread."""


@dataclass(eq=False, slots=True)
class _Shared:
    """An agent that several nodes have, open as long as one of them has it open."""

    offer: object  # kept, so that nothing else gets its id
    agent: Agent
    users: int = 0
    changing: trio.Lock = field(default_factory=trio.Lock)

    async def open(self) -> None:
        async with self.changing:
            if not self.users:
                await self.agent.open()
            self.users += 1

    async def aclose(self) -> None:
        async with self.changing:
            self.users -= 1
            if not self.users:
                await self.agent.aclose()


class Guests:
    """Every agent of the user's own on a stage."""

    def __init__(self, book: CallBook, answers: Answers) -> None:
        self._book = book
        self._answers = answers
        self._shared: dict[int, _Shared] = {}

    def host(self, offer: Agent | Callable[[], Agent], node: str) -> Agent:
        """Return ``offer`` for one life of ``node``.

        Args:
            offer: The agent itself, the same for all; or what makes one for this life.
            node: Name.
        """
        if not isinstance(offer, Agent):
            return _Guest(_Shared(offer, self._fit(offer())), node, self._book)
        shared = self._shared.get(id(offer))
        if shared is None:
            shared = self._shared[id(offer)] = _Shared(offer, self._fit(offer))
        return _Guest(shared, node, self._book)

    def _fit(self, agent: Agent) -> Agent:
        """Return ``agent`` as it can run in virtual time."""
        if isinstance(agent, Recorded):
            return self._answers.player(agent)
        return agent.inline() if isinstance(agent, Inlined) else agent


class _Guest:
    """A shared agent in one life of one node."""

    def __init__(self, shared: _Shared, node: str, book: CallBook) -> None:
        self._shared = shared
        self._node = node
        self._book = book
        self._is_open = False

    @property
    def spec(self) -> AgentSpec:
        """See :class:`meshnode.ports.Agent`."""
        return self._shared.agent.spec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`."""
        await self._shared.open()
        self._is_open = True

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """See :meth:`meshnode.ports.Agent.run`."""
        with self._book.open(self._node, call.idempotency_key):
            async with aclosing(_closable(self._shared.agent.run(value, call))) as pieces:
                async for piece in pieces:
                    yield piece

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        if self._is_open:
            self._is_open = False
            await self._shared.aclose()
        else:
            await trio.lowlevel.checkpoint()


def _closable(pieces: AsyncIterator[Chunk | Output]) -> AsyncGenerator[Chunk | Output, None]:
    """Return ``pieces`` as what can be closed.

    Raises:
        AgentError: It can't.
    """
    if not isinstance(pieces, AsyncGenerator):
        raise AgentError(f"{pieces!r:.80} is no async generator", hint="write run with 'yield'")
    return pieces
