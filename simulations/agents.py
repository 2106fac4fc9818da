"""Agents that a simulation hosts: what they compute is known, how they behave is drawn.

A :class:`Skill` is a function that a checker can run again; a :class:`Temper` is how
badly an agent that has the skill behaves.  What each call does is drawn from the seed,
and every call is written into a :class:`CallBook` while it runs, so that others can see
what runs where.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol, TypeVar, cast, runtime_checkable

import trio

from meshnode.errors import AgentError
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Measures, Output
from simulations.alarms import sleep

T = TypeVar("T")

_TEXT: Final[JsonValue] = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Skill:
    """A pure function under a capability's name."""

    name: str
    capability: str
    input_field: str
    input_schema: Mapping[str, JsonValue]
    output_field: str
    output_schema: Mapping[str, JsonValue]
    compute: Callable[[JsonValue], JsonValue]

    def apply(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return the right output for the input object ``value``."""
        return {self.output_field: self.compute(value[self.input_field])}


def _shape(name: str, schema: JsonValue) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }


def _upper(value: JsonValue) -> JsonValue:
    assert isinstance(value, str)
    return value.upper()


def _join(value: JsonValue) -> JsonValue:
    assert isinstance(value, list)
    return "-".join(str(item) for item in value)


def _sum(value: JsonValue) -> JsonValue:
    assert isinstance(value, list)
    return sum(item for item in value if isinstance(item, int))


def _skill(
    name: str,
    capability: str,
    fields: tuple[str, str],
    schemas: tuple[JsonValue, JsonValue],
    compute: Callable[[JsonValue], JsonValue],
) -> Skill:
    return Skill(
        name,
        capability,
        fields[0],
        _shape(fields[0], schemas[0]),
        fields[1],
        _shape(fields[1], schemas[1]),
        compute,
    )


_TEXTS: Final[JsonValue] = {"type": "array", "items": _TEXT}
_NUMBERS: Final[JsonValue] = {"type": "array", "items": {"type": "integer"}}

ECHO: Final = _skill("echo", "text.echo@1", ("text", "text"), (_TEXT, _TEXT), lambda v: v)
UPPER: Final = _skill("upper", "text.upper@1", ("text", "text"), (_TEXT, _TEXT), _upper)
JOIN: Final = _skill("join", "text.join@1", ("texts", "text"), (_TEXTS, _TEXT), _join)
SUM: Final = _skill(
    "sum", "math.sum@1", ("numbers", "total"), (_NUMBERS, {"type": "integer"}), _sum
)


@dataclass(frozen=True, slots=True)
class Temper:
    """How an agent behaves; the default is well.

    Attributes:
        latency_s: Shortest and longest run, seconds.
        error_chance: Of raising.
        wrong_chance: Of returning what the schema refuses.
        hang_chance: Of never returning.
        slow_chance: Of taking ``slow_s`` longer.
        slow_s: See there.
        timeout_s: What it declares as its longest run.
        price_mc: What it asks for one call.
        concurrency_max: Calls at once.
        declared_ms: What it says of one call before any was run; 0 for nothing.
    """

    latency_s: tuple[float, float] = (0.2, 0.8)
    error_chance: float = 0.0
    wrong_chance: float = 0.0
    hang_chance: float = 0.0
    slow_chance: float = 0.0
    slow_s: float = 2.0
    timeout_s: float = 5.0
    price_mc: int = 2
    concurrency_max: int = 2
    declared_ms: int = 0


@dataclass(frozen=True, slots=True)
class Act:
    """A skill, and how one who has it behaves.

    Attributes:
        skill: What is computed.
        temper: How well.
        name: The agent's local name; by default the skill's.
    """

    skill: Skill
    temper: Temper = field(default_factory=Temper)
    name: str = ""

    def hire(self, post: "Post") -> "SimAgent":
        """Return the agent for one life of a node."""
        return SimAgent(
            self.skill,
            self.temper,
            node=post.node,
            rng=post.rng,
            book=post.book,
            name=self.name,
        )


def draw_temper(rng: Random) -> Temper:
    """Return how one agent of a seed behaves: most well, some badly in their own way."""
    flaw = rng.choice(("", "", "", "error", "wrong", "hang", "slow"))
    chance = rng.uniform(0.05, 0.4)
    shortest_s = rng.uniform(0.1, 0.5)
    return Temper(
        latency_s=(shortest_s, shortest_s * rng.uniform(1, 4)),
        error_chance=chance if flaw == "error" else 0.0,
        wrong_chance=chance if flaw == "wrong" else 0.0,
        hang_chance=chance / 2 if flaw == "hang" else 0.0,
        slow_chance=chance if flaw == "slow" else 0.0,
        price_mc=rng.randint(0, 5),
        concurrency_max=rng.randint(1, 4),
    )


@dataclass(slots=True)
class CallBook:
    """Which agent calls run, and how many there were.

    Attributes:
        running: (node, idempotency key) -> how many at once.
        begun: (node, idempotency key) -> how many ever.
        on_begin: Told of each as it begins.
    """

    running: dict[tuple[str, str], int] = field(default_factory=dict)
    begun: dict[tuple[str, str], int] = field(default_factory=dict)
    on_begin: list[Callable[[str, str], None]] = field(default_factory=list)

    @contextmanager
    def open(self, node: str, key: str) -> Iterator[None]:
        """Keep a call in the book for the length of the block."""
        place = (node, key)
        self.begun[place] = self.begun.get(place, 0) + 1
        self.running[place] = self.running.get(place, 0) + 1
        for tell in self.on_begin:
            tell(node, key)
        try:
            yield
        finally:
            self.running[place] -= 1
            if not self.running[place]:
                del self.running[place]


class Backroom:
    """What agents of different nodes share behind the mesh's back, by kind and name.

    It is a stage's, so that nothing of one run is left in the next.
    """

    def __init__(self) -> None:
        self._things: dict[tuple[type[object], str], object] = {}

    def common(self, kind: Callable[[str], T], name: str) -> T:
        """Return the one ``kind(name)`` there is, made when it is first asked for."""
        key = (cast("type[object]", kind), name)
        if key not in self._things:
            self._things[key] = kind(name)
        return cast("T", self._things[key])


@dataclass(frozen=True, slots=True)
class Post:
    """Where an agent works: in one life of a node.

    Attributes:
        node: The node's name.
        rng: Chance of this agent in this life.
        book: Where its calls are written down.
        backroom: What it shares with accomplices.
    """

    node: str
    rng: Random
    book: CallBook
    backroom: Backroom = field(default_factory=Backroom)


@runtime_checkable
class Hireable(Protocol):
    """Something that makes an agent for each life of each node: an :class:`Act`, say."""

    def hire(self, post: Post) -> Agent:
        """Return the agent for one life of a node."""


class SimAgent:
    """One agent of one life of a node."""

    def __init__(
        self,
        skill: Skill,
        temper: Temper,
        *,
        node: str,
        rng: Random,
        book: CallBook,
        name: str = "",
    ) -> None:
        self._skill = skill
        self._temper = temper
        self._node = node
        self._rng = rng
        self._book = book
        self._spec = AgentSpec(
            name=name or skill.name,
            capability=skill.capability,
            description=f"Simulated {skill.name}.",
            input_schema=skill.input_schema,
            output_schema=skill.output_schema,
            price_mc=temper.price_mc,
            concurrency_max=temper.concurrency_max,
            timeout_s=temper.timeout_s,
            deterministic=True,
            measures=Measures(
                samples=int(temper.declared_ms > 0), latency_ms=temper.declared_ms
            ),
        )

    @property
    def spec(self) -> AgentSpec:
        """See :class:`meshnode.ports.Agent`."""
        return self._spec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`."""
        await trio.lowlevel.checkpoint()

    async def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """See :meth:`meshnode.ports.Agent.run`."""
        assert isinstance(value, dict)
        with self._book.open(self._node, call.idempotency_key):
            yield Output(await self.answer(value))

    async def answer(self, value: dict[str, JsonValue]) -> JsonValue:
        """Take as long as its temper says, and return what that makes of the output."""
        temper, draw = self._temper, self._rng.random()
        await sleep(self._rng.uniform(*temper.latency_s))
        if draw < temper.slow_chance:
            await sleep(temper.slow_s)
        elif draw < temper.hang_chance:
            await trio.sleep_forever()
        elif draw < temper.error_chance:
            raise AgentError(f"{self._skill.name} at {self._node} had a bad day")
        elif draw < temper.wrong_chance:
            return {"nonsense": True}
        return self._skill.apply(value)

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        await trio.lowlevel.checkpoint()
