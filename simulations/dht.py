"""The Kademlia of a mesh: its nodes come and go with the mesh's, over the mesh's network."""

from collections.abc import Sequence
from typing import Final

from meshnode.ports import Directory
from simulations.answering import Answering
from simulations.directory import Validate
from simulations.kademlia import SimKademlia
from simulations.kademlia_node import Rules
from simulations.world import World

#: How many of those that are up a node is told to begin with, the eldest: the seeds.
_SEEDS_MAX: Final = 3


class KademliaDht:
    """See :class:`simulations.mesh.Dht`.

    Attributes:
        kademlia: What it stands on: to watch operations, or to corrupt a node.
    """

    def __init__(self, world: World, validate: Validate, *, rules: Rules | None = None) -> None:
        self._network = world.network
        self._rng = world.random("directory/ways")
        self._up: dict[str, None] = {}
        self._corrupt: dict[str, Answering] = {}
        self.kademlia = SimKademlia(
            world.random("directory"),
            validate,
            delay_s=self._delay_s,
            reaches=world.network.answers,
            rules=rules,
            trace=world.trace,
        )
        world.nursery.start_soon(self.kademlia.run)

    def port(self, peer: str, *, listens: bool = True) -> Directory:
        """Start the node of ``peer`` and return its way in."""
        self._up.pop(peer, None)
        self.kademlia.join(peer, via=self._seeds(), server=listens)
        if listens:
            self._up[peer] = None
        if peer in self._corrupt:
            self.kademlia.corrupt(peer, self._corrupt[peer])
        return self.kademlia.port(peer)

    def corrupt(self, peer: str, answering: Answering) -> None:
        """Let ``answering`` answer for ``peer`` in each of its lives to come."""
        self._corrupt[peer] = answering

    def gone(self, peer: str) -> None:
        """End the node of ``peer``."""
        self._up.pop(peer, None)
        self.kademlia.crash(peer)

    def _seeds(self) -> Sequence[str]:
        return [peer for _, peer in zip(range(_SEEDS_MAX), self._up, strict=False)]

    def _delay_s(self, one: str, other: str) -> float:
        return self._network.weather(one, other).delay_s(self._rng)
