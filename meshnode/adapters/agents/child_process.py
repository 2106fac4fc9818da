"""Run one command to its end, within limits.

The command leads its own process group, and the group is killed whenever we stop
waiting: on cancel, on timeout, on too much output, and after the command itself has
ended, so that what it left running ends too.  A process that moves into a session of
its own escapes that (only a container or a cgroup would hold it); it then can't hold
us up either, because we stop reading shortly after the command has ended.
"""

import os
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from subprocess import PIPE

import trio

from meshnode.confinement import Finished
from meshnode.errors import AgentError, AgentTimeout, OutputInvalid

#: Variables a command sees of the node's own environment: never keys or tokens.
ENVIRONMENT_ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ")
STDERR_TAIL_BYTES = 2_000
_READ_BYTES = 65_536
#: How long output may still come once the command has ended, seconds.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one run may take.

    Attributes:
        timeout_s: Longest run, seconds.
        output_bytes_max: Most it may write to stdout, bytes.
        memory_bytes_max: Address space of the command, bytes; 0 for no limit.  Linux only.
    """

    timeout_s: float = 60.0
    output_bytes_max: int = 4 * 1024 * 1024
    memory_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started, with its pipes.

    Attributes:
        pid: Of the process; it leads a group of that number.
        stdin: What it reads.
        stdout: What it writes.
        stderr: What it says beside.
        wait: Waits for its end and returns the exit code, however often it is asked.
        kill: Ends it and what it left, at once and however often.
    """

    pid: int
    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream
    wait: Callable[[], Awaitable[int]]
    kill: Callable[[], Awaitable[None]]


def allowed_environment(names: Sequence[str] = ENVIRONMENT_ALLOWED) -> dict[str, str]:
    """Return those of the node's environment variables that are in ``names``."""
    return {name: os.environ[name] for name in names if name in os.environ}


async def run_child(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    limits: Limits | None = None,
) -> Finished:
    """Run ``argv`` with ``stdin`` and return how it ended.

    Args:
        argv: Command and arguments; no shell.
        stdin: What it reads.
        env: Its whole environment; by default :func:`allowed_environment`.
        cwd: Where it runs.
        limits: Time, output and memory.

    Raises:
        AgentError: It couldn't be started.
        AgentTimeout: It was killed after ``limits.timeout_s``.
        OutputInvalid: It was killed for writing more than ``limits.output_bytes_max``.
    """
    limits = limits or Limits()
    environment = allowed_environment() if env is None else env
    child = await _spawn(argv, environment, cwd)
    return await see_through(argv[0], child, stdin, limits)


async def see_through(name: str, child: Child, stdin: bytes, limits: Limits) -> Finished:
    """Talk to ``child`` until it ends, and end it with its group however this ends.

    Args:
        name: Of the command, for messages.
        child: Which leads its group.
        stdin: What it reads.
        limits: Time, output and memory.

    Raises:
        AgentTimeout: It was killed after ``limits.timeout_s``.
        OutputInvalid: It was killed for writing more than ``limits.output_bytes_max``.
    """
    try:
        with trio.move_on_after(limits.timeout_s):
            return await _converse(name, child, stdin, limits)
        raise AgentTimeout(f"{name} was stopped after {limits.timeout_s:g} s")
    finally:
        with trio.CancelScope(shield=True):
            await _end(child)


async def _spawn(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> Child:
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        missing = cwd if cwd is not None and error.filename == cwd else argv[0]
        raise AgentError(f"{missing} was not found", hint="is it installed?") from error
    except (OSError, ValueError) as error:
        raise AgentError(f"{argv[0]} can't be started: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return Child(
        process.pid,
        process.stdin,
        process.stdout,
        process.stderr,
        process.wait,
        partial(_kill, process.pid),
    )


async def _converse(name: str, child: Child, stdin: bytes, limits: Limits) -> Finished:
    if limits.memory_bytes_max and hasattr(resource, "prlimit"):
        ceiling = (limits.memory_bytes_max, limits.memory_bytes_max)
        with suppress(ProcessLookupError):  # it has ended already: nothing to limit
            resource.prlimit(child.pid, resource.RLIMIT_AS, ceiling)
    stdout, stderr = bytearray(), bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, child, stdin)
        nursery.start_soon(_keep_tail, child.stderr, stderr)
        nursery.start_soon(
            _collect, child.stdout, stdout, limits.output_bytes_max, nursery.cancel_scope
        )
        await child.wait()
        await child.kill()
        nursery.cancel_scope.deadline = trio.current_time() + _GRACE_S
    if len(stdout) > limits.output_bytes_max:
        raise OutputInvalid(f"{name} wrote more than {limits.output_bytes_max} bytes")
    tail = stderr[-STDERR_TAIL_BYTES:].decode(errors="replace").strip()
    return Finished(await child.wait(), bytes(stdout), tail)


async def _feed(child: Child, data: bytes) -> None:
    # A command needn't read its input; how it ends tells whether that was right.
    with suppress(trio.BrokenResourceError):
        await child.stdin.send_all(data)
    await child.stdin.aclose()


async def _keep_tail(stream: trio.abc.ReceiveStream, tail: bytearray) -> None:
    while data := await stream.receive_some(_READ_BYTES):
        tail += data
        del tail[:-STDERR_TAIL_BYTES]


async def _collect(
    stream: trio.abc.ReceiveStream, into: bytearray, size_max: int, scope: trio.CancelScope
) -> None:
    while data := await stream.receive_some(_READ_BYTES):
        into += data
        if len(into) > size_max:
            scope.cancel()
            return


def kill_group(pid: int) -> None:
    """Kill every process of the group that ``pid`` leads or has led."""
    # Gone already is what we want.  The number can't have been given to another group
    # yet: pids are handed out in turn, and we come here within milliseconds of the end.
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


async def _kill(pid: int) -> None:
    kill_group(pid)


async def _end(child: Child) -> None:
    await child.kill()
    await child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        await pipe.aclose()
