"""What runs in the sandbox takes no more than it may, and doesn't outlast its call."""

import os
import subprocess
import sys

import pytest
import trio
from trio._core import _thread_cache

from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.confinement import Confinement
from meshnode.errors import AgentError, AgentTimeout, OutputInvalid
from tests.meshnode.adapters.sandboxed import (
    PLAIN,
    PYTHON,
    bwrap_that,
    none_runs,
    open_folder,
    said,
    some_run,
)

MEBIBYTE = 1024 * 1024


# --- how much -------------------------------------------------------------------------


async def test_a_fork_bomb_is_soon_out_of_processes() -> None:
    script = """
made = 0
while made < 200:
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
    except BlockingIOError:
        break
    made += 1
say(made)
"""
    # One is the script itself.
    assert await said(script, processes_max=12) == 11


async def test_one_process_is_refused_more_memory_than_it_may_have() -> None:
    script = "bytearray(300 * 1024 * 1024)"
    finished = await Bubblewrap().run(
        [PYTHON, "-c", script], Confinement(memory_bytes_max=200 * MEBIBYTE)
    )
    assert "MemoryError" in finished.stderr_tail


async def test_several_processes_are_ended_for_what_they_hold_together() -> None:
    mark = f"together-{os.getpid()}"
    script = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        held = os.urandom(1) * (60 * 1024 * 1024)
        time.sleep(600)
time.sleep(600)
"""
    with pytest.raises(AgentError, match="held more than 209715200 bytes"):
        await Bubblewrap().run(
            [PYTHON, "-c", script, mark], Confinement(memory_bytes_max=200 * MEBIBYTE)
        )
    await none_runs(mark)


async def test_what_it_writes_is_bounded_in_one_file_and_in_all() -> None:
    script = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(folder, files):
    written = 0
    for n in range(files):
        with open(f"{folder}/{n}", "wb", 0) as f:
            for _ in range(40):
                try:
                    written += f.write(b"x" * 100_000)
                except OSError as e:
                    break
    return written
one = try_(lambda: os.truncate("/tmp/0", 3_000_000))
say([fill("/tmp", 9), fill("/dev/shm", 9), try_(os.truncate, "/tmp/0", 3_000_000)])
"""
    *written, one = await said(script, disk_bytes_max=2 * MEBIBYTE)
    assert max(written) <= 2 * MEBIBYTE
    assert min(written) > MEBIBYTE  # so it isn't for another reason
    assert one == "EFBIG"


async def test_one_that_computes_too_long_is_ended() -> None:
    finished = await Bubblewrap().run(
        [PYTHON, "-c", "while True: pass"], Confinement(cpu_s_max=1)
    )
    assert finished.returncode == 128 + 9


async def test_one_that_writes_too_much_is_ended() -> None:
    with pytest.raises(OutputInvalid, match="more than 50000 bytes"):
        await Bubblewrap().run(["yes"], Confinement(output_bytes_max=50_000))


# --- how long -------------------------------------------------------------------------

#: Leaves a child in its group and one that has left group, session and parent.
FAMILY = """
import os, sys, time
def sleep():
    os.execv("/bin/sleep", ["sleep", sys.argv[1]])
if os.fork() == 0:
    sleep()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.close(fd)
        sleep()
    os._exit(0)
os.wait()
if sys.argv[2] == "stay":
    sleep()
"""


async def test_nothing_lasts_beyond_the_deadline() -> None:
    mark = f"600.{os.getpid()}2"
    with pytest.raises(AgentTimeout, match=r"stopped after 1 s"):
        await Bubblewrap().run([PYTHON, "-c", FAMILY, mark, "stay"], Confinement(timeout_s=1.0))
    await none_runs(mark)


async def test_nothing_lasts_beyond_a_cancel() -> None:
    mark = f"600.{os.getpid()}3"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Bubblewrap().run, [PYTHON, "-c", FAMILY, mark, "stay"], PLAIN)
        await some_run(mark, 3)
        nursery.cancel_scope.cancel()
    await none_runs(mark)


async def test_nothing_lasts_beyond_the_end_of_the_program() -> None:
    mark = f"600.{os.getpid()}4"
    with trio.fail_after(20):
        finished = await Bubblewrap().run([PYTHON, "-c", FAMILY, mark, "leave"], PLAIN)
    assert finished.returncode == 0
    await none_runs(mark)


async def test_nothing_lasts_that_was_cancelled_as_it_began() -> None:
    mark = f"600.{os.getpid()}7"
    for _ in range(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Bubblewrap().run, ["sleep", mark], PLAIN)
            await some_run(mark, 1)  # bwrap itself, which names it
            nursery.cancel_scope.cancel()
    await none_runs(mark)


async def test_what_has_not_said_yet_to_die_with_it_is_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = f"600.{os.getpid()}6"
    with open_folder() as folder:
        # bwrap in its first moment: a child in a session of its own, and no word of death.
        bwrap_that(folder, f"setsid sleep {mark} & wait", monkeypatch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Bubblewrap().run, ["true"], PLAIN)
            await some_run(mark, 1)
            nursery.cancel_scope.cancel()
    await none_runs(mark)


NODE = """
import sys, trio
from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.confinement import Confinement
trio.run(Bubblewrap().run, sys.argv[1:], Confinement())
"""


async def test_nothing_lasts_beyond_the_node_that_is_killed() -> None:
    mark = f"600.{os.getpid()}5"
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, PYTHON, "-c", FAMILY, mark, "stay"], stderr=subprocess.PIPE
    )
    with node:
        await some_run(mark, 4)  # the node itself has it among its arguments
        node.kill()
    await none_runs(mark)


async def test_a_long_run_outlives_the_threads_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What dies with its parent dies with the thread that started it.
    monkeypatch.setattr(_thread_cache, "IDLE_TIMEOUT", 0.01)
    finished = await Bubblewrap().run(["sleep", "0.3"], PLAIN)
    assert finished.returncode == 0
