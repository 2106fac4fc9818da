"""A contestant's side of a contest: it waits for its turn, then calls and counts.

On standard input a line each: ``{"calls": 100}``, ``{"cpu": true}``, ``{"memory": true}``;
on standard output the answer: how long each call took, the processor time that the process
has used since it began, or its memory once garbage is collected, and how many sessions it
has.  The first line that a contestant prints says that it is ready, and how it is reached.

Standard library only, and of no event loop: trio and asyncio programs take turns alike.
"""

import gc
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Final

#: 1 KiB of text, as bytes too.
TEXT: Final = "".join(f"{number} " for number in range(270))[:1024]
BODY: Final = TEXT.encode("ascii")

ReadLine = Callable[[], Awaitable[str]]
Call = Callable[[], Awaitable[None]]
Several = Callable[[int], Awaitable[list[int]]]


def say(**fields: object) -> None:
    """Print one line for the one who holds the contest."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def arguments() -> tuple[str, str]:
    """Return which part this process plays (``both``, ``callee``, ``caller``) and with whom."""
    part, *rest = sys.argv[1:]
    return part, rest[0] if rest else ""


async def take_turns(
    readline: ReadLine,
    call: Call | None = None,
    *,
    several: Several | None = None,
    address: str = "",
    sessions: Callable[[], int] = int,
) -> None:
    """Do what is asked for until standard input ends.

    Args:
        readline: Waits for the next line without holding up the event loop.
        call: What is measured; None in a process that is called only.
        several: In its place, makes so many and returns how long each took, nanoseconds.
        address: How this process is reached.
        sessions: Counts the peers that it has a session with.
    """
    say(ready=True, address=address)
    while line := await readline():
        turn = json.loads(line)
        if turn.get("cpu"):
            say(cpu_ns=process_time_ns())
        elif turn.get("memory"):
            gc.collect()
            say(resident_bytes=_resident_bytes(), sessions=sessions())
        else:
            with _profiled(turn.get("profile", "")):
                calls = int(turn["calls"])
                taken_ns = await (several(calls) if several else _measured(call, calls))
            say(ns=taken_ns)


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("this system doesn't tell a process's memory")


@contextmanager
def _profiled(file: str) -> Iterator[None]:
    if not file:
        yield
        return
    profile = Profile()
    profile.enable()  # this thread's, so of all tasks of the event loop
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(file)


async def _measured(call: Call | None, calls: int) -> list[int]:
    taken: list[int] = []
    if call is None:
        raise ValueError("this process is called only")
    for _ in range(calls):
        begun_ns = perf_counter_ns()
        await call()
        taken.append(perf_counter_ns() - begun_ns)
    return taken


def check(answer: object, expected: object) -> None:
    """Stop a contestant that doesn't do what it is measured for.

    Raises:
        ValueError: It gave back something else.
    """
    if answer != expected:
        raise ValueError("the echo is not what was said")
