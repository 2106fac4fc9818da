"""When a mailbox keeps a letter no longer, and what its sender does then.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import pytest
import trio

from meshnode.services.mail import (
    COLLECT,
    HELD,
    HELD_BY,
    HELD_SEALED,
)
from protocol.codec import encode
from protocol.mailbox import Collected
from simulations.mesh import SimMesh
from tests.meshnode.services.correspondence import (
    ended,
    held,
    rows,
    texts,
    three,
    write,
)
from tests.meshnode.services.worlds import play, told, until


@pytest.mark.parametrize("how", ["straight", "deleted"])
def test_what_waits_no_longer_is_kept_nowhere(how: str) -> None:
    async def story(mesh: SimMesh) -> None:
        names = await three(mesh, boxes=2)
        for box in names:  # who lets nothing be collected
            deaf = mesh.node(box).sessions

            async def nothing(_: Any) -> bytes:
                await trio.lowlevel.checkpoint()
                return encode(Collected([], more=False))

            deaf.handle(COLLECT, nothing)
        mesh.crash("bob")
        name = await write(mesh, "which way?")
        await until(lambda: all(held(mesh, box) for box in names), within_s=60)
        if how == "straight":
            await mesh.restart("bob")
            assert (await ended(mesh, name, within_s=700)).state == "delivered"
            assert len(await rows(mesh.node("bob"))) == 1
        else:
            await mesh.node("ada").outbox.delete(name)
        await trio.sleep(5)
        for table in (HELD, HELD_SEALED, HELD_BY):
            assert not any(held(mesh, box, table) for box in names)

    play(story)


def test_what_a_mailbox_has_forgotten_is_left_there_again() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, keep_s=2_000.0)
        mesh.crash("bob")
        name = await write(mesh, "patience")
        await until(lambda: bool(held(mesh, "box0")), within_s=60)
        await trio.sleep(2_100)
        await until(lambda: bool(told(mesh.node("ada"), "letter.forgotten")), within_s=700)
        await until(lambda: bool(held(mesh, "box0")), within_s=60)
        await trio.sleep(1)
        assert len((await mesh.node("ada").outbox.row(name)).mailboxes) == 1
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(60)
        assert await texts(bob) == ["patience"]

    play(story)


def test_a_mailbox_that_was_away_is_told_when_it_is_back() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        mesh.crash("bob")
        name = await write(mesh, "never mind")
        await until(lambda: bool(told(mesh.node("ada"), "letter.deposited")), within_s=60)
        await trio.sleep(1)
        mesh.crash("box0")
        await mesh.node("ada").outbox.delete(name)
        await trio.sleep(60)
        assert len(held(mesh, "box0")) == 1
        await mesh.restart("box0")
        await until(lambda: not held(mesh, "box0", HELD), within_s=300)

    play(story)
