"""First peers: whom a node was told, and whom it sees nearby.

In virtual time (a MockClock's).
"""

import msgspec
import trio

from meshnode.node import Node
from meshnode.ports import Sighting
from meshnode.services.joining import NEARBY_MAX
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import play, told, until

NOWHERE = "/memory/999"
NO_DHT = msgspec.structs.replace(CONFIG.directory, dht=False)


def sighting(node: Node) -> Sighting:
    return Sighting(node.peer, tuple(node.dialled))


def alone(mesh: SimMesh, name: str) -> str:
    """Return an address to join at which nobody is."""
    return f"{NOWHERE}/p2p/{mesh._identity(name).peer}"


def test_whom_it_sees_it_meets_and_a_node_that_is_not_there_hinders_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        lonely = msgspec.structs.replace(CONFIG, join=(alone(mesh, "ghost"),), directory=NO_DHT)
        a = await mesh.start("a", config=lonely)
        b = await mesh.start("b", config=lonely)
        await trio.sleep(20)
        assert not a.sessions.connected()
        a.joining.seen(Sighting(mesh._identity("nobody").peer, (NOWHERE,)))
        a.joining.seen(Sighting(a.peer, (NOWHERE,)))
        a.joining.seen(sighting(b))
        await until(lambda: b.peer in a.sessions.connected(), within_s=30)
        assert told(a, "mdns.not_reached")
        assert [row["peer"] for row in told(a, "mdns.not_reached")] == [
            mesh._identity("nobody").peer
        ] * len(told(a, "mdns.not_reached"))

    play(story)


def test_with_peers_enough_nobody_nearby_is_dialled() -> None:
    async def story(mesh: SimMesh) -> None:
        directory = msgspec.structs.replace(NO_DHT, neighbours_max=1)
        lonely = msgspec.structs.replace(
            CONFIG, join=(alone(mesh, "ghost"),), directory=directory
        )
        a, b, c = [await mesh.start(name, config=lonely) for name in "abc"]
        a.joining.seen(sighting(b))
        await until(lambda: b.peer in a.sessions.connected())
        a.joining.seen(sighting(c))
        await trio.sleep(60)
        assert c.peer not in a.sessions.connected()
        mesh.crash("b")
        await until(lambda: c.peer in a.sessions.connected(), within_s=60)

    play(story)


def test_who_announces_many_names_fills_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a")
        for number in range(10 * NEARBY_MAX):
            a.joining.seen(Sighting(f"peer{number}", (NOWHERE,)))
        assert len(a.joining._nearby) == NEARBY_MAX

    play(story)
