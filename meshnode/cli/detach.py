"""Going on in the background: the same command as a process of its own.

The command is started again, without ``--detach``, in a session of its own, and watched
until it says that it is ready or why it can't be.  What it says later goes into
``node.log`` in its home.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from meshnode.cli.failure import CommandFailed

if TYPE_CHECKING:
    from meshnode.config import NodeConfig

LOG_FILE: Final = "node.log"
_LINE_BYTES_MAX: Final = 256 * 1024


def start_detached(arguments: Sequence[str], config: "NodeConfig") -> dict[str, Any]:
    """Run ``meshnode ARGUMENTS`` in the background; return its ready line.

    Its log goes into ``node.log`` in its home, unless the settings name a file.

    Raises:
        CommandFailed: It ended before it was ready; says why.
    """
    home = config.home_path
    log_file = config.log.file or str((home / LOG_FILE).absolute())
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "meshnode", *_attached(arguments)]
    with (home / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - this very program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MESHNODE_LOG__FILE": log_file},
        )
    assert process.stdout is not None
    with process.stdout as stream:
        said = stream.readline(_LINE_BYTES_MAX)
    try:
        ready = json.loads(said)
    except ValueError:
        ready = {}
    if isinstance(ready, dict) and ready.get("event") == "ready":
        process.returncode = 0  # it is on its own now: nobody waits for it
        return ready
    process.wait()
    error = ready.get("error") if isinstance(ready, dict) else None
    if isinstance(error, dict):
        raise CommandFailed(
            str(error.get("message")), hint=str(error.get("hint")), told=str(error.get("code"))
        )
    raise CommandFailed("the node ended before it was ready", hint=f"see {home / LOG_FILE}")


def _attached(arguments: Sequence[str]) -> list[str]:
    kept = [argument for argument in arguments if argument != "--detach"]
    return kept if "--json" in kept else [*kept, "--json"]
