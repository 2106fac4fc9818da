"""A command in a sandbox as an agent: its input, its ending, what it is told."""

from typing import Any

import pytest
import trio

from meshnode.adapters.agents.confined_command import ConfinedCommandAgent
from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.confinement import Confinement
from meshnode.errors import AgentError, AgentTimeout, NoSandbox, OutputInvalid
from meshnode.ports import AgentCall, AgentSpec
from tests.meshnode.adapters.agents.running import output, run
from tests.meshnode.adapters.sandboxed import PYTHON

ANYTHING: dict[str, Any] = {}


def command(script: str, **terms: Any) -> ConfinedCommandAgent:
    spec = AgentSpec("tool", "x.tool@1", "A tool.", ANYTHING, ANYTHING, **terms)
    return ConfinedCommandAgent(spec, [PYTHON, "-c", script], Bubblewrap(), Confinement())


async def test_value_goes_in_and_out_as_json() -> None:
    echo = command("import sys, json; print(json.dumps([json.load(sys.stdin)]))")
    await echo.open()
    value = {"b": [1, 2.5, None, True], "a": "é😀\0\n" * 100_000}
    assert await output(echo, value) == [value]


async def test_it_is_told_its_call_and_where_it_is() -> None:
    told = await output(command("import os, json; print(json.dumps(dict(os.environ)))"), None)
    assert (told["MESHNODE_IDEMPOTENCY_KEY"], told["TRACEPARENT"]) == ("key-1", "00-aa-bb-01")
    assert told["HOME"] == told["PWD"]


async def test_its_ending_is_in_the_error() -> None:
    with pytest.raises(AgentError, match="exit code 3: the cause"):
        await run(command("import sys; sys.stderr.write('the cause'); sys.exit(3)"), None)
    with pytest.raises(OutputInvalid, match="wrote no JSON"):
        await run(command("print('nonsense')"), None)
    with pytest.raises(OutputInvalid, match="more than 1000 bytes"):
        await run(command("print('x' * 9999)", output_bytes_max=1000), None)


async def test_it_ends_with_its_time_or_the_calls() -> None:
    with pytest.raises(AgentTimeout, match=r"stopped after 0\.5 s"):
        await run(command("import time; time.sleep(600)", timeout_s=0.5), None)
    with pytest.raises(AgentTimeout, match="no time was left"):
        async for _ in command("print(1)").run(None, AgentCall("k", trio.current_time())):
            pass


async def test_without_a_sandbox_it_is_not_opened_and_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoSandbox, match="bwrap was not found"):
        await command("print(1)").open()
    with pytest.raises(NoSandbox, match="bwrap was not found"):
        await run(command("print(1)"), None)
