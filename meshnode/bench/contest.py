"""A contest: several programs take turns at the same thing, so that noise hits all alike.

Each contestant is a process, or two: the called and the calling one.  All are started
first; then, round after round, each makes a few calls while the others wait.  A ratio is
taken within a round, and the median of the rounds counts: a machine that is busy for a
while is busy for both sides of it.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import trio

from meshnode.bench.extra import Extra
from meshnode.bench.figures import Told
from meshnode.errors import ConfigError, MeshError

ONE: Final = "one_process"
TWO: Final = "two_processes"
#: Until a contestant is ready, and until it has had its turn, seconds.
_READY_S: Final = 60.0
_TURN_S: Final = 300.0
_END_S: Final = 10.0
_LINE_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that takes part.

    Attributes:
        name: As it stands in a figure's id.
        module: What is run, with ``both``, ``callee`` or ``caller`` and an address.
        extra: It needs the extra environment.
    """

    name: str
    module: str
    extra: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: Turns of each contestant.
        calls: Calls of one turn.
    """

    rounds: int
    calls: int


@dataclass(slots=True)
class Score:
    """What a contestant did.

    Attributes:
        rounds_us: How long its calls took, microseconds, by round.
        cpu_us: Processor time of all its processes.
    """

    rounds_us: list[list[float]] = field(default_factory=list)
    cpu_us: float = 0.0

    @property
    def calls(self) -> int:
        """How many calls were measured."""
        return sum(map(len, self.rounds_us))

    @property
    def p50_us(self) -> float:
        """The median call."""
        return statistics.median(us for calls in self.rounds_us for us in calls)

    @property
    def p95_us(self) -> float:
        """The call that 95 of 100 are as quick as."""
        ordered = sorted(us for calls in self.rounds_us for us in calls)
        return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]

    @property
    def cpu_per_call_us(self) -> float:
        """Processor time of one call, caller and called together."""
        return self.cpu_us / self.calls

    def ratio(self, other: "Score") -> float:
        """Return this one's median call by the other's: the median of the rounds'."""
        pairs = zip(self.rounds_us, other.rounds_us, strict=True)
        return statistics.median(
            statistics.median(ours) / statistics.median(theirs) for ours, theirs in pairs
        )


#: By way and name of the contestant.
Scores = dict[tuple[str, str], Score]


class Child:
    """One process of a contestant."""

    def __init__(self, name: str, process: trio.Process, errors: IO[bytes]) -> None:
        self._name = name
        self._process = process
        self._errors = errors
        self._read = bytearray()

    async def answer(self, within_s: float, **asked: object) -> Mapping[str, Any]:
        """Ask, unless there is nothing to ask, and return the answer.

        Raises:
            MeshError: The process ended or says nothing; tells its last words.
        """
        with trio.move_on_after(within_s):
            try:
                if asked and self._process.stdin is not None:
                    await self._process.stdin.send_all(json.dumps(asked).encode() + b"\n")
                told: Mapping[str, Any] = json.loads(await self._line())
            except (trio.BrokenResourceError, ValueError) as error:
                raise MeshError(f"{self._name} failed: {await self._last_words()}") from error
            return told
        raise MeshError(f"{self._name} did not answer in {within_s:g} s")

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while (end := self._read.find(b"\n")) < 0:
            some = await self._process.stdout.receive_some()
            if not some or len(self._read) > _LINE_BYTES_MAX:
                return b""
            self._read += some
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    async def _last_words(self) -> str:
        with trio.move_on_after(_END_S):
            await self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"

    async def cpu_ns(self) -> int:
        """Return the processor time used so far."""
        return int((await self.answer(_READY_S, cpu=True))["cpu_ns"])

    async def memory(self) -> tuple[int, int]:
        """Return the bytes that it takes once it has collected garbage, and its sessions."""
        told = await self.answer(_READY_S, memory=True)
        return int(told["resident_bytes"]), int(told["sessions"])

    async def end(self) -> None:
        """Close its standard input, by which it ends; end it if it doesn't."""
        with trio.CancelScope(shield=True):
            if self._process.stdin is not None:
                await self._process.stdin.aclose()
            with trio.move_on_after(_END_S):
                await self._process.wait()
                return
            self._process.kill()
            await self._process.wait()


class Entrant:
    """A contestant that runs."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self.score = Score()

    async def warm_up(self, calls: int, *, profile: str = "") -> None:
        """Call without counting, under cProfile if a file for what it sees is given."""
        await self._children[-1].answer(_TURN_S, calls=calls, profile=profile)

    async def turn(self, calls: int) -> None:
        """Make ``calls`` calls, one after the other, and add them to the score."""
        before = await self._cpu_ns()
        answer = await self._children[-1].answer(_TURN_S, calls=calls)
        self.score.cpu_us += (await self._cpu_ns() - before) / 1000
        self.score.rounds_us.append([ns / 1000 for ns in answer["ns"]])

    async def _cpu_ns(self) -> int:
        return sum([await child.cpu_ns() for child in self._children])


@asynccontextmanager
async def entered(
    contestant: Contestant, way: str, extra: Extra | None
) -> AsyncIterator[Entrant]:
    """Run a contestant's processes for the length of a block.

    Args:
        contestant: Who.
        way: :data:`ONE` or :data:`TWO`.
        extra: The extra environment, for those that need it.

    Raises:
        MeshError: It doesn't come up; says why.
    """
    async with AsyncExitStack() as stack:
        if way == ONE:
            context = started(contestant, ("both",), extra)
            child, _ = await stack.enter_async_context(context)
            yield Entrant([child])
        else:
            context = started(contestant, ("callee",), extra)
            callee, address = await stack.enter_async_context(context)
            context = started(contestant, ("caller", address), extra)
            caller, _ = await stack.enter_async_context(context)
            yield Entrant([callee, caller])


@asynccontextmanager
async def started(
    contestant: Contestant, argv: Sequence[str], extra: Extra | None
) -> AsyncIterator[tuple[Child, str]]:
    """Run one process for the length of a block; give it, and how it is reached.

    Raises:
        MeshError: It doesn't come up; says why.
    """
    python, environment = sys.executable, None
    if contestant.extra:
        assert extra is not None
        python, environment = extra.python, extra.environment
    with TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [python, "-m", contestant.module, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        child = Child(f"{contestant.name} ({argv[0]})", process, errors)
        try:
            ready = await child.answer(_READY_S)
            yield child, str(ready.get("address", ""))
        finally:
            await child.end()


async def hold(
    told: Told, contestants: Sequence[Contestant], size: Size, extra: Extra | None
) -> Scores:
    """Let all contestants take turns, each in one process and in two.

    Raises:
        MeshError: One fails; says which and why.
    """
    entrants: dict[tuple[str, str], Entrant] = {}
    async with AsyncExitStack() as stack:
        for way in (ONE, TWO):
            for contestant in contestants:
                told(f"starting {contestant.name or 'our side'}")
                context = entered(contestant, way, extra)
                entrant = await stack.enter_async_context(context)
                await entrant.warm_up(size.calls)
                entrants[way, contestant.name] = entrant
        for number in range(size.rounds):
            told(f"round {number + 1} of {size.rounds}", number / size.rounds)
            for entrant in entrants.values():
                await entrant.turn(size.calls)
    return {key: entrant.score for key, entrant in entrants.items()}


def check_file(profile: str) -> None:
    """See that a profile can be written to ``profile``, before anything is measured.

    Raises:
        ConfigError: It can't.
    """
    if profile and not Path(profile).absolute().parent.is_dir():
        raise ConfigError(
            f"{profile} can't be written: there is no such folder", hint="make the folder first"
        )


async def profiled(contestant: Contestant, file: str, calls: int) -> None:
    """Leave what cProfile sees of ``calls`` calls, both sides in one process, in ``file``."""
    async with entered(contestant, ONE, None) as entrant:
        await entrant.warm_up(calls)
        await entrant.warm_up(calls, profile=file)
