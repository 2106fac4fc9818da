"""``meshnode keys``: who the node is, and how its secret is kept."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.options import Home, Json, home_of
from meshnode.cli.printing import say_json

if TYPE_CHECKING:
    from meshnode.adapters.key_file import NodeKeys
    from meshnode.config import NodeConfig

KEY_FILE: Final = "keys"
_OPENS: Final = "File that holds the passphrase; asked for by default."

Passphrase = Annotated[str, typer.Option("--passphrase-file", metavar="FILE", help=_OPENS)]
Backup = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def show(*, passphrase_file: Passphrase = "", home: Home = "", as_json: Json = False) -> None:
    """Say who the node is, where its key is, and whether a passphrase protects it.

    Examples:
      meshnode keys show
      meshnode keys show --home seed --json

    A key file that others could read is refused, here as at the start of a node.
    """
    from meshnode.adapters.key_file import is_protected

    path = home_of(home) / KEY_FILE
    protected = is_protected(path)
    told: dict[str, Any] = {"file": str(path), "protected": protected, "peer_id": None}
    passphrase = _known(passphrase_file, home)
    if not protected or passphrase or _asks():
        told |= _who(open_keys(path, passphrase))
    if as_json:
        say_json(told)
        return
    print(f"peer       {told['peer_id'] or 'not known without the passphrase'}")
    print(f"key file   {path}")
    print(f"protected  {'by a passphrase' if protected else 'by its mode only (0600)'}")
    if not protected:
        print("whoever copies the file is this node: see `meshnode keys protect`")


def protect(
    *,
    passphrase_file: Annotated[
        str, typer.Option(metavar="FILE", help="File that holds the new passphrase.")
    ] = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Protect the node's key by a passphrase (argon2id, XSalsa20-Poly1305).

    Examples:
      meshnode keys protect
      meshnode keys protect --passphrase-file /etc/meshnode/passphrase

    The node reads it from then on where `keys.passphrase_file` of its settings says, or
    from the service's credential meshnode.passphrase.  Without it the key is lost.
    """
    from meshnode.adapters.key_file import is_protected, replace
    from meshnode.adapters.system import SystemEntropy

    path = home_of(home) / KEY_FILE
    old = _known("", home) if is_protected(path) else None
    keys = open_keys(path, old)
    new = _new_passphrase(passphrase_file)
    replace(path, keys, SystemEntropy(), new)
    _done({"file": str(path), "protected": True}, f"{path} is protected", as_json=as_json)
    if not as_json:
        print("tell the node where it is: [keys] passphrase_file = … in node.toml")


def unprotect(
    *, passphrase_file: Passphrase = "", home: Home = "", as_json: Json = False
) -> None:
    """Take the passphrase off the node's key: its mode alone protects it then.

    Examples:
      meshnode keys unprotect --passphrase-file /etc/meshnode/passphrase
    """
    from meshnode.adapters.key_file import replace
    from meshnode.adapters.system import SystemEntropy

    path = home_of(home) / KEY_FILE
    keys = open_keys(path, _known(passphrase_file, home))
    replace(path, keys, SystemEntropy(), None)
    _done({"file": str(path), "protected": False}, f"{path} is open", as_json=as_json)


def export(
    file: Backup,
    *,
    passphrase_file: Annotated[
        str, typer.Option(metavar="FILE", help="File that holds the backup's passphrase.")
    ] = "",
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Write a backup of the node's key, protected by a passphrase of its own.

    Examples:
      meshnode keys export backup.key
      meshnode keys export backup.key --passphrase-file backup.passphrase

    The key is all that makes a node itself to others; jobs and receipts are in the rest
    of its home.
    """
    from meshnode.adapters.key_file import save
    from meshnode.adapters.system import SystemEntropy

    keys = open_keys(home_of(home) / KEY_FILE, _known("", home))
    save(file.absolute(), keys, SystemEntropy(), _new_passphrase(passphrase_file))
    _done({"file": str(file), **_who(keys)}, f"the key is in {file}", as_json=as_json)


def import_(
    file: Backup, *, passphrase_file: Passphrase = "", home: Home = "", as_json: Json = False
) -> None:
    """Make a home's key from a backup; a key that is there is never replaced.

    Examples:
      meshnode keys import backup.key --home restored

    One key is one node: never let two run at a time.
    """
    from meshnode.adapters.key_file import is_protected, save
    from meshnode.adapters.passphrase import find_passphrase
    from meshnode.adapters.system import SystemEntropy
    from meshnode.cli.failure import CommandFailed

    backup = file.absolute()
    if not backup.is_file():
        raise CommandFailed(
            f"there is no backup {backup}", hint="`meshnode keys export FILE` writes one"
        )
    given = find_passphrase(passphrase_file, env={}) if passphrase_file else None
    keys = open_keys(backup, given if is_protected(backup) else None)
    path = home_of(home).absolute() / KEY_FILE
    save(path, keys, SystemEntropy(), None)
    told = {"file": str(path), **_who(keys)}
    _done(told, f"{told['peer_id']} is in {path}; see `meshnode keys protect`", as_json=as_json)


# --- pieces ---------------------------------------------------------------------------


def _who(keys: "NodeKeys") -> dict[str, str]:
    from protocol.keys import Identity

    identity = Identity(keys.seed, keys.exchange_secret)
    return {"peer_id": identity.peer, "x25519": identity.x25519_public.hex()}


def _known(passphrase_file: str, home: str) -> str | None:
    """Return the passphrase that the option or the home's settings name, if any does."""
    from meshnode.adapters.passphrase import find_passphrase

    if passphrase_file:
        return find_passphrase(passphrase_file)
    return find_passphrase(told_settings(home).keys.passphrase_file)


def told_settings(home: str) -> "NodeConfig":
    """Return the settings of the node in ``home``, as it finds them when it starts."""
    from meshnode.cli.config import CONFIG_FILE
    from meshnode.cli.settings import Given, settings

    found = home_of(home) / CONFIG_FILE
    return settings(Given(file=str(found) if found.is_file() else "", home=str(home_of(home))))


def known_passphrase(passphrase_file: str, home: str, path: Path) -> str | None:
    """Return the passphrase of the key file at ``path``, asked for if need be; or None."""
    from meshnode.adapters.key_file import is_protected

    if not is_protected(path):
        return None
    found = _known(passphrase_file, home)
    if found is None and _asks():
        return _asked(f"passphrase of {path}: ")
    return found


def open_keys(path: Path, passphrase: str | None) -> "NodeKeys":
    """Return the keys in the file at ``path``; a passphrase that is wanted is asked for."""
    from meshnode.adapters.key_file import is_protected, load

    if is_protected(path) and passphrase is None and _asks():
        passphrase = _asked(f"passphrase of {path}: ")
    return load(path, passphrase)


def _new_passphrase(file: str) -> str:
    from meshnode.adapters.passphrase import read_passphrase
    from meshnode.cli.failure import CommandFailed

    if file:
        return read_passphrase(Path(file).expanduser(), guarded=False)
    if not _asks():
        raise CommandFailed(
            "no passphrase is given", hint="name a file that holds it: --passphrase-file"
        )
    new = _asked("new passphrase: ")
    if not new or new != _asked("once more: "):
        raise CommandFailed("these are not one passphrase", hint="start again")
    return new


def _asks() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _asked(prompt: str) -> str:
    from getpass import getpass

    return getpass(prompt)


def _done(told: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(told)
    else:
        print(text)
