"""The file with a node's token: made once, and open to its owner alone."""

import errno
import os
import stat
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Final

from meshnode.errors import ConfigError
from meshnode.ports import Entropy

TOKEN_BYTES: Final = 32
TOKEN_FILE_BYTES_MAX: Final = 2_048  # an app key with its certificate is one, too


def load_or_create_token(path: Path, entropy: Entropy) -> str:
    """Return the token in the file at ``path``, making both if there is no file.

    Raises:
        ConfigError: The file is open to others, or isn't a token's.
    """
    try:
        return read_token(path)
    except FileNotFoundError:
        token = urlsafe_b64encode(entropy.token(TOKEN_BYTES)).rstrip(b"=")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path, token + b"\n")
    except OSError as error:
        raise ConfigError(
            f"token file {path} can't be made: {error.strerror}",
            hint="check that its folder exists and belongs to you",
        ) from error
    return read_token(path)  # if another process was faster, its token counts


def read_token(path: Path) -> str:
    """Return the token in the file at ``path``.

    Raises:
        FileNotFoundError: No node has made it yet.
        ConfigError: It is open to others, or not a token file.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(TOKEN_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        raise ConfigError(
            f"token file {path} can't be read: {reason}", hint="remove it and start the node"
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(f"token file {path} isn't yours", hint="remove it")
    if status.st_mode & 0o077:
        raise ConfigError(f"token file {path} is open to others", hint=f"chmod 600 {path}")
    token = content.strip()
    if not TOKEN_BYTES <= len(token) <= TOKEN_FILE_BYTES_MAX or not token.isascii():
        raise ConfigError(
            f"token file {path} is damaged", hint="remove it: the node makes a new one"
        )
    return token.decode("ascii")


def _create(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole, unless something is there already."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(aside, flags, 0o600), "wb") as stream:
            stream.write(content)
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
