"""The world as a node is given it: its ports, in one value.

:mod:`meshnode.app` makes one of the real ports, ``simulations`` one of simulated ones.
"""

from dataclasses import dataclass
from random import Random

from meshnode.ports import (
    Directory,
    Embedder,
    Entropy,
    Settlement,
    Store,
    Transport,
    WallClock,
)
from protocol.keys import Identity


@dataclass(frozen=True, slots=True)
class Ports:
    """The world as a node is given it.

    Attributes:
        identity: Its keys.
        transport: Streams.
        directory: The DHT, or None to live by the catalogue alone.
        store: Durable state.
        clock: Wall time.
        entropy: Keys and nonces.
        rng: Chance that need not be secret.
        embedder: What words mean, or None to plan by the words alone.
        settlement: How debts are paid, or None for what the settings say.
    """

    identity: Identity
    transport: Transport
    directory: Directory | None
    store: Store
    clock: WallClock
    entropy: Entropy
    rng: Random
    embedder: Embedder | None = None
    settlement: Settlement | None = None
