"""What every service of a node shares: who it is, its ports, and how it reports."""

from dataclasses import dataclass
from random import Random

from meshnode.config import NodeConfig
from meshnode.ports import Emit, Entropy, Store, Transport, WallClock
from meshnode.services.signer import Signer


@dataclass(frozen=True, slots=True)
class Context:
    """A node's ground.

    Attributes:
        signer: Its identity, in messages.
        transport: Streams to peers.
        store: Durable tables and logs.
        clock: Wall time.
        entropy: Keys and nonces.
        rng: Chance that need not be secret: jitter, draws.
        config: What it was told.
        emit: Telemetry.
    """

    signer: Signer
    transport: Transport
    store: Store
    clock: WallClock
    entropy: Entropy
    rng: Random
    config: NodeConfig
    emit: Emit

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self.signer.peer

    @property
    def network(self) -> str:
        """Id of its mesh."""
        return self.signer.network
