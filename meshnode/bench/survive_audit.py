"""Read the stores of real nodes and hold them against each other.

The files are opened by themselves and no node is asked; what must hold of money and of
ends is what :mod:`simulations.money` and :mod:`simulations.tellings` hold simulated disks
to.  Beside that, no award was begun twice by the nodes' logs
(:mod:`meshnode.bench.survive_awards`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from meshnode.adapters.key_file import load_or_create
from meshnode.adapters.system import SystemEntropy
from meshnode.bench.survive_awards import check_awards
from meshnode.config import NodeConfig
from meshnode.services.receipts import DUE
from protocol.keys import Identity
from simulations.money import check_money
from simulations.tellings import check_endings

_STORE = "node.db"
_KEYS = "keys"


@dataclass(slots=True)
class HomeDisk:
    """What is in a node's store."""

    tables: dict[str, dict[str, bytes]] = field(default_factory=dict)
    logs: dict[str, list[bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class Home:
    """A node that has ended."""

    name: str
    peer: str
    disk: HomeDisk


@dataclass(slots=True)
class Homes:
    """All nodes of a mesh that has ended."""

    members: Mapping[str, Home]
    network_id: str = NodeConfig().network

    def name(self, peer: str) -> str:
        """Return who has the PeerId ``peer``; the PeerId of a stranger."""
        known = [home.name for home in self.members.values() if home.peer == peer]
        return known[0] if known else peer


def audit(folder: Path) -> list[str]:
    """Return what must not be, of the homes in ``folder``, a line each."""
    homes = {store.parent.name: _read_home(store.parent) for store in _stores(folder)}
    mesh = Homes(homes)
    return [*check_money(mesh), *check_endings(mesh), *check_awards(folder)]


def due(home: Path) -> int:
    """Return how many receipts of the node at ``home``, which may run, are to be delivered."""
    with closing(_open(home / _STORE)) as file:
        (count,) = file.execute("SELECT count(*) FROM cell WHERE tbl = ?", (DUE,)).fetchone()
    return int(count)


def _stores(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob(f"*/{_STORE}"))


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def _read_home(home: Path) -> Home:
    keys = load_or_create(home / _KEYS, SystemEntropy(), None)
    disk = HomeDisk()
    with closing(_open(home / _STORE)) as file:
        for table, key, value in file.execute("SELECT tbl, key, value FROM cell"):
            disk.tables.setdefault(table, {})[key] = value
        for log, value in file.execute("SELECT log, value FROM entry ORDER BY log, seq"):
            disk.logs.setdefault(log, []).append(value)
    return Home(home.name, Identity(keys.seed, keys.exchange_secret).peer, disk)
