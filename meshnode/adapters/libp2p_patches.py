"""What has to be changed inside py-libp2p before a host is made.

Nearly everything that py-libp2p gets wrong is put right from outside, by classes of
our own at its extension points: the TCP transport (:mod:`.libp2p_tcp`), the muxer
(:mod:`.libp2p_yamux`), the swarm (:mod:`.libp2p_swarm`), the stream guards
(:mod:`.libp2p_guards`).  This module holds the rest: module globals that no
constructor reaches.  They are read at run time, so importing py-libp2p first does
no harm.  Everything that is replaced is checked for first: another version than
the pinned one is refused with a clear error instead of being half patched.
"""

import importlib.metadata
import logging
from typing import Final

from libp2p.kad_dht import peer_routing, provider_store, value_store
from libp2p.network import swarm
from libp2p.network.connection import swarm_connection
from libp2p.security import secure_session

from meshnode.errors import ConfigError

VERSION: Final = "0.8.1"

#: Longest wait for one DHT peer, seconds.  A lookup waits for its slowest peer, so
#: py-libp2p's 10 s let one frozen peer use up the whole operation.
DHT_QUERY_S: Final = 3

#: Private parts that the adapters build on.
_NEEDED: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (secure_session.SecureSession, ("_drain",)),
    (
        swarm.Swarm,
        ("_dial_addr_single_attempt", "_open_stream_on_connection", "_select_connection"),
    ),
    (value_store.ValueStore, ("_store_at_peer", "_get_from_peer")),
    (
        provider_store.ProviderStore,
        ("_send_add_provider", "_get_providers_from_peer_with_closers"),
    ),
)


def apply() -> None:
    """Patch py-libp2p; idempotent.

    Raises:
        ConfigError: The installed py-libp2p is not the one that was examined.
    """
    found = importlib.metadata.version("libp2p")
    if found != VERSION:
        raise ConfigError(
            f"libp2p {found} is installed, but this node is made for {VERSION}",
            hint=f"install libp2p=={VERSION}",
        )
    for owner, names in _NEEDED:
        for name in names:
            _check(owner, name)
    silence()
    _replace(peer_routing, "QUERY_TIMEOUT", DHT_QUERY_S)


def silence() -> None:
    """Keep py-libp2p out of the logs: it logs values that peers made up, whole.

    ``swarm_connection`` logs through the root logger, which installs a handler on
    standard error as a side effect: it gets a logger of its own.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("libp2p."):  # one of them sets its own level
            logging.getLogger(name).setLevel(logging.NOTSET)
    logger = logging.getLogger("libp2p")
    for noisy in (logger, logging.getLogger("multiaddr")):
        noisy.setLevel(logging.CRITICAL + 1)
    _replace(swarm_connection, "logging", logger.getChild("network.connection"))


def _check(owner: object, name: str) -> None:
    if not hasattr(owner, name):
        raise ConfigError(
            f"libp2p's {getattr(owner, '__name__', owner)} has no {name}",
            hint=f"install libp2p=={VERSION}",
        )


def _replace(module: object, name: str, value: object) -> None:
    _check(module, name)
    setattr(module, name, value)
