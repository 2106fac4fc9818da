"""A mailbox carries letters between two who never meet, and can do nothing else with them.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import pytest
import trio

from meshnode.errors import Busy, MeshError
from meshnode.services.crash_points import read_crash_point
from meshnode.services.mail import (
    COLLECT,
    DEPOSIT,
    HELD,
    HELD_BY,
    HELD_SEALED,
    OUTBOX_SEALED,
    WAITING,
    ranked,
)
from protocol import limits
from protocol.keys import digest
from protocol.mailbox import Collect, Deposit
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.correspondence import (
    apart,
    ask,
    ended,
    held,
    keeping,
    rows,
    texts,
    three,
    write,
)
from tests.meshnode.services.worlds import play, told, until

HOUR_S = 3_600.0


# --- carrying ---


def test_two_who_are_never_up_together_reach_each_other() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        mesh.crash("bob")
        name = await write(mesh, "the key is under the mat", subject="key")
        await trio.sleep(20)
        assert len((await mesh.node("ada").outbox.row(name)).mailboxes) == 1
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(30)
        assert await texts(bob) == ["the key is under the mat"]
        ((_, row),) = await rows(bob)
        assert row.by == mesh.peer("box0")
        assert not held(mesh, "box0"), "it was signed for"
        mesh.crash("bob")
        await trio.sleep(HOUR_S)
        await mesh.restart("ada")
        assert (await ended(mesh, name, within_s=120)).state == "delivered"
        await trio.sleep(1)
        assert not held(mesh, "box0", HELD), "nothing is left of it"
        assert not held(mesh, "box0", HELD_BY)
        assert not mesh.members["ada"].disk.tables[OUTBOX_SEALED]

    play(story)


def test_the_sender_need_not_have_seen_the_recipient() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("box0", config=keeping())
        await mesh.start("bob", config=CONFIG)
        await trio.sleep(5)
        mesh.crash("bob")
        await trio.sleep(HOUR_S)  # until everybody has forgotten its record
        await mesh.start("ada", config=CONFIG)
        await until(lambda: len(mesh.node("ada").known()) == 2)
        name = await write(mesh, "hello")
        await trio.sleep(30)
        assert (await mesh.node("ada").outbox.row(name)).mailboxes
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(30)
        assert await texts(bob) == ["hello"]

    play(story)


def test_whoever_is_there_is_told_at_once() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        apart(mesh)
        name = await write(mesh, "round the corner")
        await until(lambda: bool(told(mesh.node("bob"), "letter.kept")), within_s=40)
        assert await texts(mesh.node("bob")) == ["round the corner"]
        row = await ended(mesh, name, within_s=120)
        assert row.state == "delivered"

    play(story)


def test_two_mailboxes_keep_it_and_it_comes_once() -> None:
    async def story(mesh: SimMesh) -> None:
        names = await three(mesh, boxes=3)
        mesh.crash("bob")
        name = await write(mesh, "twice is enough")
        await trio.sleep(30)
        row = await mesh.node("ada").outbox.row(name)
        best = ranked(mesh.peer("bob"), [mesh.peer(one) for one in names])[:2]
        assert row.mailboxes == best
        keepers = [one for one in names if held(mesh, one)]
        assert [mesh.peer(one) for one in keepers] == sorted(best, key=mesh.name)
        mesh.crash("ada")
        mesh.crash(keepers[0])
        bob = await mesh.restart("bob")
        await trio.sleep(60)
        assert await texts(bob) == ["twice is enough"]
        await mesh.restart(keepers[0])
        await trio.sleep(2_000)
        assert await texts(bob) == ["twice is enough"]
        assert not any(held(mesh, one) for one in names)

    play(story)


def test_many_letters_are_collected_piece_by_piece() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        mesh.crash("bob")
        for number in range(limits.DEPOSITS_MAX + 5):
            await write(mesh, f"{number:02}")
        for _ in range(3):
            await write(mesh, "large" * 13_000)
        await until(lambda: len(held(mesh, "box0")) == limits.DEPOSITS_MAX + 8, within_s=120)
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(60)
        assert len(await rows(bob)) == limits.DEPOSITS_MAX + 8
        assert not held(mesh, "box0")

    play(story)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(
    ("who", "label"),
    [
        ("box0", "letter.deposited"),
        ("box0", "letter.collected"),
        ("bob", "letter.kept"),
        ("ada", "letter.settled"),
    ],
)
def test_a_letter_survives_a_death_on_the_way_round(who: str, label: str, side: str) -> None:
    died: list[str] = []

    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        apart(mesh)
        mesh.crash_at(who, read_crash_point(f"{side}:{label}"), lambda: died.append(who))
        name = await write(mesh, "mind the gap")
        await trio.sleep(60)
        if not mesh.up(who):
            await mesh.restart(who)
        await trio.sleep(2_000)
        assert (await mesh.node("ada").outbox.row(name)).state == "delivered"
        assert await texts(mesh.node("bob")) == ["mind the gap"]

    play(story)
    assert died == [who]


def test_mailboxes_share_recipients_and_everybody_comes_to_the_same_order() -> None:
    boxes = [f"box{n}" for n in range(8)]
    orders = [ranked(f"recipient{n}", boxes) for n in range(40)]
    assert all(sorted(order) == boxes for order in orders)
    assert len({order[0] for order in orders}) >= 6
    assert orders == [ranked(f"recipient{n}", reversed(boxes)) for n in range(40)]


def test_whoever_stirs_does_not_put_off_the_quarter_hourly_look() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, bob, box = (mesh.node(name) for name in ("ada", "bob", "box0"))
        await trio.sleep(30)
        honest = box.sessions.handler(COLLECT)
        assert honest is not None
        looks: list[float] = []

        async def counted(incoming: Any) -> bytes:
            if incoming.peer == bob.peer:
                looks.append(trio.current_time())
            return await honest(incoming)

        box.sessions.handle(COLLECT, counted)
        for _ in range(40):
            await ada.sessions.request(bob.peer, WAITING, b"", timeout_s=5)
            bob.collecting._stir.set()  # as news does
            await trio.sleep(100)
        assert 3 <= len(looks) <= 6

    play(story)


def test_who_is_no_mailbox_wakes_nobody() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, bob = mesh.node("ada"), mesh.node("bob")
        await trio.sleep(30)
        wait = bob.collecting._stir
        await ada.sessions.request(bob.peer, WAITING, b"", timeout_s=5)
        await trio.sleep(1)
        assert bob.collecting._stir is wait

    play(story)


# --- limits ---


@pytest.mark.parametrize(
    ("limit", "told_"),
    [
        ({"peer_letters_max": 2}, "by you"),
        ({"peer_bytes_max": 2_500}, "by you"),
        ({"letters_max": 2}, "is full"),
        ({"bytes_max": 2_500}, "is full"),
    ],
)
def test_each_has_a_share(limit: dict[str, int], told_: str) -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, **limit)
        ada, box = mesh.node("ada"), mesh.peer("box0")
        until_ms = ada.clock.now_ms() + 3_600_000

        async def leave(number: int) -> None:
            to = mesh.identity(f"away{number}").peer
            await ask(ada, box, DEPOSIT, Deposit(to, until_ms, bytes([number]) * 1_000))

        await leave(1)
        await leave(2)
        with pytest.raises(Busy, match=told_) as caught:
            await leave(3)
        assert caught.value.retry_after_ms == 600_000
        await leave(2)  # it is there already
        mesh.crash("box0")
        await mesh.restart("box0")
        await trio.sleep(3)
        with pytest.raises(Busy, match=told_):
            await leave(3)

    play(story)


def test_an_acknowledgement_counts_once_however_often_it_is_said() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, bob, box = mesh.node("ada"), mesh.node("bob"), mesh.node("box0")
        mailbox = box.mailbox
        assert mailbox is not None
        until_ms = ada.clock.now_ms() + 3_600_000
        bob.sessions.handle(WAITING, ada.sessions.handler(WAITING))  # type: ignore[arg-type]
        for text in (b"a" * 1_000, b"b" * 1_000):
            await ask(ada, box.peer, DEPOSIT, Deposit(bob.peer, until_ms, text))
        signed = bob.inbox.refuse(ada.peer, b"", sealed=digest(b"a" * 1_000), reason="x")
        await ask(bob, box.peer, COLLECT, Collect(b"", [signed] * limits.DEPOSITS_MAX))
        assert mailbox._all.count("") == 2
        assert mailbox._all.size("") == 1_000 + len(signed)
        assert mailbox._depositors.size(ada.peer) == 1_000 + len(signed)

    play(story)


def test_one_recipient_has_a_share_too() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, peer_letters_max=2)
        until_ms = mesh.node("ada").clock.now_ms() + 3_600_000
        to, box = mesh.identity("away").peer, mesh.peer("box0")
        for number, by in enumerate(("ada", "bob")):
            await ask(mesh.node(by), box, DEPOSIT, Deposit(to, until_ms, bytes([number])))
        with pytest.raises(Busy, match="for that node"):
            await ask(mesh.node("bob"), box, DEPOSIT, Deposit(to, until_ms, b"x"))

    play(story)


def test_one_depositor_does_not_shut_a_recipient_off() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, peer_letters_max=16)
        until_ms = mesh.node("ada").clock.now_ms() + 3_600_000
        to, box = mesh.identity("away").peer, mesh.peer("box0")

        async def leave(by: str, number: int) -> None:
            deposit = Deposit(to, until_ms, by.encode() + bytes([number]))
            await ask(mesh.node(by), box, DEPOSIT, deposit)

        for number in range(2):
            await leave("ada", number)
        with pytest.raises(Busy, match="by you for that node"):
            await leave("ada", 3)
        await leave("bob", 1)

    play(story)


def test_what_is_signed_for_takes_no_room_of_its_recipient() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, peer_letters_max=2)
        mesh.crash("bob")
        await write(mesh, "one")
        await until(lambda: len(held(mesh, "box0")) == 1, within_s=60)
        mesh.crash("ada")
        await mesh.restart("bob")
        await until(lambda: not held(mesh, "box0"), within_s=60)
        assert len(held(mesh, "box0", HELD)) == 1, "for Ada, who is away"
        mailbox = mesh.node("box0").mailbox
        assert mailbox is not None
        assert mailbox._recipients.count(mesh.peer("bob")) == 0
        assert mailbox._all.count("") == 1
        mesh.crash("box0")
        box = await mesh.restart("box0")
        await trio.sleep(5)
        assert box.mailbox is not None
        assert box.mailbox._recipients.count(mesh.peer("bob")) == 0
        assert box.mailbox._all.count("") == 1

    play(story)


def test_what_has_expired_goes_and_makes_room() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh, letters_max=2, keep_s=1_000.0)
        ada, box = mesh.node("ada"), mesh.peer("box0")
        now_ms = ada.clock.now_ms()
        to = mesh.identity("away").peer
        await ask(ada, box, DEPOSIT, Deposit(to, now_ms + 200_000, b"soon"))
        await ask(ada, box, DEPOSIT, Deposit(to, now_ms + 9_000_000, b"late"))
        with pytest.raises(MeshError, match="nobody wants"):
            await ask(ada, box, DEPOSIT, Deposit(to, now_ms, b"past"))
        await trio.sleep(300)
        assert [*held(mesh, "box0").values()] == [b"late"]
        await ask(ada, box, DEPOSIT, Deposit(to, now_ms + 9_000_000, b"more"))
        await trio.sleep(2_000)
        for table in (HELD, HELD_SEALED, HELD_BY):
            assert not held(mesh, "box0", table)

    play(story)


def test_a_full_inbox_leaves_letters_at_the_mailbox() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        mesh.crash("bob")
        names = [await write(mesh, f"{n}") for n in range(3)]
        await until(lambda: len(held(mesh, "box0")) == 3, within_s=60)
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        bob.inbox._senders.count_max = 2
        await trio.sleep(30)
        assert len(await rows(bob)) == 2
        assert len(held(mesh, "box0")) == 1
        for name, _ in await rows(bob):
            await bob.inbox.delete(name)
        await trio.sleep(1_200)
        ((name, _),) = await rows(bob)
        assert name in names
        assert not held(mesh, "box0")

    play(story)


def test_letters_that_are_put_off_hide_nobody_elses() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        await mesh.start("eve", config=CONFIG)
        await trio.sleep(5)
        mesh.crash("bob")
        many = 2 * limits.DEPOSITS_MAX - 10
        for number in range(many):
            await write(mesh, f"{number}")
        await until(lambda: len(held(mesh, "box0")) == many, within_s=60)
        await write(mesh, "me too", by="eve")
        await until(lambda: len(held(mesh, "box0")) == many + 1, within_s=60)
        mesh.crash("ada")
        mesh.crash("eve")
        bob = await mesh.restart("bob")
        bob.inbox._senders.count_max = 2
        await trio.sleep(60)
        assert "me too" in await texts(bob)
        assert len(await rows(bob)) == 3
        assert len(held(mesh, "box0")) == many - 2

    play(story)


# --- rest, and what it is not ---


def test_a_mailbox_looks_like_no_agent() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, box = mesh.node("ada"), mesh.peer("box0")
        assert ada.directory.featuring("mailbox") == [box]
        (record,) = [record for record in ada.known() if record.peer == box]
        assert record.capabilities == []
        assert await ada.directory.search("mesh.mailbox", timeout_s=5) == []
        assert await ada.directory.search_featuring("mailbox", timeout_s=5) == [box]

    play(story)


def test_where_there_is_no_mailbox_nothing_wakes_up() -> None:
    async def story(mesh: SimMesh) -> None:
        for name in ("ada", "bob"):
            await mesh.start(name, config=CONFIG)
        await trio.sleep(10)
        waits = [mesh.node(name).collecting._stir for name in ("ada", "bob")]
        await trio.sleep(HOUR_S)
        assert [mesh.node(name).collecting._stir for name in ("ada", "bob")] == waits

    play(story)


def test_a_mailbox_with_nothing_to_keep_rests() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        box = mesh.node("box0").mailbox
        assert box is not None
        wait = box._stir
        await trio.sleep(HOUR_S)
        assert box._stir is wait

    play(story)
