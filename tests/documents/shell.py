"""The commands and programs of a page, run as a reader would."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def blocks(page: str) -> dict[str, str]:
    """Return the last fenced block of each language, such as ``python``."""
    return dict(re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def run_program(program: str, folder: Path) -> str:
    """Run a Python program in ``folder`` to its end, which must be a good one.

    Returns:
        What it printed.
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def run_commands(
    script: str, folder: Path, *, homes: Sequence[str], strictly: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run ``script`` in ``folder``, then end the nodes at ``homes``, however it went.

    Args:
        script: For bash; `meshnode` is this checkout's.
        folder: Where a reader would stand.
        homes: Of nodes that it may leave running.
        strictly: The first command that fails ends it.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = ("-euo", "pipefail") if strictly else ()
    try:
        return subprocess.run(
            ["bash", *options, "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            start_new_session=True,
        )
    finally:
        ended = [arg for home in homes for arg in ("--home", home)]
        subprocess.run(
            [sys.executable, "-m", "meshnode", "down", *ended], cwd=folder, check=False
        )
