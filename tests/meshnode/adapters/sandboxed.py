"""Programs that try to get out of a sandbox, and what they come back with."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.confinement import Confinement
from tests.meshnode.adapters.agents.running import turn

#: An interpreter that everybody may run: a sandbox of root's runs as nobody.
PYTHON: Final = "/usr/bin/python3"
PLAIN: Final = Confinement(timeout_s=30.0)

#: What a script finds: try_(f) says what f returns, or the error's name and number.
_PREAMBLE: Final = """
import ctypes, errno, json, os, signal, socket, sys, time
def try_(f, *a, **k):
    try:
        return f(*a, **k)
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def say(value):
    print(json.dumps(value, default=repr))
"""


async def said(script: str, within: Confinement = PLAIN, **changes: Any) -> Any:
    """Return what a Python script in a sandbox says."""
    finished = await Bubblewrap().run(
        [PYTHON, "-c", _PREAMBLE + script], replace(within, **changes)
    )
    assert finished.returncode == 0, finished
    return json.loads(finished.stdout)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that everybody may read and write: nobody is who mustn't get at it."""
    folder = Path(tempfile.mkdtemp(prefix="meshnode-test-"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)


def bwrap_that(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have another ``bwrap``, which does what ``script`` says, found before the real one."""
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def running(mark: str) -> list[int]:
    """Return the processes of this machine that have ``mark`` among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


async def none_runs(mark: str) -> None:
    """Return when no process has ``mark`` among its arguments, or fail after 10 s."""
    with trio.fail_after(10):
        while running(mark):
            await turn()


async def some_run(mark: str, count: int) -> None:
    """Return when ``count`` processes have ``mark`` among their arguments."""
    with trio.fail_after(20):
        while len(running(mark)) < count:
            await turn()
