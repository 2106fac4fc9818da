"""What goes wrong with one letter, or is taken back meanwhile, and ends no node.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import pytest
import trio

from meshnode.errors import NotFound, StoreError
from meshnode.services.mail import DEPOSIT, OUTBOX, OUTBOX_SEALED
from meshnode.services.outbox import Route
from protocol.errors import Malformed
from simulations.mesh import SimMesh
from tests.meshnode.services.correspondence import ended, held, texts, three, two, write
from tests.meshnode.services.worlds import play, told, until


def test_what_can_not_be_sealed_is_told_and_the_node_lives() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada = mesh.node("ada")
        honest = ada.depositing._key

        async def no_key(*_: Any) -> bytes:
            await trio.lowlevel.checkpoint()
            return bytes(32)

        ada.depositing._key = no_key  # type: ignore[method-assign, assignment]
        mesh.crash("bob")
        first, second = [await write(mesh, text) for text in ("one", "two")]
        for name in (first, second):
            row = await ended(mesh, name)
            assert (row.state, row.code) == ("failed", "letter.unsealable")
        ada.depositing._key = honest  # type: ignore[method-assign]
        third = await write(mesh, "three")
        await until(lambda: len(held(mesh, "box0")) == 1, within_s=60)
        await mesh.restart("bob")
        assert (await ended(mesh, third)).state == "delivered"

    play(story)


@pytest.mark.parametrize("fault", [StoreError("disk full"), Malformed("odd")])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_fault_on_the_way_round_ends_no_node(fault: Exception, deleted: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        faults: list[str] = []

        async def fails(route: Route) -> None:
            faults.append(route.peer)
            if deleted and len(faults) == 1:
                await ada.outbox.delete(name)
            raise fault

        ada.outbox.detour_by(fails)
        mesh.crash("bob")
        name = await write(mesh, "one")
        await until(lambda: bool(told(ada, "outbox.held_up")), within_s=60)
        assert set(faults) == {bob.peer}
        last = await write(mesh, "two") if deleted else name
        bob = await mesh.restart("bob")
        assert (await ended(mesh, last, within_s=700)).state == "delivered"
        assert await texts(bob) == ["two" if deleted else "one"]

    play(story)


def test_what_its_owner_deletes_while_it_is_left_does_not_come_back() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, box = mesh.node("ada"), mesh.node("box0")
        honest = box.sessions.handler(DEPOSIT)
        assert honest is not None

        async def meanwhile(incoming: Any) -> bytes:
            answer = await honest(incoming)
            await ada.outbox.delete(name)
            return answer

        box.sessions.handle(DEPOSIT, meanwhile)
        mesh.crash("bob")
        name = await write(mesh, "never mind")
        await until(lambda: bool(told(ada, "letter.deleted")), within_s=60)
        await trio.sleep(30)
        with pytest.raises(NotFound):
            await ada.outbox.row(name)
        for table in (OUTBOX, OUTBOX_SEALED):
            assert not held(mesh, "ada", table)

    play(story)


def test_what_is_noted_of_a_letter_waits_for_its_delete_and_is_nothing_then() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await two(mesh)
        mesh.crash("bob")
        name = await write(mesh, "never mind")
        row = await ada.outbox.row(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ada.outbox.delete, name)
            await trio.sleep(0.0001)  # its commit is under way
            assert await ada.outbox.row(name) == row
            assert not await ada.outbox.note(name, row)
        with pytest.raises(NotFound):
            await ada.outbox.row(name)

    play(story)
