"""Run an agent once as a host would, and ask whether a process is still there."""

from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import trio

from meshnode.ports import Agent, AgentCall, Chunk, Output


async def run(agent: Agent, value: Any) -> tuple[list[str], Output]:
    """Return the chunks and the output of one run."""
    call = AgentCall("key-1", trio.current_time() + 60, traceparent="00-aa-bb-01")
    chunks: list[str] = []
    outputs: list[Output] = []
    async with aclosing(cast("Any", agent.run(value, call))) as items:
        async for item in items:
            assert not outputs, "nothing may follow the output"
            if isinstance(item, Chunk):
                chunks.append(item.text)
            else:
                outputs.append(item)
    assert len(outputs) == 1
    return chunks, outputs[0]


async def output(agent: Agent, value: Any) -> Any:
    """Return the value that one run puts out."""
    return (await run(agent, value))[1].value


def state(pid: int) -> str:
    """Return the process's state as the kernel abbreviates it; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Return whether the process is there and no zombie."""
    return state(pid) not in ("", "Z", "X")


async def gone(pid: int) -> None:
    """Return when the process has ended, or fail after 10 s."""
    with trio.fail_after(10):
        while alive(pid):
            await turn()


async def turn() -> None:
    """Let others have the core for a moment: a thread there and back."""
    await trio.to_thread.run_sync(int)
