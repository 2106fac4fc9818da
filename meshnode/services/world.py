"""The world as a node is given it: real ports, or simulated ones, in one value."""

from dataclasses import dataclass
from random import Random

from meshnode.ports import (
    Directory,
    Embedder,
    Entropy,
    Labour,
    Sandbox,
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
        sandbox: Where programs of others are tried, or None to try none.
        labour: Who proves and checks work for a name, or None to do neither.
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
    sandbox: Sandbox | None = None
    labour: Labour | None = None
