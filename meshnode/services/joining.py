"""Finding the first peers: where this node was told to join, and whom it sees nearby.

What it was told is dialled whenever it has nobody, and then those that it was with before,
one after the other, until one is there.  Whoever is seen on the local
network is dialled once when it is seen, as long as there are few peers, and again
whenever there is nobody.  Each of the three goes on by itself: many that are not there,
and take their time to say so, don't keep this node from those that it was told.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import trio

from meshnode.config import NodeConfig
from meshnode.errors import ConfigError, MeshError
from meshnode.ports import Emit, Sighting
from meshnode.services.sessions import Sessions

#: How often a node that has nobody dials again, seconds.
AGAIN_S: Final = 5.0
#: Nodes nearby that are remembered; the longest seen are forgotten first.
NEARBY_MAX: Final = 64


def places(addresses: Iterable[str]) -> dict[str, str]:
    """Return where to dial whom, from addresses such as ``/ip4/…/p2p/PEER``.

    Raises:
        ConfigError: One names no peer.
    """
    found = {}
    for address in addresses:
        where, _, peer = address.rpartition("/p2p/")
        if not where or not peer:
            raise ConfigError(f"join {address!r} names no peer", hint="end it in /p2p/PEER")
        found[peer] = where
    return found


class Joining:
    """See the module.

    Attributes:
        told: PeerId -> where to dial it, as this node was told.
        tried: Set once somebody is there, or each of those was dialled in vain.
    """

    def __init__(
        self,
        sessions: Sessions,
        config: NodeConfig,
        *,
        met: Callable[[], Mapping[str, Sequence[str]]],
        emit: Emit,
    ) -> None:
        """Dial nobody yet; ``met`` tells whom it was with before, and where.

        Raises:
            ConfigError: An address to join names no peer.
        """
        self.told: Mapping[str, str] = places(config.join_addresses)
        self.tried = trio.Event()
        self._sessions = sessions
        self._met = met
        self._peers_enough = config.directory.neighbours_max
        self._emit = emit
        self._nearby: dict[str, Sighting] = {}
        self._fresh: dict[str, None] = {}
        self._news = trio.Event()
        self._stir = trio.Event()  # somebody new is seen, or the last peer has gone
        self._lost = trio.Event()  # the last peer has gone
        sessions.on_change(self._session_changed)

    def _session_changed(self, _peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if not opened and not self._sessions.connected():
            self._stir.set()
            self._lost.set()
            self._lost = trio.Event()

    def seen(self, sighting: Sighting) -> None:
        """Remember a node that was seen on the local network, and dial it soon."""
        self._nearby.pop(sighting.peer, None)
        self._nearby[sighting.peer] = sighting
        if len(self._nearby) > NEARBY_MAX:
            del self._nearby[next(iter(self._nearby))]
        self._fresh[sighting.peer] = None
        self._news.set()
        self._stir.set()

    def addresses_of(self, peer: str) -> Sequence[str]:
        """Return where ``peer`` was said, or seen, to be."""
        told = [self.told[peer]] if peer in self.told else []
        seen = self._nearby.get(peer)
        return [*told, *(seen.addresses if seen else ())]

    async def run(self) -> None:
        """Dial until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_nearby)
            await self._join()
            self.tried.set()
            nursery.start_soon(self._look_for_those_met)
            while True:
                await self._alone(self.told)
                await self._join()

    async def _alone(self, others: Mapping[str, object]) -> None:
        """Wait until nobody is there, and then a little: who hangs up at once is left alone.

        Where there are no ``others`` to dial either, only the end of the last session is a
        reason to look again: it is those one has met that are remembered.
        """
        await trio.lowlevel.checkpoint()
        if not others:
            await self._lost.wait()
        while self._sessions.connected():
            await self._lost.wait()
        await trio.sleep(AGAIN_S)

    async def _join(self) -> None:
        if self._sessions.connected():
            return
        for peer, address in [*self.told.items()]:
            await self._dial(peer, [address], "node.join_failed")
            if self._sessions.connected():
                self.tried.set()

    async def _look_for_those_met(self) -> None:
        while True:
            for peer, addresses in [*self._met().items()]:
                if self._sessions.connected():
                    break
                if peer not in self.told:
                    await self._dial(peer, addresses, "node.not_met_again")
            await self._alone(self._met())

    async def _look_nearby(self) -> None:
        while True:
            self._news, self._stir = trio.Event(), trio.Event()
            await self._meet_nearby()
            if self._sessions.connected() or not self._nearby:
                await self._stir.wait()
            with trio.move_on_after(AGAIN_S):
                await self._news.wait()

    async def _meet_nearby(self) -> None:
        wanted = self._fresh if self._sessions.connected() else {**self._nearby}
        self._fresh = {}
        for peer in wanted:
            if len(self._sessions.connected()) >= self._peers_enough:
                return
            sighting = self._nearby.get(peer)
            if sighting is not None and peer not in self._sessions.connected():
                await self._dial(peer, sighting.addresses, "mdns.not_reached")

    async def _dial(self, peer: str, addresses: Sequence[str], failed: str) -> None:
        if peer == self._sessions.peer:
            return
        try:
            await self._sessions.connect(peer, addresses=addresses)
        except MeshError as exc:
            self._emit(failed, peer=peer, why=str(exc))
