"""How an agent that doesn't do what it says is put around an honest one that could.

A :class:`Ruse` says what an agent does instead of its work; put around an act it is a
:class:`Disguise`, which a node can be given like any agent.  The ruses themselves are in
:mod:`simulations.adversaries`.

A ruse is a value: its knobs and nothing else.  What accomplices share (a cartel, a sheet
of answers, one machine behind ten names) lies in the stage's backroom under a name, so
that no run leaves anything to the next.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Final

import msgspec
import trio

from meshnode.domain.values import canonical
from meshnode.ports import AgentCall, AgentSpec, Chunk, JsonValue, Output
from simulations.agents import Act, Post, SimAgent, Skill

Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def falsify(value: JsonValue, rng: Random) -> JsonValue:
    """Return another value of the same shape: what a plausible wrong answer looks like.

    One letter, number or truth of each object is changed, so that a schema sees nothing.
    Only what holds nothing (null, an empty list or object) can't be other than it is.
    """
    match value:
        case bool():
            return not value
        case int():
            return value + rng.randint(1, 9)
        case float():
            return value + 1 + rng.random()
        case str():
            return _misspell(value, rng)
        case list() if value:
            at = rng.randrange(len(value))
            return [falsify(v, rng) if i == at else v for i, v in enumerate(value)]
        case dict():
            return {name: falsify(one, rng) for name, one in value.items()}
        case _:
            return value


def _misspell(text: str, rng: Random) -> str:
    at = rng.randrange(max(1, len(text)))
    there = text[at : at + 1]
    others = [letter for letter in _LETTERS if letter != there.lower()]
    letter = rng.choice(others)
    return text[:at] + (letter.upper() if there.isupper() else letter) + text[at + 1 :]


# --- what accomplices share --------------------------------------------------------------


class Cartel:
    """Agents that agree on one wrong answer for each input, whoever is asked.

    Attributes:
        name: Fixes the answers: the same name, the same lies.
        told: Lies that were told.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.told = 0

    def answer(self, skill: Skill, value: dict[str, JsonValue]) -> JsonValue:
        """Return what every member says to ``value``."""
        self.told += 1
        seed = f"{self.name}/{skill.capability}/{canonical(value).decode()}"
        return falsify(skill.apply(value), Random(seed))


class Cribsheet:
    """Answers that whoever sees the sheet may copy.

    Attributes:
        answers: (capability, canonical input) -> output.
        copied: How often one was used.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: dict[tuple[str, bytes], JsonValue] = {}
        self.copied = 0

    def note(self, skill: Skill, value: dict[str, JsonValue], output: JsonValue) -> None:
        """Put an answer on the sheet."""
        self.answers[skill.capability, canonical(value)] = output

    def find(self, skill: Skill, value: dict[str, JsonValue]) -> JsonValue:
        """Return what somebody answered to ``value``, or None."""
        found = self.answers.get((skill.capability, canonical(value)))
        self.copied += found is not None
        return found


class Machine:
    """What is really there behind many names: one machine with so many slots.

    Attributes:
        users: Names that have used it.
        slots: Made with the first user's number.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.users: dict[str, None] = {}
        self.slots: trio.CapacityLimiter | None = None

    def shared_by(self, user: str, slots: int) -> trio.CapacityLimiter:
        """Return what ``user`` has to queue at."""
        self.users[user] = None
        if self.slots is None:
            self.slots = trio.CapacityLimiter(slots)
        return self.slots


# --- playing a ruse ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """One call, as a ruse sees it.

    Attributes:
        value: The input.
        number: Calls that this agent had before, in this life.
        phase: Of the agent: drawn once, from 0 up to 1.
        act: What it should do.
        post: Where it is.
        inward: Does what the ruse is put around: the work, or another ruse.
    """

    value: dict[str, JsonValue]
    number: int
    phase: float
    act: Act
    post: Post
    inward: Callable[[], Awaitable[JsonValue]]

    @property
    def right(self) -> JsonValue:
        """The right output."""
        return self.act.skill.apply(self.value)

    def happens(self, chance: float) -> bool:
        """Draw."""
        return self.post.rng.random() < chance

    async def wrong(self) -> JsonValue:
        """Return a plausible wrong output, after as long as the work would take."""
        await self.pause()
        return falsify(self.right, self.post.rng)

    async def pause(self) -> None:
        """Take as long as the work would."""
        await trio.sleep(self.post.rng.uniform(*self.act.temper.latency_s))


class Ruse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agent does instead of its work; this one does the work."""

    def of(self, offer: "Skill | Act | Disguise") -> "Disguise":
        """Return ``offer`` with this ruse around it."""
        if isinstance(offer, Disguise):
            return Disguise(offer.act, (self, *offer.ruses))
        return Disguise(Act(offer) if isinstance(offer, Skill) else offer, (self,))

    def declare(self, spec: AgentSpec) -> AgentSpec:
        """Return what the agent says of itself."""
        return spec

    def chatter(self, turn: Turn) -> Iterable[str]:
        """Return what it streams before it answers."""
        del turn
        return ()

    async def perform(self, turn: Turn) -> JsonValue:
        """Return the output of a call."""
        return await turn.inward()


@dataclass(frozen=True, slots=True)
class Disguise:
    """An act, and the ruses around it, the outermost first."""

    act: Act
    ruses: tuple[Ruse, ...]

    def hire(self, post: Post) -> "Impostor":
        """Return the agent for one life of a node."""
        return Impostor(self, post)


@dataclass(slots=True)
class Impostor:
    """An agent that follows ruses; see :class:`meshnode.ports.Agent`."""

    disguise: Disguise
    post: Post
    spec: AgentSpec = field(init=False)
    _honest: SimAgent = field(init=False)
    _phase: float = field(init=False)
    _calls: int = 0

    def __post_init__(self) -> None:
        """Hire the honest one, and put the ruses around what it says of itself."""
        self._honest = self.disguise.act.hire(self.post)
        self._phase = self.post.rng.random()
        spec = self._honest.spec
        for ruse in reversed(self.disguise.ruses):
            spec = ruse.declare(spec)
        self.spec = spec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`."""
        await trio.lowlevel.checkpoint()

    async def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """See :meth:`meshnode.ports.Agent.run`."""
        assert isinstance(value, dict)
        number, self._calls = self._calls, self._calls + 1
        with self.post.book.open(self.post.node, call.idempotency_key):
            turns = self._turns(value, number)
            for ruse, turn in turns:
                for text in ruse.chatter(turn):
                    yield Chunk(text)
                    await trio.lowlevel.checkpoint()
            ruse, turn = turns[0]
            yield Output(await ruse.perform(turn))

    def _turns(self, value: dict[str, JsonValue], number: int) -> list[tuple[Ruse, Turn]]:
        """Return each ruse with its view of the call, the outermost first."""
        turns: list[tuple[Ruse, Turn]] = []

        async def work() -> JsonValue:
            return await self._honest.answer(value)

        inward: Callable[[], Awaitable[JsonValue]] = work
        for ruse in reversed(self.disguise.ruses):
            turn = Turn(value, number, self._phase, self.disguise.act, self.post, inward)
            inward = _performance(ruse, turn)
            turns.insert(0, (ruse, turn))
        return turns

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        await trio.lowlevel.checkpoint()


def _performance(ruse: Ruse, turn: Turn) -> Callable[[], Awaitable[JsonValue]]:
    return lambda: ruse.perform(turn)
