"""Seed lists: files that say where a mesh can be found.

One invite or multiaddr a line, ``#`` begins a comment::

    # the mesh of the reading group
    mesh1:3Ab…
    /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…

An invite makes whoever joins by it a member; an address only says where the mesh is.

or TOML, for those who keep other things beside it: ``seeds = ["/ip4/…"]``.
"""

import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from meshnode.errors import ConfigError
from protocol.errors import Malformed
from protocol.invites import is_token, read_token
from protocol.keys import public_key

SEEDS_MAX: Final = 1_000
_HINT: Final = (
    "one invite (mesh1:…) or address a line, like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"
)


def read_seeds(text: str, *, where: str) -> list[str]:
    """Return the invites and addresses in a seed list, each once, in order.

    Args:
        text: The file.
        where: Its name, for messages.

    Raises:
        ConfigError: An entry is no address with a PeerId, or there is none; says where.
    """
    found: dict[str, None] = {}
    for place, entry in _entries(text, where):
        _check(entry, place)
        found[entry] = None
        if len(found) > SEEDS_MAX:
            raise ConfigError(f"{where} has over {SEEDS_MAX} seeds", hint="a few will do")
    if not found:
        raise ConfigError(f"{where} names no seed", hint=_HINT)
    return list(found)


def _entries(text: str, where: str) -> Iterator[tuple[str, str]]:
    """Yield each entry with the place where it stands."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    first = next((line for line in lines if line), "")
    if first and not first.startswith("/") and ("=" in first or first.startswith("[")):
        yield from _toml_entries(text, where)
        return
    for number, line in enumerate(lines, start=1):
        if line:
            yield f"{where}, line {number}", line


def _toml_entries(text: str, where: str) -> Iterator[tuple[str, str]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where} is not TOML: {exc}", hint="mend that line") from exc
    entries = table.get("seeds")
    if not isinstance(entries, list):
        raise ConfigError(f"{where} has no list 'seeds'", hint='write seeds = ["/ip4/…"]')
    for number, entry in enumerate(entries, start=1):
        place = f"{where}, seed {number}"
        if not isinstance(entry, str):
            raise ConfigError(f"{place} is {entry!r:.60}, not text", hint="put it in quotes")
        yield place, entry


def _check(entry: str, place: str) -> None:
    if is_token(entry):
        try:
            read_token(entry)
        except Malformed as exc:
            hint = "copy the whole word from `meshnode invite`"
            raise ConfigError(f"{place}: {exc}", hint=hint) from exc
        return
    where, _, peer = entry.rpartition("/p2p/")
    if not where.startswith("/") or any(c.isspace() or c == "," for c in entry):
        raise ConfigError(f"{place}: {entry[:80]!r} is no address of a peer", hint=_HINT)
    try:
        public_key(peer)
    except Malformed as exc:
        raise ConfigError(f"{place}: {peer[:80]!r} is no PeerId", hint=_HINT) from exc


def format_seeds(addresses: Sequence[str], *, invite: str = "") -> str:
    """Return the seed list of ``addresses`` as text.

    With an ``invite``, which holds addresses too, they are there for people to read.

    Raises:
        ConfigError: One of them is no address with a PeerId, or the invite is none.
    """
    for number, address in enumerate(addresses, start=1):
        _check(address, f"address {number}")
    lines = ["# Seeds of a mesh: meshnode up --join @THIS_FILE"]
    if invite:
        _check(invite, "the invite")
        lines += ["# Whoever has the next line can become a member: pass it on with care."]
        lines += [invite, *(f"# {address}" for address in addresses)]
    else:
        lines += addresses
    return "\n".join([*lines, ""])


def write_seeds(path: Path, addresses: Sequence[str], *, invite: str = "") -> None:
    """Put the seed list of ``addresses`` at ``path``, whole or not at all.

    Only its owner can read one that holds an ``invite``.

    Raises:
        ConfigError: It can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.touch(mode=0o600 if invite else 0o666)
        aside.write_text(format_seeds(addresses, invite=invite), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigError(
            f"seed list {path} can't be written: {error.strerror}", hint="check its folder"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
