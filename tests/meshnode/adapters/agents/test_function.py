"""A function as an agent: its types, its kinds, its failures."""

import dataclasses
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import ModuleType
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jsonschema_rs
import msgspec
import pytest
import trio
import trio.testing

from meshnode.adapters.agents.function import FunctionAgent, agent, load_function
from meshnode.errors import AgentError, ConfigError
from meshnode.ports import Agent, AgentCall, Chunk, Output
from protocol.likeness import Likeness
from tests.meshnode.adapters.agents.running import run, turn


@dataclasses.dataclass
class Point:
    x: int
    y: float = 1.0


class Tag(TypedDict):
    name: str
    weight: NotRequired[int]


class Tree(msgspec.Struct):
    value: int
    children: list["Tree"] = []


@agent("text.repetition@1", price_mc=2, deterministic=True)
def repeat(
    text: str,
    times: int = 2,
    *,
    at: Point | None = None,
    mode: Literal["plain", "loud"] = "plain",
    tags: list[Tag] | None = None,
) -> dict[str, str]:
    """Repeat a text some times.

    This is not part of the description.
    """
    return {"text": text * times, "at": repr(at), "mode": mode, "tags": repr(tags)}


def test_schema_and_description_come_from_the_function() -> None:
    spec = repeat.spec
    assert isinstance(repeat, Agent)
    assert (spec.name, spec.capability, spec.price_mc) == ("repeat", "text.repetition@1", 2)
    assert spec.description == "Repeat a text some times."
    assert spec.input_schema["required"] == ["text"]
    assert spec.input_schema["additionalProperties"] is False
    assert spec.output_schema == {
        "type": "object",
        "additionalProperties": {"type": "string"},
    }


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"text": "a"}, True),
        (
            {"text": "a", "times": 3, "at": {"x": 1}, "mode": "loud", "tags": [{"name": "t"}]},
            True,
        ),
        ({"text": "a", "at": None}, True),
        ({}, False),
        ({"text": 1}, False),
        ({"text": "a", "mode": "shy"}, False),
        ({"text": "a", "at": {"y": 1}}, False),
        ({"text": "a", "tags": [{"weight": 1}]}, False),
        ({"text": "a", "more": 1}, False),
        ("a", False),
    ],
)
async def test_schema_and_function_agree_on_what_fits(value: Any, fits: bool) -> None:
    assert jsonschema_rs.validator_for(dict(repeat.spec.input_schema)).is_valid(value) is fits
    if fits:
        await run(repeat, value)
    else:
        with pytest.raises(AgentError, match="input refused"):
            await run(repeat, value)


async def test_arguments_arrive_as_their_types_and_defaults_stay_the_functions() -> None:
    _, output = await run(repeat, {"text": "ab", "at": {"x": 3}})
    assert output.value == {
        "text": "abab",
        "at": "Point(x=3, y=1.0)",
        "mode": "plain",
        "tags": "None",
    }


def test_it_says_by_what_its_answers_can_be_checked() -> None:
    like = {"kind": "numeric", "relative_ppm": 7}

    @agent("text.mean@1", like=like, checks=["quoted"])
    def mean(text: str) -> str:
        """Mean."""
        return text

    assert mean.spec.like == Likeness("numeric", relative_ppm=7)
    assert list(mean.spec.checks) == ["quoted"]
    with pytest.raises(ConfigError, match="fuzzy"):
        agent("text.mean@1", like="fuzzy")(mean._function)


def test_decorated_function_can_be_called_as_before() -> None:
    assert repeat("x", 3)["text"] == "xxx"


async def test_sync_function_runs_in_a_thread_and_async_in_the_loop() -> None:
    @agent("x.thread@1")
    def in_thread() -> int:
        return threading.get_ident()

    @agent("x.loop@1")
    async def in_loop() -> int:
        await trio.lowlevel.checkpoint()
        return threading.get_ident()

    assert (await run(in_loop, {}))[1].value == threading.get_ident()
    assert (await run(in_thread, {}))[1].value != threading.get_ident()


async def test_generator_streams_text_and_its_last_yield_is_the_result() -> None:
    @agent("x.stream@1")
    async def stream(count: int) -> AsyncIterator[str | Point]:
        for number in range(count):
            yield str(number)
        yield Point(count)

    chunks, output = await run(stream, {"count": 3})
    assert (chunks, output.value) == (["0", "1", "2"], {"x": 3, "y": 1.0})
    assert stream.spec.output_schema["required"] == ["x"]


async def test_generator_may_end_in_an_output_with_usage() -> None:
    @agent("x.metered@1", returns=int)
    async def metered() -> AsyncGenerator[str | Chunk | Output, None]:
        yield "a"
        yield Chunk("b")
        yield Output(7, {"tokens_out": 2})

    chunks, output = await run(metered, {})
    assert (chunks, output) == (["a", "b"], Output(7, {"tokens_out": 2}))
    assert metered.spec.output_schema == {"type": "integer"}


async def test_generator_without_a_result_or_with_two_is_an_agent_error() -> None:
    @agent("x.silent@1")
    async def silent(results: list[Point]) -> AsyncIterator[Point]:
        for each in results:
            yield each

    with pytest.raises(AgentError, match="without yielding"):
        await run(silent, {"results": []})
    with pytest.raises(AgentError, match="Point before its last"):
        await run(silent, {"results": [{"x": 1}, {"x": 2}]})


async def test_generator_is_closed_when_its_reader_leaves() -> None:
    closed = trio.Event()

    @agent("x.endless@1")
    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                await trio.lowlevel.checkpoint()
                yield "more"
        finally:
            closed.set()

    stream = endless.run({}, AgentCall("k", 1.0))
    await anext(stream)
    await stream.aclose()
    assert closed.is_set()


@pytest.mark.parametrize("kind", ["sync", "async", "generator"])
async def test_what_a_function_raises_is_an_agent_error_that_names_both(kind: str) -> None:
    def sync() -> int:
        raise ValueError("no luck")

    async def asynchronous() -> int:
        await trio.lowlevel.checkpoint()
        raise ValueError("no luck")

    async def generator() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("no luck")

    function = {"sync": sync, "async": asynchronous, "generator": generator}[kind]
    wrapped = FunctionAgent(function, "x.failing@1", name="failing")
    with pytest.raises(AgentError, match="failing raised ValueError: no luck"):
        await run(wrapped, {})


async def test_an_interrupt_that_a_function_makes_up_is_its_own_failure() -> None:
    """Ctrl-C never comes to a thread: passed on, it would end the whole node."""

    def interrupts() -> int:
        raise KeyboardInterrupt

    with pytest.raises(AgentError, match="interrupts raised KeyboardInterrupt"):
        await run(FunctionAgent(interrupts, "x.failing@1"), {})


async def test_call_is_handed_to_who_asks_and_is_no_input() -> None:
    @agent("x.keyed@1")
    async def keyed(call: AgentCall) -> str:
        await trio.lowlevel.checkpoint()
        return call.idempotency_key

    assert (await run(keyed, {}))[1].value == "key-1"
    assert keyed.spec.input_schema["properties"] == {}


async def test_cancel_leaves_a_thread_behind_that_still_counts() -> None:
    release, entered = threading.Event(), threading.Semaphore(0)

    @agent("x.stuck@1", concurrency_max=1)
    def stuck() -> int:
        entered.release()
        release.wait()
        return 1

    async def call() -> None:
        async for _ in stuck.run({}, AgentCall("k", 1.0)):
            pass

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.to_thread.run_sync(entered.acquire)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):  # time for a thread that shouldn't be to say that it is
                await turn()
            assert not entered.acquire(blocking=False), "a second thread was started"
            release.set()
    finally:
        release.set()


def _untyped(text):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - the point of the test
    return text


def _variadic(*texts: str) -> str:
    return "".join(texts)


def _unhintable(thread: threading.Thread) -> str:
    return thread.name


def _resultless(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - the point of the test
    return text


def _unresolved(text: "Nowhere") -> str:  # type: ignore[name-defined]  # noqa: F821 - the point of the test
    return str(text)


def _generator(text: str) -> object:
    yield text


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_untyped, r"parameter 'text' of .*_untyped has no type hint"),
        (_variadic, r"parameter \*texts: str of .*_variadic"),
        (_unhintable, r"a parameter of .*_unhintable has a type that JSON can't hold"),
        (_resultless, r"the result of .*_resultless has no type hint"),
        (_unresolved, r"Nowhere"),
        (_generator, r"_generator is a plain generator"),
    ],
)
def test_refuses_a_function_whose_types_cannot_be_told(
    function: Callable[..., object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        FunctionAgent(function, "x.y@1")


@pytest.mark.parametrize("capability", ["", "x", "x@0", "X.y@1", "x..y@1", "x@1.0", "x y@1"])
def test_refuses_what_is_no_capability(capability: str) -> None:
    with pytest.raises(ConfigError, match="is no capability"):
        FunctionAgent(_variadic_free, capability)


def _variadic_free(text: str) -> str:
    return text


async def test_a_type_that_holds_itself_keeps_its_references() -> None:
    @agent("x.tree@1")
    async def depth(tree: Tree) -> int:
        await trio.lowlevel.checkpoint()
        return 1 + max((each.value for each in tree.children), default=0)

    validator = jsonschema_rs.validator_for(dict(depth.spec.input_schema))
    assert validator.is_valid({"tree": {"value": 1, "children": [{"value": 2}]}})
    assert not validator.is_valid({"tree": {"value": 1, "children": [{"value": "2"}]}})


def test_a_property_called_title_survives_and_so_do_bounds() -> None:
    @agent("x.titled@1")
    def titled(
        title: Annotated[str, msgspec.Meta(max_length=3, description="One.\n\nTwo.")],
    ) -> str:
        return title

    assert titled.spec.input_schema["properties"] == {
        "title": {"type": "string", "maxLength": 3, "description": "One."}
    }


async def test_open_names_what_is_not_installed() -> None:
    lacking = FunctionAgent(
        _variadic_free,
        "x.y@1",
        name="lacking",
        needs=("trio", "no_such_module"),
        install_hint="do",
    )
    with pytest.raises(AgentError, match="lacking needs no_such_module") as raised:
        await lacking.open()
    assert raised.value.hint == "do"


async def test_open_reports_what_loading_raises() -> None:
    def broken() -> None:
        raise OSError("disk on fire")

    with pytest.raises(AgentError, match="OSError: disk on fire"):
        await FunctionAgent(_variadic_free, "x.y@1", prepare=broken).open()


def test_load_function_finds_agents_and_factories_and_explains_what_is_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("some_agents")
    module.repeat = repeat  # type: ignore[attr-defined]  # a module made here

    def make() -> FunctionAgent[..., object]:
        return repeat  # type: ignore[return-value]  # parameters differ

    module.make, module.plain = make, _variadic_free  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "some_agents", module)
    assert load_function("some_agents:repeat") is repeat
    assert load_function("some_agents:make") is repeat
    for target, says in {
        "some_agents:plain": "is no agent",
        "some_agents:absent": "there is no 'absent'",
        "no_such_module:x": "can't import no_such_module",
        "some_agents": "names no function",
    }.items():
        with pytest.raises(ConfigError, match=says):
            load_function(target)


def which_thread(text: str) -> str:
    """Tell where it runs."""
    return f"{text}: {threading.current_thread() is threading.main_thread()}"


async def test_inline_a_plain_function_runs_in_place_and_nothing_else_changes() -> None:
    prepared: list[bool] = []

    def prepare() -> None:
        prepared.append(threading.current_thread() is threading.main_thread())

    made = FunctionAgent(which_thread, "text.place@1", prepare=prepare)
    inline = made.inline()
    assert inline.spec is made.spec
    assert inline("a") == "a: True"
    results = []
    for each in (made, inline):
        await each.open()
        results.append((await run(each, {"text": "a"}))[1].value)
    assert results == ["a: False", "a: True"]
    assert prepared == [False, True]


async def test_inline_a_function_fails_its_own_call() -> None:
    def fail(text: str) -> str:
        raise ValueError(text)

    with pytest.raises(AgentError, match="fail raised ValueError: no"):
        await run(FunctionAgent(fail, "text.failure@1").inline(), {"text": "no"})
