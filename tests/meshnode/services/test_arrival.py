"""What a node is told of where it has come to, as soon as that is known.

In virtual time (a MockClock's).
"""

import msgspec
import trio

from meshnode.node import Node
from simulations.mesh import SimMesh
from tests.meshnode.services.inviting import STRICT, holding, invited, token_of
from tests.meshnode.services.worlds import play, told, until

NO_DHT = msgspec.structs.replace(STRICT.directory, dht=False)
QUIET = msgspec.structs.replace(STRICT, directory=NO_DHT)


async def noted(node: Node) -> tuple[str, float]:
    """Return what ``node`` is told, and after how long, seconds."""
    begun_s = trio.current_time()
    text = await node.arrival.text(within_s=2.0)
    return text, trio.current_time() - begun_s


def test_who_was_told_nobody_is_told_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        text, took_s = await noted(await mesh.start("a", config=QUIET))
        assert text == ""
        assert took_s < 0.1

    play(story)


def test_a_node_that_finds_nobody_is_told_so_and_that_it_keeps_trying() -> None:
    async def story(mesh: SimMesh) -> None:
        b = await mesh.start("b", config=QUIET)
        (address,) = b.addresses
        mesh.crash("b")
        a = await mesh.start("a", config=holding(address, config=QUIET))
        text, took_s = await noted(a)
        assert text.startswith(f"nobody has answered at {address} yet; this node keeps trying")
        assert took_s <= 2.0
        await mesh.restart("b")
        await until(lambda: bool(a.sessions.connected()))
        assert "nobody" not in (await noted(a))[0]

    play(story)


def test_a_node_that_joined_by_an_address_is_told_that_it_is_a_stranger() -> None:
    async def story(mesh: SimMesh) -> None:
        founder = await mesh.start("a", config=QUIET)
        await invited(mesh, "a", "b", config=QUIET)
        c = await mesh.start("c", config=holding(*mesh.node("b").addresses, config=QUIET))
        text, took_s = await noted(c)
        assert f"no member of the mesh of {mesh.peer('b')}" in text
        assert "start with --join INVITE" in text
        assert took_s < 1.0
        await trio.sleep(60)
        assert [row["peer"] for row in told(c, "membership.stranger")] == [mesh.peer("b")]
        assert told(founder, "membership.stranger") == []

    play(story)


def test_a_member_is_told_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a", config=QUIET)
        b = await invited(mesh, "a", "b", config=QUIET)
        assert (await noted(b))[0] == ""
        await trio.sleep(60)
        assert told(b, "membership.stranger") == []

    play(story)


def test_a_node_whose_inviter_comes_late_is_no_stranger_meanwhile() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=QUIET)
        token = await token_of(a)
        mesh.crash("a")
        b = await mesh.start("b", config=holding(token, config=QUIET))
        assert "nobody has answered" in (await noted(b))[0]
        await mesh.restart("a")
        await until(lambda: b.members.is_member(mesh.peer("a")), within_s=60)
        assert (await noted(b))[0] == ""
        assert told(b, "membership.stranger") == []

    play(story)


def test_who_is_found_late_is_asked_at_once() -> None:
    async def story(mesh: SimMesh) -> None:
        b = await mesh.start("b", config=QUIET)
        mesh.crash("b")
        a = await mesh.start("a", config=holding(*b.addresses, config=QUIET))
        await trio.sleep(30)
        assert told(a, "membership.stranger") == []
        await mesh.restart("b")
        await until(lambda: bool(a.sessions.connected()))
        await until(lambda: bool(told(a, "membership.stranger")), within_s=1)

    play(story)
