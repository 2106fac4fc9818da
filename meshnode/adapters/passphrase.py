"""Where the passphrase of a key file comes from: a file, or a credential of the service.

Never from an option or the environment, which other programs can read and logs keep.
systemd hands credentials over as files in a folder of the service's own, named by
``$CREDENTIALS_DIRECTORY``; who may read them is its business, and its access lists show
as group bits, so only files of the owner's choosing are held to a mode.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshnode.errors import ConfigError

#: Name of the credential: ``LoadCredential=meshnode.passphrase:…`` in the unit.
CREDENTIAL: Final = "meshnode.passphrase"
_FOLDER: Final = "CREDENTIALS_DIRECTORY"
_BYTES_MAX: Final = 4_096


def find_passphrase(file: str, env: Mapping[str, str] = os.environ) -> str | None:
    """Return the passphrase, None if there is none.

    Args:
        file: What the settings name; empty to look for the service's credential.
        env: Environment, which names the folder of credentials.

    Raises:
        ConfigError: The file can't be used; the message holds nothing of it.
    """
    if file:
        return read_passphrase(Path(file).expanduser(), guarded=False)
    folder = env.get(_FOLDER, "")
    given = Path(folder) / CREDENTIAL
    if not folder or not given.is_file():
        return None
    return read_passphrase(given, guarded=True)


def read_passphrase(path: Path, *, guarded: bool) -> str:
    """Return the first and only line of the file at ``path``.

    Args:
        path: Of the file.
        guarded: Somebody else sees to it who may read it.

    Raises:
        ConfigError: As :func:`find_passphrase`.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"passphrase file {path} can't be read: {error.strerror}",
            hint="check keys.passphrase_file",
        ) from error
    if not guarded and status.st_mode & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):o}"
        raise ConfigError(
            f"passphrase file {path} is open to others (mode {mode})", hint=f"chmod 600 {path}"
        )
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _BYTES_MAX or "\n" in text:
        raise ConfigError(
            f"passphrase file {path} holds no passphrase", hint="write one line of text into it"
        )
    return text
