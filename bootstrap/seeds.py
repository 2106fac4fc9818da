"""Seed lists: files that say where a mesh can be found.

One multiaddr a line, ``#`` begins a comment::

    # the mesh of the reading group
    /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…

or TOML, for those who keep other things beside it: ``seeds = ["/ip4/…"]``.
"""

import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from meshnode.errors import ConfigError
from protocol.errors import Malformed
from protocol.keys import public_key

SEEDS_MAX: Final = 1_000
_HINT: Final = "one address a line, like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…"


def read_seeds(text: str, *, where: str) -> list[str]:
    """Return the addresses in a seed list, each once, in order.

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
    where, _, peer = entry.rpartition("/p2p/")
    if not where.startswith("/") or any(c.isspace() or c == "," for c in entry):
        raise ConfigError(f"{place}: {entry[:80]!r} is no address of a peer", hint=_HINT)
    try:
        public_key(peer)
    except Malformed as exc:
        raise ConfigError(f"{place}: {peer[:80]!r} is no PeerId", hint=_HINT) from exc


def format_seeds(addresses: Sequence[str]) -> str:
    """Return the seed list of ``addresses`` as text.

    Raises:
        ConfigError: One of them is no address with a PeerId.
    """
    for number, address in enumerate(addresses, start=1):
        _check(address, f"address {number}")
    return "\n".join(["# Seeds of a mesh: meshnode up --join @THIS_FILE", *addresses, ""])


def write_seeds(path: Path, addresses: Sequence[str]) -> None:
    """Put the seed list of ``addresses`` at ``path``, whole or not at all.

    Raises:
        ConfigError: It can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(format_seeds(addresses), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigError(
            f"seed list {path} can't be written: {error.strerror}", hint="check its folder"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
