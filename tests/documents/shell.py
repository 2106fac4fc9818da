"""The commands of a page, run as a reader would."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


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
