"""The node's secrets at rest: an Ed25519 seed and an X25519 secret in one file.

Whoever reads the file is the node, so nobody but its owner may: 0600 in a folder that
is closed to others.  The file is checked through its own descriptor, opened relative
to the folder's, so that nothing can be exchanged between the check and the reading; a
symlink in its place is refused.  A new file is written aside, made durable and then
linked into its place: it is there whole or not at all, and never replaces another.

The file is ``magic || secrets`` or, with a passphrase, ``magic || salt || box``, the
box being XSalsa20-Poly1305 under a key that argon2id derives from the passphrase.
Secrets appear in no message, log or repr of this module.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from nacl import pwhash
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from meshnode.errors import ConfigError
from meshnode.ports import Entropy

SECRET_BYTES: Final = 32
#: What deriving a key from the passphrase costs; 128 MiB fits the smallest machine
#: that a node runs on, and takes some tenths of a second.
ARGON2_PASSES: Final = 3
ARGON2_MEMORY_BYTES: Final = 128 * 1024 * 1024

_PLAIN: Final = b"meshkey\x01"
_SEALED: Final = b"meshkey\x02"
_SALT_BYTES: Final = pwhash.argon2id.SALTBYTES
_PLAIN_BYTES: Final = len(_PLAIN) + 2 * SECRET_BYTES
_BOX_BYTES: Final = SecretBox.NONCE_SIZE + SecretBox.MACBYTES + 2 * SECRET_BYTES
_SEALED_BYTES: Final = len(_SEALED) + _SALT_BYTES + _BOX_BYTES


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The secrets of one node; keep them out of logs.

    Attributes:
        seed: 32-byte Ed25519 seed: signs, and is the node's identity.
        exchange_secret: 32-byte X25519 secret: opens what is sealed to the node.
    """

    seed: bytes = field(repr=False)
    exchange_secret: bytes = field(repr=False)


def load_or_create(path: Path, entropy: Entropy, passphrase: str | None = None) -> NodeKeys:
    """Return the keys in the file at ``path``, making file and keys if there is none.

    Blocks (with a passphrase, for some tenths of a second): call it before the node
    runs, or in a thread.

    Raises:
        ConfigError: The file or its folder is open to others, not a plain file, not a
            key file, or the passphrase doesn't fit; the message names the file.
    """
    if passphrase == "":
        raise ConfigError(f"the passphrase of {path} is empty", hint="set one, or none at all")
    try:
        with _private_folder(path) as folder:
            content = _read(path, folder)
            if content is None:
                _create(path, folder, _pack(_fresh(entropy), entropy, passphrase))
                # Read back: if another process was faster, its keys are the node's.
                content = _read(path, folder)
    except OSError as error:
        raise _unusable(path, error) from error
    if content is None:
        raise ConfigError(f"key file {path} vanished while it was made", hint="start again")
    return _unpack(path, content, passphrase)


def load(path: Path, passphrase: str | None = None) -> NodeKeys:
    """Return the keys in the file at ``path``; blocks as :func:`load_or_create` does.

    Raises:
        ConfigError: There is no such file, or as :func:`load_or_create`.
    """
    return _unpack(path, _content(path), passphrase)


def is_protected(path: Path) -> bool:
    """Tell whether the key file at ``path`` takes a passphrase.

    Raises:
        ConfigError: There is no such file, or it is open to others, or no key file.
    """
    content = _content(path)
    if content[: len(_PLAIN)] not in (_PLAIN, _SEALED):
        _refuse_content(path, len(content))
    return content.startswith(_SEALED)


def save(path: Path, keys: NodeKeys, entropy: Entropy, passphrase: str | None) -> None:
    """Write ``keys`` into a new file at ``path``; never over another one.

    Raises:
        ConfigError: There is something there, or it can't be written.
    """
    try:
        with _private_folder(path, closed=passphrase is None) as folder:
            if not _create(path, folder, _pack(keys, entropy, passphrase)):
                raise ConfigError(f"{path} exists already", hint="name another file")
    except OSError as error:
        raise _unusable(path, error) from error


def replace(path: Path, keys: NodeKeys, entropy: Entropy, passphrase: str | None) -> None:
    """Write ``keys`` in place of the key file at ``path``, whole or not at all.

    Raises:
        ConfigError: It can't be written.
    """
    aside = path.with_name(f".{path.name}.replacing")
    try:
        with _private_folder(path) as folder:
            with suppress(FileNotFoundError):  # left by a crash
                os.unlink(aside.name, dir_fd=folder)
            _create(aside, folder, _pack(keys, entropy, passphrase))
            os.rename(aside.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
    except OSError as error:
        raise _unusable(path, error) from error


def _content(path: Path) -> bytes:
    try:
        if not path.parent.is_dir():
            raise ConfigError(f"there is no folder {path.parent}", hint="name another --home")
        with _private_folder(path, closed=False) as folder:
            content = _read(path, folder)
            if content is not None and not content.startswith(_SEALED):
                _refuse_others(path.parent, os.fstat(folder), "folder", "700")
    except OSError as error:
        raise _unusable(path, error) from error
    if content is None:
        raise ConfigError(
            f"there is no key file {path}",
            hint="a node makes its keys when it first starts: meshnode up",
        )
    return content


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"key file {path} can't be used: {error.strerror}",
        hint="check that its folder exists and belongs to you",
    )


def _fresh(entropy: Entropy) -> NodeKeys:
    return NodeKeys(entropy.token(SECRET_BYTES), entropy.token(SECRET_BYTES))


@contextmanager
def _private_folder(path: Path, *, closed: bool = True) -> Iterator[int]:
    """Open the folder of ``path`` (made if missing), or refuse it if others can enter.

    A folder that need not be ``closed`` is one for a sealed file, such as a backup.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if closed:
            _refuse_others(path.parent, os.fstat(folder), "folder", "700")
        yield folder
    finally:
        os.close(folder)


def _refuse_others(path: Path, status: os.stat_result, what: str, mode: str) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{what} {path} belongs to another user", hint="take your own home")
    if status.st_mode & 0o077:
        allowed = f"{stat.S_IMODE(status.st_mode):o}"
        raise ConfigError(
            f"{what} {path} is open to others (mode {allowed})", hint=f"chmod {mode} {path}"
        )


def _read(path: Path, folder: int) -> bytes | None:
    """Return the file's content, None if there is no file."""
    # O_NONBLOCK: a FIFO in the file's place must not block the start.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(
                f"key file {path} is a symlink", hint="put the file itself there"
            ) from None
        raise
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"key file {path} is not a file", hint="remove what is there")
        _refuse_others(path, status, "key file", "600")
        return stream.read(_SEALED_BYTES + 1)


def _create(path: Path, folder: int, content: bytes) -> bool:
    """Put ``content`` at ``path``, whole and durable, unless something is there already.

    Returns:
        Whether nothing was there.
    """
    made = True
    aside = f".{path.name}.{os.getpid()}"
    with suppress(FileNotFoundError):  # left by a crash of a process with this id
        os.unlink(aside, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(aside, flags, 0o600, dir_fd=folder), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except FileExistsError:  # another process was faster
            made = False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=folder)
    os.fsync(folder)
    return made


def _pack(keys: NodeKeys, entropy: Entropy, passphrase: str | None) -> bytes:
    secrets = keys.seed + keys.exchange_secret
    if passphrase is None:
        return _PLAIN + secrets
    salt = entropy.token(_SALT_BYTES)
    box = _box(passphrase, salt).encrypt(secrets, entropy.token(SecretBox.NONCE_SIZE))
    return _SEALED + salt + box


def _unpack(path: Path, content: bytes, passphrase: str | None) -> NodeKeys:
    magic = content[: len(_PLAIN)]
    if (magic, len(content)) == (_PLAIN, _PLAIN_BYTES):
        if passphrase is not None:
            raise ConfigError(
                f"key file {path} isn't protected, yet a passphrase is given",
                hint="drop the passphrase, or move the file away and make a new identity",
            )
        return _split(content[len(_PLAIN) :])
    if (magic, len(content)) == (_SEALED, _SEALED_BYTES):
        if passphrase is None:
            raise ConfigError(
                f"key file {path} is protected by a passphrase",
                hint="name a file that holds it: keys.passphrase_file, --passphrase-file",
            )
        return _split(_open(path, content[len(_SEALED) :], passphrase))
    return _refuse_content(path, len(content))


def _refuse_content(path: Path, size: int) -> NoReturn:
    raise ConfigError(
        f"key file {path} is damaged or not a key file"
        f" ({size} bytes read, expected {_PLAIN_BYTES} or {_SEALED_BYTES})",
        hint="restore it from a backup, or move it away to start with a new identity",
    )


def _open(path: Path, sealed: bytes, passphrase: str) -> bytes:
    salt, box = sealed[:_SALT_BYTES], sealed[_SALT_BYTES:]
    try:
        return _box(passphrase, salt).decrypt(box)
    except CryptoError:
        raise ConfigError(
            f"the passphrase doesn't open key file {path}",
            hint="check the passphrase; a damaged file looks the same",
        ) from None


def _box(passphrase: str, salt: bytes) -> SecretBox:
    key = pwhash.argon2id.kdf(
        SecretBox.KEY_SIZE,
        passphrase.encode(),
        salt,
        opslimit=ARGON2_PASSES,
        memlimit=ARGON2_MEMORY_BYTES,
    )
    return SecretBox(key)


def _split(secrets: bytes) -> NodeKeys:
    return NodeKeys(secrets[:SECRET_BYTES], secrets[SECRET_BYTES:])
