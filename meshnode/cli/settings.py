"""From options, environment and file to a node's settings, all checked in one place.

An option is handed on as the environment variable of the same setting would be, so
that :func:`~meshnode.config.parse_config` checks everything the same way: an option
beats the environment, which beats the file.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootstrap.seeds import read_seeds
from meshnode.cli.failure import CommandFailed
from meshnode.config import ENV_PREFIX, NodeConfig, parse_config

_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """What the options say; empty where they say nothing."""

    file: str = ""
    home: str = ""
    network: str = ""
    listen: Sequence[str] = ()
    join: Sequence[str] = ()
    specialists: Sequence[str] = ()
    functions: Sequence[str] = ()
    http: str = ""
    log: str = ""
    mdns: bool = False
    dht: bool = True
    catalogue: bool = True


def settings(given: Given, env: Mapping[str, str] = os.environ) -> NodeConfig:
    """Return the settings that hold.

    Raises:
        ConfigError: A setting can't be used; names it.
        CommandFailed: The config file or a seed list can't be read.
    """
    text = _text(Path(given.file).expanduser()) if given.file else ""
    said = {
        "HOME": given.home,
        "NETWORK": given.network,
        "LISTEN": ",".join(given.listen),
        "JOIN": ",".join(joined(given.join)),
        "SPECIALISTS": ",".join(given.specialists),
        "FUNCTIONS": ",".join(given.functions),
        **_http(given.http),
        "LOG__FORM": given.log,
        "DIRECTORY__MDNS": "true" if given.mdns else "",
        "DIRECTORY__DHT": "" if given.dht else "false",
        "DIRECTORY__CATALOGUE": "" if given.catalogue else "false",
    }
    options = {ENV_PREFIX + name: value for name, value in said.items() if value}
    where = given.file or ("the options" if options else "the environment")
    return parse_config(text, env={**env, **options}, where=where)


def joined(entries: Sequence[str]) -> list[str]:
    """Return the addresses of ``--join``, those in seed lists (``@FILE``) among them.

    Raises:
        ConfigError: A seed list has a line that is no address.
        CommandFailed: It can't be read.
    """
    found: list[str] = []
    for entry in entries:
        if entry.startswith("@"):
            path = Path(entry[1:]).expanduser()
            found += read_seeds(_text(path), where=str(path))
        else:
            found.append(entry)
    return list(dict.fromkeys(found))


def _http(place: str) -> dict[str, str]:
    if not place:
        return {}
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal():
        raise CommandFailed(
            f"--http {place!r} is not HOST:PORT",
            hint="such as 127.0.0.1:8000; port 0 takes a free one",
            told="config.invalid",
        )
    return {"HTTP__HOST": host.strip("[]"), "HTTP__PORT": port}


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            raise CommandFailed(
                f"{path} has over {_BYTES_MAX} bytes", hint="is it the right one?"
            )
        return data.decode()
    except OSError as error:
        raise CommandFailed(
            f"{path} can't be read: {error.strerror}",
            hint="check its name",
            told="cli.no_file",
        ) from error
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"{path} is not UTF-8 text", hint="is it the right file?"
        ) from error
