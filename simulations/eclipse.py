"""A directory with attackers around its keys: what is looked up there ends among them.

Whoever has enough nodes near a key of a DHT answers for it: names accomplices, and serves
and keeps nothing of others (Singh et al., "Eclipse attacks on overlay networks", 2006).  It
gains all who find others by the DHT alone: they deal with accomplices, or with nobody.
Several disjoint lookups make it dearer; here, catalogues between neighbours make it useless
against whoever has honest ones.

This is put around any directory of a world and only says *how often* an attack succeeds.
In a DHT with hops (:class:`simulations.kademlia.SimKademlia`) that follows from where the
attackers sit: there each of them is given an answering strategy instead, by ``corrupt``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from meshnode.ports import Directory
from simulations.mesh import Dht


@dataclass(slots=True)
class Eclipse:
    """The directory of a world (:class:`simulations.mesh.Dht`), eclipsed.

    Attributes:
        directory: The one behind it.
        rng: Draws what ends among the attackers.
        hold: Chance of that, of each lookup and each publication.
        accomplices: PeerIds; whom they name, and who finds all as it is.
        names: What they sit around; everything if there is none.
    """

    directory: Dht
    rng: Random
    hold: float = 1.0
    accomplices: list[str] = field(default_factory=list)
    names: Sequence[str] = ()

    def port(self, peer: str, *, listens: bool = True) -> Directory:
        """See :class:`simulations.mesh.Dht`."""
        return _Port(self, peer, self.directory.port(peer, listens=listens))

    def gone(self, peer: str) -> None:
        """See :class:`simulations.mesh.Dht`."""
        self.directory.gone(peer)

    def catches(self, peer: str, names: Sequence[str]) -> bool:
        """Tell whether what ``peer`` does about ``names`` ends among the attackers."""
        aimed = not self.names or any(name in self.names for name in names)
        return aimed and peer not in self.accomplices and self.rng.random() < self.hold


@dataclass(frozen=True, slots=True)
class _Port:
    """One peer's :class:`meshnode.ports.Directory`."""

    eclipse: Eclipse
    peer: str
    honest: Directory

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """See there; who takes it says so, and forgets it."""
        caught = [name for name in names if self.eclipse.catches(self.peer, [name])]
        await self.honest.publish(record, [name for name in names if name not in caught])

    async def providers(self, name: str, *, count_max: int = 20) -> Sequence[str]:
        """See there."""
        found = await self.honest.providers(name, count_max=count_max)
        if self.eclipse.catches(self.peer, [name]):
            return self.eclipse.accomplices[:count_max]
        return found

    async def record(self, peer: str) -> bytes | None:
        """See there; records lie where their peers' keys are, which may be elsewhere."""
        found = await self.honest.record(peer)
        is_honest = peer not in self.eclipse.accomplices
        if not self.eclipse.names and is_honest and self.eclipse.catches(self.peer, []):
            return None
        return found
