"""Agents of the user's own, in nodes that are simulated.

They are what they are in production, but for three things.  A plain function runs in
place and not in a thread, for threads know nothing of virtual time
(:meth:`meshnode.adapters.agents.function.FunctionAgent.inline`).  One that is given to
several nodes is opened by the first that needs it and closed by the last, however often
they crash and come back.  And every call is written into the book of calls, so that the
checkers see what runs where.
"""

import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from inspect import isfunction, signature
from typing import Final, Protocol, runtime_checkable

import trio

from meshnode.errors import AgentError
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output
from simulations.agents import CallBook
from simulations.answers import Answers, Recorded

#: How many exceptions of agents are kept: the first tell most.
_RAISED_MAX: Final = 3


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
    """Every agent of the user's own on a stage.

    Attributes:
        raised: What they raised, told for people, with the lines that led there; a node
            only ever tells that its agent failed.
    """

    def __init__(self, book: CallBook, answers: Answers) -> None:
        self.raised: list[str] = []
        self._book = book
        self._answers = answers
        self._shared: dict[int, _Shared] = {}

    def host(self, offer: Agent | Callable[[], Agent], node: str) -> Agent:
        """Return ``offer`` for one life of ``node``.

        Args:
            offer: The agent itself, the same for all; or what makes one for this life.
            node: Name.
        """
        shared = self._shared.get(id(offer))
        if shared is None:
            if isinstance(offer, Agent):
                shared = self._shared[id(offer)] = _Shared(offer, self._fit(offer))
            else:
                shared = _Shared(offer, self._fit(_make(offer)))
        return _Guest(shared, node, self)

    def _fit(self, agent: Agent) -> Agent:
        """Return ``agent`` as it can run in virtual time."""
        if isinstance(agent, Recorded):
            return self._answers.player(agent)
        return agent.inline() if isinstance(agent, Inlined) else agent

    @contextmanager
    def calling(self, node: str, spec: AgentSpec, call: AgentCall) -> Iterator[None]:
        """Keep a call in the book for the length of the block, and what it raises."""
        with self._book.open(node, call.idempotency_key):
            try:
                yield
            except Exception as exc:
                if len(self.raised) < _RAISED_MAX:
                    # The cause: a function's agent wraps what the function raised.
                    lines = traceback.format_exception(exc.__cause__ or exc)
                    self.raised.append(f"{spec.name} at {node}:\n{''.join(lines)}")
                raise


def _make(factory: Callable[[], Agent]) -> Agent:
    """Return a new agent.

    Raises:
        TypeError: What was given makes none.
    """
    made = None if isfunction(factory) and _takes_arguments(factory) else factory()
    if not isinstance(made, Agent):
        raise TypeError(
            f"{factory!r} is no agent, and makes none: decorate it with @agent(…), or give"
            " a function without parameters that returns an agent"
        )
    return made


def _takes_arguments(function: Callable[..., object]) -> bool:
    parameters = signature(function).parameters.values()
    return any(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)


class _Guest:
    """A shared agent in one life of one node."""

    def __init__(self, shared: _Shared, node: str, guests: Guests) -> None:
        self._shared = shared
        self._node = node
        self._guests = guests
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
        with self._guests.calling(self._node, self.spec, call):
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
