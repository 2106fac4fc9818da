"""The embedded model: it writes, streams, stops, dies and comes back."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import jsonschema_rs
import pytest
import trio

from meshnode.adapters.agents import llamacpp
from meshnode.adapters.agents.llamacpp import ChatModel, Usage
from meshnode.adapters.agents.specialists.abstract_writing import create
from meshnode.errors import AgentError
from tests.meshnode.adapters.agents.running import alive, gone, run, state, turn

LONG = [{"role": "user", "content": "Count from 1 to 1000, one number a line."}]


async def text_of(model: ChatModel, messages: list[dict[str, str]], tokens: int) -> str:
    return "".join([piece async for piece in model.generate(messages, tokens, Usage())])


async def exhaust(pieces: AsyncIterator[str]) -> None:
    async for _ in pieces:
        pass


def pid_of(model: ChatModel) -> int:
    assert model.pid is not None
    return model.pid


async def test_writes_the_abstracts_of_its_examples_and_streams_them() -> None:
    writer = create()
    await writer.open()
    assert writer.model.pid is None, "nothing is loaded before it is needed"
    validate = jsonschema_rs.validator_for(dict(writer.spec.output_schema)).is_valid
    try:
        for example in writer.spec.examples:
            chunks, output = await run(writer, example.input)
            assert validate(output.value)
            assert validate(example.output)
            assert len(chunks) > 5
            abstract = cast("dict[str, str]", output.value)["abstract"]
            assert abstract.endswith(".")
            assert abstract.split()[0] in "".join(chunks)
            assert output.usage["tokens_out"] >= len(chunks) - 1
            assert output.usage["tokens_in"] > 20
    finally:
        await writer.aclose()


async def test_same_input_gives_the_same_text_whatever_was_asked_before() -> None:
    model = ChatModel()
    other = [{"role": "user", "content": "What do bees do?"}]
    try:
        texts = [await text_of(model, asked, 12) for asked in (LONG, other, LONG)]
    finally:
        await model.aclose()
    assert texts[0] == texts[2] != texts[1]


async def test_leaving_stops_the_generation_and_keeps_the_child() -> None:
    model = ChatModel()
    try:
        async with aclosing(model.generate(LONG, 1500, Usage())) as pieces:
            await anext(pieces)
            await anext(pieces)
        pid = pid_of(model)
        usage = Usage()
        with trio.fail_after(20):  # 1500 tokens would take longer
            async with aclosing(model.generate(LONG, 3, usage)) as pieces:
                assert [piece async for piece in pieces]
        assert usage.finish == "length"
        assert model.pid == pid
    finally:
        await model.aclose()
    await gone(pid)


async def test_a_child_that_does_not_stop_when_told_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llamacpp, "CANCEL_TIMEOUT_S", 0.2)
    model = ChatModel()
    try:
        pieces = model.generate(LONG, 1500, Usage())
        await anext(pieces)
        pid = pid_of(model)
        os.kill(pid, signal.SIGSTOP)
        await pieces.aclose()
        assert model.pid is None
        await gone(pid)
    finally:
        await model.aclose()


async def test_cancel_while_loading_leaves_no_child() -> None:
    model = ChatModel()
    started: list[int] = []

    async def call() -> None:
        async for _ in model.generate(LONG, 5, Usage()):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        with trio.fail_after(30):
            while model.pid is None:
                await turn()
        started.append(model.pid)
        nursery.cancel_scope.cancel()
    assert model.pid is None
    await gone(started[0])


async def test_a_child_that_died_is_an_agent_error_once_and_then_replaced() -> None:
    model = ChatModel()
    try:
        async with aclosing(model.generate(LONG, 1500, Usage())) as pieces:
            await anext(pieces)
            first = pid_of(model)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(AgentError, match="process ended"):
                await exhaust(pieces)
        assert await text_of(model, LONG, 3)
        assert pid_of(model) != first
    finally:
        await model.aclose()


async def test_a_child_that_died_or_froze_between_calls_is_replaced_unnoticed() -> None:
    model = ChatModel()
    try:
        for ending in (signal.SIGKILL, signal.SIGSTOP):
            assert await text_of(model, LONG, 3)
            before = pid_of(model)
            os.kill(before, ending)
            with trio.fail_after(10):  # signals take a moment to reach every thread
                while state(before) not in ("T", "Z", ""):
                    await turn()
            assert await text_of(model, LONG, 3)
            assert pid_of(model) != before
            await gone(before)
    finally:
        await model.aclose()


async def test_calls_at_once_take_turns() -> None:
    model = ChatModel()
    answers: list[str] = []

    async def call() -> None:
        answers.append(await text_of(model, LONG, 4))

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
    finally:
        await model.aclose()
    assert len(answers) == 3
    assert len(set(answers)) == 1


@pytest.mark.parametrize(("what", "tokens"), [("generating", 1500), ("idle", 2)])
async def test_the_child_ends_with_a_node_that_is_killed(what: str, tokens: int) -> None:
    script = (
        "import trio\n"
        "from meshnode.adapters.agents.llamacpp import ChatModel, Usage\n"
        "async def main():\n"
        "    model = ChatModel()\n"
        f"    async for piece in model.generate({LONG!r}, {tokens}, Usage()):\n"
        f"        if {what == 'generating'}: print(model.pid, flush=True)\n"
        "    print(model.pid, flush=True)\n"
        "    await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    node = await trio.lowlevel.open_process(
        [sys.executable, "-c", script], stdout=subprocess.PIPE
    )
    assert node.stdout is not None
    with trio.fail_after(60):
        child = int((await node.stdout.receive_some()).split()[0])
    assert alive(child)
    node.kill()
    await node.wait()
    await node.stdout.aclose()
    await gone(child)


async def test_other_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but not ours")
    spec = ModuleSpec("fake", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(AgentError, match="isn't the model it should be"):
        llamacpp.packaged_weights.__wrapped__()


async def test_weights_that_cannot_be_loaded_are_an_agent_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model at all")
    model = ChatModel(broken)
    with pytest.raises(AgentError, match=r"can't be loaded|process ended"):
        await text_of(model, LONG, 5)
    assert model.pid is None


@pytest.mark.parametrize("text", ["", " \n", "\0\0", "..." * 1000])
async def test_a_text_without_words_is_refused_before_the_model_is_loaded(text: str) -> None:
    writer = create()
    with pytest.raises(AgentError, match="no words"):
        await run(writer, {"text": text, "title": "Title"})
    assert writer.model.pid is None


async def test_hostile_text_gives_an_abstract() -> None:
    text = "\0 half \ud800 a pair 😀 <|im_end|> " + "x" * 1_000_000
    writer = create()
    try:
        _, output = await run(writer, {"text": text, "title": text, "key_points": [text, text]})
        assert cast("dict[str, str]", output.value)["abstract"]
    finally:
        await writer.aclose()
