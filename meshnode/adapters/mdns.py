"""Finding nodes of the same mesh on the local network, by multicast DNS (RFC 6762, 6763).

A node announces itself as a ``_meshnode._tcp`` service whose text record names the mesh,
its PeerId and where it listens, and hears of others in the same way.  Anybody on the
network can announce anything: what is heard is held to limits, other meshes are left
out, and who answers a dial proves its PeerId.

``zeroconf`` has threads of its own; it is set up, asked and closed in ours, and what it
hears comes to Trio through a bounded channel: when many are heard at once, some wait
for their next announcement.
"""

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio
from zeroconf import (
    Error,
    InterfaceChoice,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from meshnode.ports import Emit, Sighting
from protocol.errors import Malformed
from protocol.keys import public_key
from protocol.limits import ADDRESS_SIZE_MAX

SERVICE: Final = "_meshnode._tcp.local."
#: Addresses in an announcement.
ADDRESSES_MAX: Final = 8
#: Sightings that wait to be looked at.
WAITING_MAX: Final = 64
_RESOLVE_MS: Final = 3_000
#: Saying goodbye takes no longer than this, seconds.
_CLOSE_S: Final = 3.0
_LOCAL: Final = ("/ip4/127.", "/ip6/::1/")


def announcement(network: str, sighting: Sighting) -> dict[str, str]:
    """Return the text record that announces a node."""
    far = [address for address in sighting.addresses if not address.startswith(_LOCAL)]
    told = (far or sighting.addresses)[:ADDRESSES_MAX]
    places = {f"a{number}": address for number, address in enumerate(told)}
    return {"network": network, "peer": sighting.peer, **places}


def read_announcement(text: Mapping[bytes, bytes | None], network: str) -> Sighting | None:
    """Return whom a text record announces, if it is a node of ``network``.

    Total over text records: what is none of ours is None.
    """
    if text.get(b"network") != network.encode():
        return None
    try:
        peer = (text.get(b"peer") or b"").decode("ascii")
        public_key(peer)
        places = [text.get(b"a%d" % number) for number in range(ADDRESSES_MAX)]
        found = tuple(place.decode("ascii") for place in places if place)
    except (UnicodeDecodeError, Malformed):
        return None
    if not found or any(not _is_address(place) for place in found):
        return None
    return Sighting(peer, found)


def _shown(sighting: Sighting) -> str:
    """Return an address of the machine, for programs that list services."""
    numbered = [place.split("/")[2] for place in sighting.addresses if place[:5] == "/ip4/"]
    return next((place for place in numbered if not place.startswith("127.")), "127.0.0.1")


def _is_address(place: str) -> bool:
    numbered = place.startswith(("/ip4/", "/ip6/"))  # names would be looked up elsewhere
    return numbered and len(place) <= ADDRESS_SIZE_MAX and place.isprintable()


@asynccontextmanager
async def open_mdns(
    network: str, sighting: Sighting, *, interfaces: Sequence[str] = (), emit: Emit
) -> AsyncIterator[trio.MemoryReceiveChannel[Sighting]]:
    """Announce this node, and give the channel on which others are heard of.

    Args:
        network: Id of the mesh.
        sighting: This node.
        interfaces: Addresses of the interfaces to use; empty for all.
        emit: Told ``mdns.unavailable`` where the network doesn't take it.
    """
    ears = _Ears(network, sighting, emit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ears.announce, interfaces)
        try:
            with ears.heard:
                yield ears.heard
        finally:
            nursery.cancel_scope.cancel()
            await ears.aclose()


class _Ears:
    """Announces one node, and listens for others."""

    def __init__(self, network: str, sighting: Sighting, emit: Emit) -> None:
        self._tell_in, self.heard = trio.open_memory_channel[Sighting](WAITING_MAX)
        self._network = network
        self._me = sighting
        self._emit = emit
        self._token = trio.lowlevel.current_trio_token()
        self._opened: list[Zeroconf] = []
        self._closing = False

    async def announce(self, interfaces: Sequence[str]) -> None:
        """Set up, announce and listen, or report why not; takes a second."""
        try:
            await trio.to_thread.run_sync(self._announce, interfaces)
        except (OSError, Error, RuntimeError) as error:
            if not self._closing:  # else it was taken away from under us
                self._emit("mdns.unavailable", why=str(error) or type(error).__name__)

    def _announce(self, interfaces: Sequence[str]) -> None:
        for interface in interfaces:  # zeroconf would leave a socket behind
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
                trial.bind((interface, 0))
        zeroconf = Zeroconf(
            interfaces=list(interfaces) or InterfaceChoice.All, ip_version=IPVersion.V4Only
        )
        self._opened.append(zeroconf)
        info = ServiceInfo(
            SERVICE,
            f"{self._me.peer}.{SERVICE}",
            # Where it listens is in the text record, for there may be several places; but
            # a service without address and port counts as incomplete.
            port=1,
            parsed_addresses=[_shown(self._me)],
            properties=announcement(self._network, self._me),
            server=f"{self._me.peer}.local.",
        )
        zeroconf.register_service(info)
        if not self._closing:
            ServiceBrowser(zeroconf, SERVICE, handlers=[self._on_change])

    def _on_change(
        self,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Look a service up; runs in the browser's thread."""
        if state_change is ServiceStateChange.Removed or self._closing:
            return
        try:
            info = zeroconf.get_service_info(service_type, name, timeout=_RESOLVE_MS)
        except (OSError, Error, RuntimeError):
            return  # closed meanwhile, or held up: who is there announces himself again
        found = read_announcement(info.properties, self._network) if info else None
        if found is not None and found.peer != self._me.peer:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._tell, found)

    def _tell(self, found: Sighting) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._tell_in.send_nowait(found)

    async def aclose(self) -> None:
        """Say goodbye and let go; takes no longer than some seconds."""
        self._closing = True
        self._tell_in.close()
        with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_S):
            for zeroconf in self._opened:
                await trio.to_thread.run_sync(zeroconf.close, abandon_on_cancel=True)
