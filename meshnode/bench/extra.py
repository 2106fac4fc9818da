"""The extra environment: what users would pick instead, installed apart from this node.

AutoGen's runtime wants an older gRPC and protobuf than py-libp2p does, so they can't be
installed together.  The environment is made once, with pip, from pinned packages
(``beside/requirements.txt``), in the user's cache folder; another set of pins or another
Python gets another one.
"""

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from meshnode.bench.figures import Told
from meshnode.errors import MeshError

REQUIREMENTS: Final = Path(__file__).parent / "beside" / "requirements.txt"
_PACKAGE: Final = Path(__file__).parents[1]
_INSTALL_S: Final = 900.0
_HINT: Final = "--no-peers measures this node alone"


@dataclass(frozen=True, slots=True)
class Extra:
    """How to run a module of this package in the extra environment.

    Attributes:
        python: Its interpreter.
        environment: Variables of the process: it sees this package, and none of what that
            depends on.
    """

    python: str
    environment: Mapping[str, str]


class PeersMissing(MeshError):
    """The extra environment can't be made."""

    code = "bench.peers_missing"


@contextmanager
def extra_environment(told: Told) -> Iterator[Extra]:
    """Make the extra environment if it isn't there, and lend it.

    Raises:
        PeersMissing: It can't be made; says why.
    """
    python = _made(_folder(), told)
    with TemporaryDirectory(prefix="meshnode-bench-") as folder:
        # Not where this package is installed: beside it are other versions of theirs.
        (Path(folder) / _PACKAGE.name).symlink_to(_PACKAGE)
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONNOUSERSITE": "1"}
        yield Extra(str(python), environment)


def _folder() -> Path:
    """Return where the environment for these pins and this Python is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    made_of = REQUIREMENTS.read_bytes() + sys.version.encode() + platform.machine().encode()
    return cache / "meshnode" / f"bench-peers-{hashlib.sha256(made_of).hexdigest()[:12]}"


def _made(folder: Path, told: Told) -> Path:
    python, stamp = folder / "bin" / "python", folder / "made"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second bench waits, and finds it made
            if not stamp.exists():
                told(f"installing what to compare with into {folder} (once)")
                _run(sys.executable, "-m", "venv", str(folder))
                pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input"]
                _run(*pip, "--disable-pip-version-check", "--requirement", str(REQUIREMENTS))
                stamp.touch()
    except OSError as error:
        raise PeersMissing(f"{folder} can't be used: {error}", hint=_HINT) from error
    return python


def _run(*command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PeersMissing(
            f"what to compare with did not install in {_INSTALL_S:g} s", hint=_HINT
        ) from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("ERROR", "error"))] or lines
        why = errors[0].strip() if errors else f"exit {done.returncode}"
        raise PeersMissing(f"what to compare with can't be installed: {why}", hint=_HINT)
