"""The agent host: what an agent does wrong ends its call with a clear error, and no more.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from typing_extensions import override

from meshnode.errors import (
    AgentError,
    AgentTimeout,
    InputInvalid,
    MeshError,
    NotFound,
    OutputInvalid,
)
from meshnode.ports import AgentCall, Chunk, JsonValue, Measures, Output
from meshnode.services.agents import AgentHost
from protocol.records import Measured
from simulations.world import World, run
from tests.meshnode.services.worlds import Behave, TextAgent, answers_after, never, shout


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def scenario(_: World) -> None:
        await story()

    run(scenario, seed=1)


def host_of(*agents: TextAgent, calls_max: int = 4) -> AgentHost:
    return AgentHost(agents, calls_max=calls_max, emit=lambda *_, **__: None)


async def call(
    host: AgentHost,
    text: JsonValue = "hi",
    *,
    name: str = "shout",
    limit_s: float = 100.0,
    on_chunk: Callable[[str], None] | None = None,
) -> JsonValue:
    about = AgentCall(idempotency_key="key", deadline_s=trio.current_time() + limit_s)
    return (await host.call(name, {"text": text}, about, on_chunk=on_chunk)).value


async def raises(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    raise RuntimeError("out of luck")
    yield


async def raises_on_purpose(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    raise AgentError("no model")
    yield


async def returns_nothing(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    yield Chunk("only talk")


async def returns_nonsense(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    yield Output({"text": 7})


async def returns_no_json(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    odd: Any = {"text": object()}
    yield Output(odd)


async def returns_a_lot(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    yield Output({"text": "x" * 2_000})


async def streams_for_ever(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    while True:
        await trio.lowlevel.checkpoint()
        yield Chunk("x" * 10_000)


async def dribbles_for_ever(_: str, __: AgentCall) -> AsyncIterator[Chunk | Output]:
    while True:
        await trio.sleep(0.1)
        yield Chunk("x")


@pytest.mark.parametrize(
    ("behave", "error", "says"),
    [
        (raises, AgentError, "out of luck"),
        (raises_on_purpose, AgentError, "no model"),
        (returns_nothing, OutputInvalid, "without an output"),
        (returns_nonsense, OutputInvalid, "should not"),
        (returns_no_json, OutputInvalid, "returned"),
        (returns_a_lot, OutputInvalid, "bytes"),
        (never, AgentTimeout, "in time"),
        (streams_for_ever, OutputInvalid, "characters"),
        (dribbles_for_ever, AgentTimeout, "in time"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_agent_ends_its_call_with_an_error_that_names_it(
    behave: Behave, error: type[MeshError], says: str
) -> None:
    async def story() -> None:
        bad = TextAgent(behave, timeout_s=5.0, output_bytes_max=1_000)
        good = TextAgent(shout, name="good", capability="text.good@1")
        host = host_of(bad, good)
        for _ in range(6):  # more often than it has slots: none may be lost
            with pytest.raises(error, match=says) as caught:
                await call(host)
            assert type(caught.value) is error
            assert "'shout'" in str(caught.value) or behave is raises_on_purpose
        assert bad.running == 0
        assert host.free("shout") == 4
        assert await call(host, name="good") == {"text": "HI"}

    play(story)


def test_an_agent_is_stopped_at_the_callers_deadline() -> None:
    async def story() -> None:
        agent = TextAgent(never)
        host = host_of(agent)
        with pytest.raises(AgentTimeout):
            await call(host, limit_s=2)
        assert trio.current_time() == pytest.approx(2)
        assert agent.running == 0

    play(story)


def test_a_call_that_gets_no_slot_in_time_fails_and_leaves_the_queue() -> None:
    async def story() -> None:
        agent = TextAgent(answers_after(5), concurrency_max=1)
        host = host_of(agent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, host)
            await trio.sleep(1)
            with pytest.raises(AgentTimeout, match="no free slot"):
                await call(host, limit_s=2)
        assert agent.calls == ["hi"]
        assert host.free("shout") == 1

    play(story)


def test_no_more_calls_run_than_the_agent_and_the_machine_allow() -> None:
    async def story() -> None:
        most: list[int] = []

        async def counts(text: str, about: AgentCall) -> AsyncIterator[Chunk | Output]:
            most.append(sum(agent.running for agent in agents))
            await trio.sleep(1)
            yield Output({"text": text})

        agents = [
            TextAgent(counts, name=name, capability=f"text.{name}@1", concurrency_max=2)
            for name in ("one", "two")
        ]
        host = host_of(*agents, calls_max=3)
        async with trio.open_nursery() as nursery:
            for name in ("one", "two"):
                for _ in range(5):
                    nursery.start_soon(_call_named, host, name)
        assert max(most) == 3
        assert len(most) == 10

    async def _call_named(host: AgentHost, name: str) -> None:
        await call(host, name=name)

    play(story)


def test_an_input_that_its_schema_refuses_never_reaches_the_agent() -> None:
    async def story() -> None:
        agent = TextAgent(shout, input_bytes_max=100)
        host = host_of(agent)
        odd: tuple[JsonValue, ...] = (7, None, ["x"], "x" * 200)
        for bad in odd:
            with pytest.raises(InputInvalid):
                await call(host, bad)
        with pytest.raises(NotFound):
            await call(host, name="nobody")
        assert agent.calls == []

    play(story)


def test_what_an_agent_streams_is_passed_on_in_order() -> None:
    async def talks(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        for word in ("a", "b", "c"):
            yield Chunk(word)
        yield Output({"text": text})

    async def story() -> None:
        heard: list[str] = []
        await call(host_of(TextAgent(talks)), on_chunk=heard.append)
        assert heard == ["a", "b", "c"]

    play(story)


def test_what_was_measured_before_is_claimed_until_calls_wear_it_away() -> None:
    async def story() -> None:
        claimed = {"tokens_per_s": 30, "context_tokens": 4096}
        host = host_of(TextAgent(measures=Measures(samples=9, latency_ms=1_000, **claimed)))
        (before,) = host.capabilities()
        assert before.measured == Measured(samples=9, latency_ms=1_000, **claimed)
        await call(host)
        (after,) = host.capabilities()
        assert after.measured == Measured(samples=10, latency_ms=800, **claimed)

    play(story)


def test_two_agents_of_one_name_are_refused() -> None:
    with pytest.raises(InputInvalid, match="shout"):
        host_of(TextAgent(), TextAgent())


def test_an_agent_that_can_not_open_says_so_and_is_tried_again() -> None:
    class Shy(TextAgent):
        tries = 0

        @override
        async def open(self) -> None:
            self.tries += 1
            await trio.lowlevel.checkpoint()
            if self.tries == 1:
                raise AgentError("the model is not installed", hint="install it")

    async def story() -> None:
        host = host_of(Shy())
        with pytest.raises(AgentError, match="not installed"):
            await call(host)
        assert await call(host) == {"text": "HI"}

    play(story)


def test_an_agent_whose_closing_hangs_is_left_behind_and_told() -> None:
    class Clingy(TextAgent):
        @override
        async def aclose(self) -> None:
            await trio.sleep_forever()

    async def story() -> None:
        seen: list[str] = []
        host = AgentHost([Clingy()], calls_max=1, emit=lambda name, **_: seen.append(name))
        await call(host)
        await host.aclose()
        assert seen == ["agent.close_failed"]
        assert trio.current_time() <= 11

    play(story)


class Closing(TextAgent):
    """Notes when it is closed, seconds."""

    def __init__(self, behave: Behave) -> None:
        super().__init__(behave, concurrency_max=1)
        self.closed_s: list[float] = []

    @override
    async def aclose(self) -> None:
        self.closed_s.append(trio.current_time())
        await trio.lowlevel.checkpoint()


def test_an_agent_that_is_removed_is_closed_after_its_last_call() -> None:
    async def story() -> None:
        agent = Closing(answers_after(5))
        host = host_of(agent)
        async with trio.open_nursery() as nursery:
            for _ in range(2):  # one runs, one waits
                nursery.start_soon(call, host)
            await trio.sleep(1)
            await host.remove("shout")
            assert not agent.closed_s
        assert agent.closed_s == [10.0]
        await host.aclose()
        assert agent.closed_s == [10.0], "once"

    play(story)


def test_an_agent_that_is_removed_is_closed_when_its_last_call_is_cancelled() -> None:
    async def story() -> None:
        agent = Closing(never)
        host = host_of(agent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, host)
            await trio.sleep(1)
            await host.remove("shout")
            nursery.cancel_scope.cancel()
        assert agent.closed_s == [1.0]

    play(story)
