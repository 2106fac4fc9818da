"""The agent host: this node's agents, run within limits, their input and output checked.

What an agent does wrong (raises, returns the wrong shape or too much, never returns)
ends its call with an error that names it, and nothing else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from meshnode.domain.crowding import wait_ms
from meshnode.domain.matching import LATENCY_GUESS_MS
from meshnode.domain.schemas import check_schema, mismatch
from meshnode.domain.values import canonical, sendable
from meshnode.errors import (
    AgentError,
    AgentTimeout,
    InputInvalid,
    MeshError,
    NotFound,
    OutputInvalid,
)
from meshnode.ports import Agent, AgentCall, AgentSpec, Emit, JsonValue, Output
from protocol.limits import CLAIM_LIFETIME_MS
from protocol.records import CallLimits, Capability, CapabilityName, Measured, Sample

#: An agent that was told to stop and hasn't after this long is reported, seconds.
_STOP_S: Final = 10.0
#: Text that one call may stream, in characters.
_STREAM_CHARS_MAX: Final = 1_000_000
#: What one call may have used of anything, such as tokens.
_USAGE_MAX: Final = 10**9
#: Weight of the newest call in the running mean of an agent's latency.
_NEWEST: Final = 0.2


@dataclass(eq=False, slots=True)
class _Hosted:
    agent: Agent
    spec: AgentSpec  # within what the machine's owner allows
    input_schema: bytes
    output_schema: bytes
    limiter: trio.CapacityLimiter
    opening: trio.Lock = field(default_factory=trio.Lock)
    is_open: bool = False
    removed: bool = False
    waiting: int = 0
    calls: int = 0
    latency_ms: float = 0.0
    at_ms: int = 0  # of the newest call that was measured
    tried: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        """Begin with what was measured before; the agent's own calls wear it away."""
        self.calls = self.agent.spec.measures.samples
        self.latency_ms = self.agent.spec.measures.latency_ms

    @property
    def is_busy(self) -> bool:
        """Whether a call runs, or waits to."""
        return bool(self.limiter.borrowed_tokens or self.waiting)


class AgentHost:
    """Every agent of this node.

    Args:
        agents: By any order; names must differ.
        calls_max: Calls at once, all agents together.
        emit: Telemetry.
        input_bytes_max: Largest input of one call, whatever an agent says.
        run_s_max: Longest run of one call, whatever an agent says.
        now_ms: Unix time, for when something was measured.

    Raises:
        InputInvalid: Two agents share a name, or a schema or capability name is unusable.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        *,
        calls_max: int,
        emit: Emit,
        input_bytes_max: int = 2**63,
        run_s_max: float = math.inf,
        now_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._emit = emit
        self._now_ms = now_ms
        self._input_bytes_max = input_bytes_max
        self._run_s_max = run_s_max
        self._total = trio.CapacityLimiter(calls_max)
        self._hosted: dict[str, _Hosted] = {}
        for agent in agents:
            self.add(agent)

    def add(self, agent: Agent) -> None:
        """Host one more agent.

        Raises:
            InputInvalid: Its name is taken, or a schema or its capability's name is unusable.
        """
        spec = replace(
            agent.spec,
            input_bytes_max=min(agent.spec.input_bytes_max, self._input_bytes_max),
            timeout_s=min(agent.spec.timeout_s, self._run_s_max),
        )
        if spec.name in self._hosted:
            raise InputInvalid(f"two agents are called {spec.name!r}", hint="rename one")
        CapabilityName.parse(spec.capability)
        hosted = _Hosted(
            agent,
            spec,
            canonical(dict(spec.input_schema)),
            canonical(dict(spec.output_schema)),
            trio.CapacityLimiter(spec.concurrency_max),
        )
        check_schema(hosted.input_schema, where=f"agent {spec.name!r}, input schema")
        check_schema(hosted.output_schema, where=f"agent {spec.name!r}, output schema")
        if hosted.calls:
            hosted.at_ms = spec.measures.at_ms or self._now_ms()
        self._hosted[spec.name] = hosted

    async def remove(self, name: str) -> None:
        """Host an agent no longer; calls that run go on to their end, and then it is closed.

        Raises:
            NotFound: There is no such agent here.
        """
        hosted = self._find(name)
        del self._hosted[name]
        hosted.removed = True
        if hosted.is_open and not hosted.is_busy:
            with self._blaming(name):
                await hosted.agent.aclose()
        else:
            await trio.lowlevel.checkpoint()

    def specs(self) -> Mapping[str, AgentSpec]:
        """Return what the agents offer, by name."""
        return {name: hosted.spec for name, hosted in self._hosted.items()}

    def output_schema(self, name: str) -> bytes:
        """Return an agent's output schema as canonical JSON."""
        return self._find(name).output_schema

    def latency_ms(self, name: str) -> int:
        """Return the running mean of one call; 0 if none was measured lately."""
        hosted = self._find(name)
        lapsed = self._now_ms() >= hosted.at_ms + CLAIM_LIFETIME_MS
        return 0 if lapsed else int(hosted.latency_ms)

    def free(self, name: str) -> int:
        """Return how many calls could start at once."""
        hosted = self._find(name)
        return max(0, int(hosted.limiter.available_tokens) - hosted.waiting)

    def wait_ms(self, name: str, held: Mapping[str, int]) -> int:
        """Return how long a call that comes now would wait for its turn.

        It waits behind those of its own agent, and behind those of others where this node
        runs as many at once as it may.

        Args:
            name: Of the agent.
            held: Agent -> calls of its awards that aren't finished.

        Raises:
            NotFound: There is no such agent here.
        """
        hosted = self._find(name)
        own = max(held.get(name, 0), int(hosted.limiter.borrowed_tokens) + hosted.waiting)
        rivals = {name: own}
        for other, count in held.items():
            if other in self._hosted and other != name:
                rivals[other] = min(count, self._hosted[other].spec.concurrency_max)
        all_ms = sum(
            count * (self.latency_ms(one) or LATENCY_GUESS_MS) for one, count in rivals.items()
        )
        calls = sum(rivals.values())
        return max(
            wait_ms(
                own,
                concurrency=hosted.spec.concurrency_max,
                latency_ms=self.latency_ms(name),
            ),
            wait_ms(
                calls,
                concurrency=int(self._total.total_tokens),
                latency_ms=all_ms // max(1, calls),
            ),
        )

    def recall(self, name: str, measured: Measured) -> None:
        """Go on from what was measured of an agent in a life before.

        Raises:
            NotFound: There is no such agent here.
        """
        hosted = self._find(name)
        hosted.calls, hosted.latency_ms = measured.samples, float(measured.latency_ms)
        hosted.at_ms = measured.at_ms
        hosted.tried, hosted.right = measured.tried, measured.right

    def examined(self, name: str, *, tried: int, right: int) -> None:
        """Take in how many of an agent's examples were tried, and came out as they say.

        Raises:
            NotFound: There is no such agent here.
        """
        hosted = self._find(name)
        hosted.tried, hosted.right = tried, right

    def capabilities(self) -> list[Capability]:
        """Return what this node's record says of its agents."""
        return [self._capability(name) for name in sorted(self._hosted)]

    def _capability(self, name: str) -> Capability:
        hosted = self._hosted[name]
        spec = hosted.spec
        return Capability(
            agent=name,
            name=spec.capability,
            description=spec.description,
            examples=[
                Sample(input=canonical(example.input), output=canonical(example.output))
                for example in spec.examples
            ],
            input_schema=hosted.input_schema,
            output_schema=hosted.output_schema,
            price_mc=spec.price_mc,
            limits=CallLimits(
                concurrency=spec.concurrency_max,
                timeout_ms=int(spec.timeout_s * 1000),
                input_bytes=spec.input_bytes_max,
                output_bytes=spec.output_bytes_max,
            ),
            measured=Measured(
                samples=hosted.calls,
                latency_ms=int(hosted.latency_ms),
                at_ms=hosted.at_ms,
                tokens_per_s=spec.measures.tokens_per_s,
                context_tokens=spec.measures.context_tokens,
                tried=hosted.tried,
                right=hosted.right,
            ),
            model_family=spec.model_family,
            deterministic=spec.deterministic,
            like=spec.like,
            checks=list(spec.checks),
        )

    async def call(
        self,
        name: str,
        value: JsonValue,
        call: AgentCall,
        *,
        on_chunk: Callable[[str], None] | None = None,
        on_ran: Callable[[int], None] | None = None,
    ) -> Output:
        """Run an agent once; waits for a slot.

        Args:
            name: Of the agent.
            value: Its input.
            call: What it is told beside that.
            on_chunk: Called with each piece of text that it streams.
            on_ran: Called with how long it ran, milliseconds, however it ended.

        Raises:
            InputInvalid: Its input schema refuses ``value``, or it is too large.
            AgentTimeout: It used up its own time limit, or ``call.deadline_s`` passed.
            OutputInvalid: Its output schema refuses what it returned, or it is too much.
            AgentError: It failed.
            NotFound: There is no such agent here.
        """
        hosted = self._find(name)
        spec = hosted.spec
        size = len(canonical(value))
        if size > spec.input_bytes_max:
            raise InputInvalid(
                f"agent {name!r} takes inputs of {spec.input_bytes_max} bytes, not {size}"
            )
        if reason := mismatch(hosted.input_schema, value):
            raise InputInvalid(f"agent {name!r} can't take this input: {reason}")
        hosted.waiting += 1
        try:
            await _acquire(hosted.limiter, call.deadline_s, f"agent {name!r}")
        finally:
            hosted.waiting -= 1
        try:
            await _acquire(self._total, call.deadline_s, "this node")
            begun_s = trio.current_time()
            try:
                return await self._run(hosted, value, call, on_chunk)
            finally:
                self._total.release()
                if on_ran is not None:
                    on_ran(round((trio.current_time() - begun_s) * 1000))
        finally:
            hosted.limiter.release()
            if hosted.removed and hosted.is_open and not hosted.is_busy:
                await self._close(hosted)

    async def _run(
        self,
        hosted: _Hosted,
        value: JsonValue,
        call: AgentCall,
        on_chunk: Callable[[str], None] | None,
    ) -> Output:
        spec = hosted.spec
        begun_s = trio.current_time()
        limit_s = min(begun_s + spec.timeout_s, call.deadline_s)
        with _until(limit_s, f"agent {spec.name!r} did not finish in time and was stopped"):
            await self._open(hosted)
            output = await self._collect(hosted, value, call, on_chunk)
        self._check_output(hosted, output)
        elapsed_ms = (trio.current_time() - begun_s) * 1000
        hosted.calls += 1
        hosted.at_ms = self._now_ms()
        weight = _NEWEST if hosted.calls > 1 else 1.0
        hosted.latency_ms += weight * (elapsed_ms - hosted.latency_ms)
        return output

    async def _open(self, hosted: _Hosted) -> None:
        if hosted.is_open:
            return
        async with hosted.opening:
            if hosted.is_open:
                return
            with self._blaming(hosted.spec.name):
                await hosted.agent.open()
            hosted.is_open = True

    async def _collect(
        self,
        hosted: _Hosted,
        value: JsonValue,
        call: AgentCall,
        on_chunk: Callable[[str], None] | None,
    ) -> Output:
        name = hosted.spec.name
        streamed = 0
        with self._blaming(name):
            async with aclosing(hosted.agent.run(value, call)) as pieces:  # type: ignore[type-var]  # any async iterator with aclose
                async for piece in pieces:
                    if isinstance(piece, Output):
                        return piece
                    streamed += max(1, len(piece.text))  # even nothing takes its time
                    if streamed > _STREAM_CHARS_MAX:
                        break
                    if on_chunk is not None:
                        on_chunk(piece.text)
        if streamed > _STREAM_CHARS_MAX:
            raise OutputInvalid(
                f"agent {name!r} streamed more than {_STREAM_CHARS_MAX} characters"
            )
        raise OutputInvalid(f"agent {name!r} ended without an output")

    @contextmanager
    def _blaming(self, name: str) -> Iterator[None]:
        """Turn whatever an agent raises into an error that names it."""
        try:
            yield
        except MeshError:
            raise
        except (Exception, SystemExit) as exc:  # one that exits must not take the node along
            self._emit("agent.raised", agent=name, error=repr(exc))
            text = sendable(str(exc)[:300])
            raise AgentError(f"agent {name!r} failed: {type(exc).__name__}: {text}") from exc

    def _check_output(self, hosted: _Hosted, output: Output) -> None:
        spec = hosted.spec
        try:
            size = len(canonical(output.value))
        except InputInvalid as exc:
            raise OutputInvalid(f"agent {spec.name!r} returned {exc}") from exc
        if size > spec.output_bytes_max:
            raise OutputInvalid(
                f"agent {spec.name!r} returned {size} bytes of {spec.output_bytes_max} allowed"
            )
        for what, amount in output.usage.items():
            if type(amount) is not int or not 0 <= amount <= _USAGE_MAX:
                raise OutputInvalid(f"agent {spec.name!r} used {amount!r:.40} {what!s:.40}")
        if reason := mismatch(hosted.output_schema, output.value):
            raise OutputInvalid(f"agent {spec.name!r} returned what it should not: {reason}")

    def _find(self, name: str) -> _Hosted:
        hosted = self._hosted.get(name)
        if hosted is None:
            raise NotFound(f"there is no agent {name!r} here")
        return hosted

    async def aclose(self) -> None:
        """Close every agent that was opened; one that hangs is left behind, reported."""
        for hosted in self._hosted.values():
            if hosted.is_open:
                await self._close(hosted)

    async def _close(self, hosted: _Hosted) -> None:
        name = hosted.spec.name
        hosted.is_open = False
        deadline_s = trio.current_time() + _STOP_S
        with trio.CancelScope(deadline=deadline_s, shield=True) as scope:
            try:
                with self._blaming(name):
                    await hosted.agent.aclose()
            except MeshError as exc:
                self._emit("agent.close_failed", agent=name, error=str(exc))
        if scope.cancelled_caught:
            self._emit("agent.close_failed", agent=name, error="it hangs")


async def _acquire(limiter: trio.CapacityLimiter, deadline_s: float, whose: str) -> None:
    """Take a slot, and wait for one until ``deadline_s``.

    Raises:
        AgentTimeout: There was none in time.
    """
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        with _until(deadline_s, f"{whose} had no free slot before the deadline"):
            await limiter.acquire()


@contextmanager
def _until(deadline_s: float, text: str) -> Iterator[None]:
    """Raise ``AgentTimeout(text)`` when Trio's clock passes ``deadline_s`` inside."""
    with trio.move_on_at(deadline_s) as scope:
        yield
    if scope.cancelled_caught:
        raise AgentTimeout(text)
