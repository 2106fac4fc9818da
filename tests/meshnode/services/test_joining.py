"""First peers: whom a node was told, and whom it sees nearby.

In virtual time (a MockClock's).
"""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from meshnode.errors import Unreachable
from meshnode.node import Node
from meshnode.ports import Sighting
from meshnode.services.acquaintances import MET_MAX
from meshnode.services.joining import NEARBY_MAX, Joining
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.inviting import STRICT, invited
from tests.meshnode.services.worlds import play, told, until

NOWHERE = "/memory/999"
NO_DHT = msgspec.structs.replace(CONFIG.directory, dht=False)


def sighting(node: Node) -> Sighting:
    return Sighting(node.peer, tuple(node.dialled))


def alone(mesh: SimMesh, name: str) -> str:
    """Return an address to join at which nobody is."""
    return f"{NOWHERE}/p2p/{mesh.identity(name).peer}"


def test_whom_it_sees_it_meets_and_a_node_that_is_not_there_hinders_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        lonely = msgspec.structs.replace(CONFIG, join=(alone(mesh, "ghost"),), directory=NO_DHT)
        a = await mesh.start("a", config=lonely)
        b = await mesh.start("b", config=lonely)
        await trio.sleep(20)
        assert not a.sessions.connected()
        a.joining.seen(Sighting(mesh.identity("nobody").peer, (NOWHERE,)))
        a.joining.seen(Sighting(a.peer, (NOWHERE,)))
        a.joining.seen(sighting(b))
        await until(lambda: b.peer in a.sessions.connected(), within_s=30)
        assert told(a, "mdns.not_reached")
        assert [row["peer"] for row in told(a, "mdns.not_reached")] == [
            mesh.identity("nobody").peer
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


class Hanging:
    """Sessions of a node that has nobody: every dial takes ten seconds, and is in vain."""

    peer = "me"

    def __init__(self) -> None:
        self.dials: list[tuple[float, str]] = []

    def on_change(self, _: object) -> None:
        """Nothing ever changes."""

    def connected(self) -> list[str]:
        return []

    async def connect(self, peer: str, *, addresses: Sequence[str]) -> None:
        assert addresses
        self.dials.append((trio.current_time(), peer))
        await trio.sleep(10)
        raise Unreachable(peer)

    def between(self, peer: str) -> float:
        """The longest time between two dials of ``peer``, seconds."""
        at = [when for when, who in self.dials if who == peer]
        return max(later - earlier for earlier, later in pairwise(at))


async def joined_in_vain(*, met: int = 0, nearby: int = 0) -> Hanging:
    """Have a node look for a told peer for an hour, among others that aren't there either."""
    sessions: Any = Hanging()
    config = msgspec.structs.replace(CONFIG, join=(f"{NOWHERE}/p2p/told",))
    friends = {f"friend{number:02}": [NOWHERE] for number in range(met)}
    joining = Joining(sessions, config, met=lambda: friends, emit=lambda *_, **__: None)
    for number in range(nearby):
        joining.seen(Sighting(f"near{number:02}", (NOWHERE,)))
    with trio.move_on_after(3_600):
        await joining.run()
    assert isinstance(sessions, Hanging)
    return sessions


@pytest.mark.parametrize("others", [{"nearby": NEARBY_MAX}, {"met": MET_MAX}])
async def test_whoever_else_is_not_there_does_not_delay_the_next_look_for_those_told(
    others: dict[str, int], autojump_clock: MockClock
) -> None:
    sessions = await joined_in_vain(**others)
    assert sessions.between("told") <= 20
    seen = {peer for _, peer in sessions.dials}
    assert len(seen) == 1 + sum(others.values()), "and each of them has its turn"


async def live_again(mesh: SimMesh, name: str) -> Node:
    """Start ``name`` from its disk, as somebody does who has thrown its invite away."""
    mesh.members[name].config = msgspec.structs.replace(mesh.members[name].config, join=())
    return await mesh.restart(name)


def test_a_node_that_comes_back_finds_others_though_its_inviter_has_gone() -> None:
    async def story(mesh: SimMesh) -> None:
        quiet = msgspec.structs.replace(STRICT, directory=NO_DHT)
        a = await mesh.start("a", config=quiet)
        b = await invited(mesh, "a", "b", config=quiet)
        c = await invited(mesh, "a", "c", config=quiet)
        await until(lambda: c.peer in b.acquaintances.met and c.peer in b.sessions.connected())
        await until(lambda: a.peer in b.acquaintances.met)
        for name in "abc":
            mesh.crash(name)
        c = await live_again(mesh, "c")
        b = await live_again(mesh, "b")
        await until(lambda: c.peer in b.sessions.connected(), within_s=60)
        assert await b.members.meet(c.peer)  # and is of the mesh as before

    play(story)


def test_few_are_remembered_and_members_before_the_rest() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a")
        kept: Any = a.acquaintances
        here = [f"peer{number:03}" for number in range(3 * MET_MAX)]
        members = {"peer040", "peer041"}
        kept._sessions = SimpleNamespace(connected=lambda: here)
        kept._addresses = lambda peer: [f"/memory/{peer}"] * 9 + ["x" * 9_000]
        kept._is_member = lambda peer: peer in members
        await kept.note()
        assert [*kept.met][:3] == ["peer040", "peer041", "peer000"]
        assert len(kept.met) == MET_MAX
        assert {len(places) for places in kept.met.values()} == {4}

        # Who has gone is kept behind those who are there; nobody new is no news.
        here[:] = ["peer047"]
        await kept.note()
        assert [*kept.met][:3] == ["peer040", "peer041", "peer047"]
        mesh.crash("a")
        again = await mesh.restart("a")
        assert [*again.acquaintances.met][:3] == ["peer040", "peer041", "peer047"]

    play(story)
