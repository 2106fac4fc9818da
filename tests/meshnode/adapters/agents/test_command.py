"""A command as an agent: its input, its ending, its limits, its children."""

import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from meshnode.adapters.agents import child_process
from meshnode.adapters.agents.child_process import Limits, run_child
from meshnode.adapters.agents.command import CommandAgent
from meshnode.errors import AgentError, AgentTimeout, OutputInvalid
from meshnode.ports import AgentCall, AgentSpec
from tests.meshnode.adapters.agents.running import gone, output, run, turn

ANYTHING: dict[str, Any] = {}


def command(script: str, **terms: Any) -> CommandAgent:
    spec = AgentSpec("tool", "x.tool@1", "A tool.", ANYTHING, ANYTHING, **terms)
    return CommandAgent(spec, [sys.executable, "-c", script])


async def test_value_goes_in_and_out_as_json() -> None:
    echo = command("import sys, json; print(json.dumps([json.load(sys.stdin)]))")
    await echo.open()
    value = {"b": [1, 2.5, None, True], "a": "é😀\0\n"}
    assert (await run(echo, value))[1].value == [value]


async def test_command_that_ignores_its_input_is_fine() -> None:
    deaf = command("import os; os.close(0); print(1)")
    assert (await run(deaf, "x" * 3_000_000))[1].value == 1


async def test_large_input_and_output_cross_without_a_standstill() -> None:
    echo = command(
        "import sys\nwhile d := sys.stdin.read(9999): sys.stdout.write(d); sys.stdout.flush()"
    )
    assert (await run(echo, "x" * 2_000_000))[1].value == "x" * 2_000_000


async def test_exit_code_and_end_of_stderr_are_in_the_error() -> None:
    script = (
        "import sys; sys.stderr.write('start ' + 'x' * 100_000 + ' the cause'); sys.exit(3)"
    )
    with pytest.raises(AgentError, match=r"exit code 3: x+ the cause") as raised:
        await run(command(script), None)
    assert len(str(raised.value)) < 3_000


async def test_death_by_signal_is_said() -> None:
    with pytest.raises(AgentError, match="signal 9"):
        await run(command("import os; os.kill(os.getpid(), 9)"), None)


@pytest.mark.parametrize("written", ["", "{", "nonsense", "1 2", "NaN", "[" * 100_000, "\\xff"])
async def test_what_is_no_json_is_quoted(written: str) -> None:
    script = f"import sys; sys.stdout.buffer.write(b'{written}')"
    with pytest.raises(OutputInvalid, match="wrote no JSON") as raised:
        await run(command(script), None)
    assert len(str(raised.value)) < 1_000


async def test_missing_command_is_named_when_opened_and_when_run() -> None:
    spec = AgentSpec("tool", "x.tool@1", "A tool.", ANYTHING, ANYTHING)
    missing = CommandAgent(spec, ["no-such-command"])
    with pytest.raises(AgentError, match="no-such-command was not found"):
        await missing.open()
    with pytest.raises(AgentError, match="no-such-command was not found"):
        await run(missing, None)


async def test_missing_directory_is_named_and_not_the_command() -> None:
    spec = AgentSpec("tool", "x.tool@1", "A tool.", ANYTHING, ANYTHING)
    with pytest.raises(AgentError, match="/no/such/folder was not found"):
        await run(CommandAgent(spec, [sys.executable], cwd="/no/such/folder"), None)


async def test_output_without_end_is_stopped_while_it_is_read() -> None:
    endless = command("while True: print('x' * 10_000)", output_bytes_max=50_000)
    with trio.fail_after(20), pytest.raises(OutputInvalid, match="more than 50000 bytes"):
        await run(endless, None)


async def test_sees_the_allowed_environment_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("LANG", "C.UTF-8")
    script = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = await output(command(script), None)
    assert seen["LANG"] == "C.UTF-8"
    assert seen["MESHNODE_IDEMPOTENCY_KEY"] == "key-1"
    assert seen["TRACEPARENT"] == "00-aa-bb-01"
    assert "SECRET_TOKEN" not in seen


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
if sys.argv[2] == "stay":
    time.sleep(600)
print(1)
"""


def family(path: Path, ending: str) -> CommandAgent:
    spec = AgentSpec("tool", "x.tool@1", "A tool.", ANYTHING, ANYTHING)
    return CommandAgent(spec, [sys.executable, "-c", FAMILY, str(path), ending])


async def test_cancel_ends_the_command_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, family(pids, "stay"), None)
        with trio.fail_after(20):
            while not pids.exists():
                await turn()
        nursery.cancel_scope.cancel()
    for pid in pids.read_text().split():
        await gone(int(pid))


async def test_children_left_behind_end_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They hold the command's output open: were they left alone, we would wait for them.
    monkeypatch.setattr(child_process, "_GRACE_S", 3600.0)
    with trio.fail_after(20):
        assert await output(family(tmp_path / "pids", "leave"), None) == 1
    for pid in (tmp_path / "pids").read_text().split():
        await gone(int(pid))


async def test_runs_no_longer_than_allowed(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    with pytest.raises(AgentTimeout, match=r"stopped after 1\.5 s"):
        await run_child(
            [sys.executable, "-c", script + "\ntime.sleep(600)"], limits=Limits(timeout_s=1.5)
        )
    await gone(int((tmp_path / "pid").read_text()))


async def test_does_not_start_when_the_deadline_has_passed() -> None:
    with pytest.raises(AgentTimeout, match="no time was left"):
        async for _ in command("print(1)").run(None, AgentCall("k", trio.current_time())):
            pass


async def test_memory_is_bounded() -> None:
    finished = await run_child(
        [sys.executable, "-c", "import sys; sys.stdin.read(); b'x' * 2_000_000_000"],
        limits=Limits(memory_bytes_max=500_000_000),
    )
    assert finished.returncode == 1
    assert "MemoryError" in finished.stderr_tail


@pytest.mark.parametrize("value", ["\ud800", float("nan"), 2**70])
async def test_input_that_json_cannot_hold_is_an_agent_error(value: Any) -> None:
    with pytest.raises(AgentError, match="can't be written as JSON"):
        await run(command("print(1)"), {"x": value})
