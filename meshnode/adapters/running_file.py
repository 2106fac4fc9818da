"""The note in a node's home that says that it runs, and how it is reached.

A file left behind by a killed process looks like one of a running process, and the
process id in it may be another program's by now.  So the node holds a lock on the file
for as long as it lives: who can take the lock knows that the note is stale.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from meshnode.errors import ConfigError
from meshnode.ports import JsonValue

#: In a node's home: url, peer_id and pid of a node with an HTTP interface.
HTTP_FILE: Final = "http.json"
#: In a seed's home: peer_id and pid.
SEED_FILE: Final = "seed.json"

_BYTES_MAX: Final = 64 * 1024


@contextmanager
def running_file(path: Path, fields: Mapping[str, JsonValue]) -> Iterator[None]:
    """Keep ``fields`` at ``path``, readable by the owner alone, while the context lasts.

    Raises:
        ConfigError: The folder can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        aside.unlink(missing_ok=True)
        handle = os.open(aside, flags, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {error.strerror}", hint="check who owns its folder"
        ) from error
    try:
        # Locked before it has its name: whoever finds it finds it held.
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, json.dumps(dict(fields)).encode() + b"\n")
        aside.rename(path)
        yield
        path.unlink(missing_ok=True)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
        os.close(handle)


def read_running(path: Path) -> dict[str, JsonValue] | None:
    """Return what a running process says at ``path``; None if none runs.

    Raises:
        ConfigError: The file can't be read, isn't the user's own, or is damaged.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", hint="remove it, or use another --home"
        ) from error
    with os.fdopen(handle, "rb") as stream:
        if os.fstat(stream.fileno()).st_uid != os.geteuid():
            raise ConfigError(f"{path} isn't yours", hint="use another --home")
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            content = stream.read(_BYTES_MAX)
        else:
            return None  # nobody holds it: its process is gone
    try:
        fields = json.loads(content)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} is damaged", hint="stop the node and start it again")
    return fields
