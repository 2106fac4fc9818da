"""What a mailbox can't do with what it keeps, and what it doesn't do for others.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import AccessConfig
from meshnode.services.mail import (
    ACKS,
    COLLECT,
    DEPOSIT,
    HELD,
    HELD_KEYS,
    KEY,
    WAITING,
)
from meshnode.services.sessions import RequestFailed
from protocol.codec import encode
from protocol.errors import ErrorCode
from protocol.keys import digest
from protocol.mailbox import (
    Acks,
    Collect,
    Collected,
    Deposit,
    Held,
    Inquiry,
    KeyQuery,
    KeyRecord,
    read_body,
)
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
from tests.meshnode.services.inviting import invited
from tests.meshnode.services.worlds import play, told, until

HOUR_S = 3_600.0


# --- what it can't do ---


def meddle(mesh: SimMesh, method: str, change: Any) -> None:
    """Have the mailbox answer otherwise than its code would."""
    box = mesh.node("box0")
    honest = box.sessions.handler(method)
    assert honest is not None

    async def answer(incoming: Any) -> bytes:
        raw: bytes = change(await honest(incoming))
        return raw

    box.sessions.handle(method, answer)


def test_it_can_not_read() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        mesh.crash("bob")
        await write(mesh, "the combination is 4711", subject="our safe")
        await trio.sleep(20)
        disk = b"".join(
            key.encode() + value
            for cells in mesh.members["box0"].disk.tables.values()
            for key, value in cells.items()
        )
        assert mesh.peer("bob").encode() in disk
        for secret in (b"combination", b"our safe", b"text/plain"):
            assert secret not in disk

    play(story)


def test_what_it_alters_is_noticed_and_the_letter_comes_all_the_same() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)

        def flip(raw: bytes) -> bytes:
            collected = read_body(raw, Collected)
            changed = [
                Held(
                    one.depositor,
                    one.sealed[:40] + bytes([one.sealed[40] ^ 1]) + one.sealed[41:],
                )
                for one in collected.letters
            ]
            return encode(Collected(changed, more=False))

        meddle(mesh, COLLECT, flip)
        mesh.crash("bob")
        name = await write(mesh, "ten")
        await trio.sleep(20)
        bob = await mesh.restart("bob")
        await until(lambda: bool(told(bob, "letter.unreadable")), within_s=60)
        assert (await ended(mesh, name, within_s=700)).state == "delivered"
        assert await texts(bob) == ["ten"]

    play(story)


def test_what_it_drops_comes_from_the_sender() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        meddle(mesh, COLLECT, lambda _: encode(Collected([], more=False)))
        mesh.crash("bob")
        name = await write(mesh, "still here")
        await trio.sleep(20)
        assert (await mesh.node("ada").outbox.row(name)).mailboxes
        bob = await mesh.restart("bob")
        assert (await ended(mesh, name, within_s=700)).state == "delivered"
        assert await texts(bob) == ["still here"]

    play(story)


def test_what_it_replays_comes_once() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        seen: list[Held] = []

        def replay(raw: bytes) -> bytes:
            seen.extend(read_body(raw, Collected).letters)
            return encode(Collected(seen[:1], more=False))

        meddle(mesh, COLLECT, replay)
        mesh.crash("bob")
        name = await write(mesh, "again and again")
        await trio.sleep(20)
        bob = await mesh.restart("bob")
        await until(lambda: bool(told(bob, "mailbox.endless")), within_s=60)
        assert await texts(bob) == ["again and again"]
        await bob.inbox.delete(name)
        await trio.sleep(2_000)
        assert await rows(bob) == []

    play(story)


def test_it_can_not_sign_for_the_recipient() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        box = mesh.node("box0")

        def lie(raw: bytes) -> bytes:
            asked = len(read_body(raw, Acks).acks)
            forged = box.inbox.refuse(
                mesh.peer("ada"), digest(b"x"), sealed=digest(b"y"), reason="lost"
            )
            return encode(Acks([forged] * asked))

        meddle(mesh, ACKS, lie)
        mesh.crash("bob")
        name = await write(mesh, "signed, Bob")
        await trio.sleep(60)
        assert (await mesh.node("ada").outbox.row(name)).state == "waiting"
        assert told(mesh.node("ada"), "letter.ack_refused")

    play(story)


# --- what it doesn't do for others ---


def test_it_hands_out_letters_to_their_recipient_and_acks_to_their_depositor() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        eve = await mesh.start("eve", config=CONFIG)
        mesh.crash("bob")
        name = await write(mesh, "for Bob only")
        await trio.sleep(20)
        box = mesh.peer("box0")
        raw = await ask(eve, box, COLLECT, Collect(b"", []))
        assert read_body(raw, Collected).letters == []
        seal = (await mesh.node("ada").outbox.row(name)).seal
        forged = eve.inbox.refuse(mesh.peer("ada"), b"", sealed=seal, reason="gone")
        await ask(eve, box, COLLECT, Collect(b"", [forged]))
        await ask(eve, box, ACKS, Inquiry([], [seal]))
        assert len(held(mesh, "box0")) == 1
        mesh.crash("ada")
        await mesh.restart("bob")
        await trio.sleep(30)
        assert len(held(mesh, "box0", HELD)) == 1, "what Bob signed waits for Ada"
        raw = await ask(eve, box, ACKS, Inquiry([seal], []))
        assert read_body(raw, Acks).acks == [b""]

    play(story)


def test_a_recipient_can_not_sign_in_another_name() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, bob, box = mesh.node("ada"), mesh.node("bob"), mesh.peer("box0")
        sealed = b"x" * 100
        deposit = Deposit(bob.peer, ada.clock.now_ms() + 60_000, sealed)
        bob.sessions.handle(WAITING, ada.sessions.handler(WAITING))  # type: ignore[arg-type]
        await ask(ada, box, DEPOSIT, deposit)
        name = digest(sealed)
        forged = ada.inbox.refuse(ada.peer, b"", sealed=name, reason="gone")
        raw = await ask(bob, box, COLLECT, Collect(b"", [forged]))
        assert [one.sealed for one in read_body(raw, Collected).letters] == [sealed]
        own = bob.inbox.refuse(ada.peer, b"", sealed=name, reason="gone")
        raw = await ask(bob, box, COLLECT, Collect(b"", [own]))
        assert read_body(raw, Collected).letters == []
        raw = await ask(ada, box, ACKS, Inquiry([name], []))
        assert read_body(raw, Acks).acks == [own]

    play(story)


def test_a_key_is_the_record_that_its_owner_brought() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, box = mesh.node("ada"), mesh.peer("box0")
        del held(mesh, "box0", HELD_KEYS)[ada.peer]
        with pytest.raises(RequestFailed):
            await ask(ada, box, COLLECT, Collect(mesh.node("bob").directory.own, []))
        raw = await ask(ada, box, KEY, KeyQuery(mesh.peer("bob")))
        assert read_body(raw, KeyRecord).record
        raw = await ask(ada, box, KEY, KeyQuery(mesh.identity("nobody").peer))
        assert read_body(raw, KeyRecord).record == b""

    play(story)


def test_nobody_is_dialled_because_a_depositor_names_him() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, box = mesh.node("ada"), mesh.node("box0")
        until_ms = ada.clock.now_ms() + 60_000
        for number in range(3):
            nobody = mesh.identity(f"nobody{number}").peer
            await ask(ada, box.peer, DEPOSIT, Deposit(nobody, until_ms, b"sealed"))
        await trio.sleep(30)
        dialled = {event["peer"] for event in told(box, "session.dial_failed")}
        assert not dialled & {mesh.identity(f"nobody{number}").peer for number in range(3)}
        assert not told(box, "mailbox.untold")

    play(story)


def test_strangers_leave_and_learn_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        members = msgspec.structs.replace(keeping(), access=AccessConfig())
        await mesh.start("box0", config=members)
        eve = await mesh.start("eve", config=CONFIG)
        await trio.sleep(3)
        box = mesh.peer("box0")
        deposit = Deposit(eve.peer, eve.clock.now_ms() + 60_000, b"sealed")
        for method, body in (
            (DEPOSIT, deposit),
            (COLLECT, Collect(b"", [])),
            (ACKS, Inquiry([], [])),
            (KEY, KeyQuery(eve.peer)),
        ):
            with pytest.raises(RequestFailed) as caught:
                await ask(eve, box, method, body)
            assert caught.value.failure == ErrorCode.REFUSED
        assert not held(mesh, "box0", HELD)

    play(story)


def test_who_says_that_something_waits_is_not_gone_to_unless_it_is_a_mailbox() -> None:
    async def story(mesh: SimMesh) -> None:
        await three(mesh)
        ada, bob = mesh.node("ada"), mesh.node("bob")
        asked: list[str] = []

        async def count(incoming: Any) -> bytes:
            asked.append(incoming.peer)
            await trio.lowlevel.checkpoint()
            return encode(Collected([], more=False))

        ada.sessions.handle(COLLECT, count)
        await ada.sessions.request(bob.peer, WAITING, b"", timeout_s=5)
        await trio.sleep(5)
        assert asked == []

    play(story)


def test_a_member_that_was_never_met_is_known_by_its_chain() -> None:
    async def story(mesh: SimMesh) -> None:
        keeper = msgspec.structs.replace(keeping(), access=AccessConfig())
        box = await mesh.start("box0", config=keeper)
        await invited(mesh, "box0", "bob")
        await trio.sleep(5)
        mesh.crash("bob")
        await invited(mesh, "box0", "ada")
        await trio.sleep(5)
        name = await write(mesh, "from one of yours")
        await trio.sleep(20)
        assert (await mesh.node("ada").outbox.row(name)).mailboxes == [box.peer]
        mesh.crash("ada")
        bob = await mesh.restart("bob")
        await trio.sleep(30)
        assert await texts(bob) == ["from one of yours"]
        assert bob.members.standing(mesh.peer("ada")) == "member"

    play(story)


def test_a_mailbox_that_is_no_member_is_not_used() -> None:
    async def story(mesh: SimMesh) -> None:
        keeper = msgspec.structs.replace(keeping(), access=AccessConfig())
        box = await mesh.start("box0", config=keeper)
        eve = await mesh.start("eve", config=keeping())  # keeps for anyone
        honest = eve.sessions.handler(COLLECT)
        assert honest is not None
        collected: list[str] = []

        async def noticed(incoming: Any) -> bytes:
            collected.append(incoming.peer)
            return await honest(incoming)

        eve.sessions.handle(COLLECT, noticed)
        for name in ("bob", "ada"):
            await invited(mesh, "box0", name)
        ada, bob = mesh.node("ada"), mesh.node("bob")
        both = [ada.directory, bob.directory]
        await until(lambda: all(len(one.featuring("mailbox")) == 2 for one in both))
        await eve.sessions.request(bob.peer, WAITING, b"", timeout_s=5)
        await trio.sleep(20)
        assert not {bob.peer, ada.peer} & set(collected)
        mesh.crash("bob")
        name = await write(mesh, "among ourselves")
        await trio.sleep(60)
        assert (await ada.outbox.row(name)).mailboxes == [box.peer]
        assert not held(mesh, "eve")

    play(story)


def test_a_stranger_is_refused_on_the_way_round_too() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("box0", config=keeping())  # keeps for anyone
        await invited(mesh, "box0", "bob")
        await mesh.start("ada", config=CONFIG)
        await until(lambda: len(mesh.node("ada").known()) == 3)
        await trio.sleep(2)
        mesh.crash("bob")
        name = await write(mesh, "buy this")
        await trio.sleep(20)
        apart(mesh)
        bob = await mesh.restart("bob")
        row = await ended(mesh, name, within_s=700)
        assert (row.state, row.code) == ("failed", "letter.refused")
        assert await rows(bob) == []

    play(story)
