"""A letter comes once, whoever dies or is away meanwhile; and nobody fills an inbox.

Real nodes in virtual time (a MockClock's).
"""

from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio

from meshnode.config import AccessConfig
from meshnode.errors import Busy, InputInvalid, MeshError, NotFound
from meshnode.node import Node
from meshnode.services.crash_points import read_crash_point
from meshnode.services.events import Happening
from meshnode.services.mail import LETTER, OUTBOX_DUE, SEEN
from meshnode.services.sessions import RequestFailed
from meshnode.services.signer import Topic
from protocol import limits
from protocol.errors import ErrorCode
from protocol.keys import digest
from protocol.mail import LetterAck, read_ack, sign_ack
from simulations.mesh import CONFIG, NETWORK, Down, SimMesh
from tests.meshnode.services.correspondence import (
    by_hand,
    ended,
    rows,
    settings,
    texts,
    two,
    write,
)
from tests.meshnode.services.worlds import play, start, told, until

HOUR_S = 3_600.0


async def refusal(node: Node, to: str, envelope: bytes) -> ErrorCode | int:
    with pytest.raises(RequestFailed) as caught:
        await node.sessions.request(to, LETTER, envelope, timeout_s=10)
    return caught.value.failure


# --- delivery ---


def test_a_letter_comes_and_is_acknowledged() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        name = await write(mesh, "At one?", subject="lunch")
        row = await ended(mesh, name)
        assert (row.state, row.code) == ("delivered", "")
        ((kept, came),) = await rows(bob)
        assert kept == name
        assert (came.sender, came.subject, came.kind) == (ada.peer, "lunch", "text/plain")
        assert (came.by, came.read_ms) == ("", 0)
        assert await texts(bob) == ["At one?"]
        assert ada.outbox.waiting == 0
        assert not mesh.members["ada"].disk.tables.get(OUTBOX_DUE)

    play(story)


def test_who_was_away_for_an_hour_gets_it_once() -> None:
    async def story(mesh: SimMesh) -> None:
        await two(mesh)
        tries: list[float] = []

        def notice(_: str, happening: Happening) -> None:
            if happening.name == "letter.undelivered":
                tries.append(trio.current_time())

        mesh.observers.append(notice)
        mesh.crash("bob")
        name = await write(mesh, "are you there?")
        await trio.sleep(HOUR_S)
        assert 10 < len(tries) < 40
        pauses = [later - sooner for sooner, later in pairwise(tries)]
        assert max(pauses[:3]) < 5, "short at first"
        assert min(pauses[-3:]) > 250, "they grow"
        assert max(pauses) <= 620, "to an end"
        bob = await mesh.restart("bob")
        assert (await ended(mesh, name, within_s=700)).state == "delivered"
        await trio.sleep(HOUR_S)
        assert await texts(bob) == ["are you there?"]

    play(story)


def test_a_session_that_opens_is_not_waited_for() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await two(mesh)
        mesh.crash("bob")
        name = await write(mesh, "hello")
        await trio.sleep(HOUR_S)
        bob = await mesh.restart("bob")
        await bob.sessions.connect(ada.peer)
        assert (await ended(mesh, name, within_s=2)).state == "delivered"

    play(story)


def test_many_letters_to_one_who_is_away_are_one_try() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await two(mesh)
        mesh.crash("bob")
        for number in range(50):
            await write(mesh, f"letter {number:02}")
        await trio.sleep(600)
        before = len(told(ada, "session.dial_failed"))
        await trio.sleep(HOUR_S)
        assert len(told(ada, "session.dial_failed")) - before < 15
        bob = await mesh.restart("bob")
        await until(lambda: ada.outbox.waiting == 0, within_s=700)
        assert await texts(bob) == [f"letter {number:02}" for number in range(50)]

    play(story)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("label", ["letter.written", "letter.kept", "letter.settled"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_letter_survives_the_death_of_everybody_at(label: str, side: str, seed: int) -> None:
    died: list[str] = []

    async def story(mesh: SimMesh) -> None:
        async def written(text: str, _: Node) -> str:
            return await write(mesh, text)

        await two(mesh)
        for name in ("ada", "bob"):
            point = read_crash_point(f"{side}:{label}")
            mesh.crash_at(name, point, partial(died.append, name))
        names: list[str] = []
        for number in range(3):
            with suppress(Down):  # it died, and nobody was told
                names.append(await mesh.ask("ada", partial(written, f"{number}")))
            await trio.sleep(0.2)
        await trio.sleep(5)
        for name in died:
            await mesh.restart(name)
        await until(lambda: mesh.node("ada").outbox.waiting == 0, within_s=700)
        came = await texts(mesh.node("bob"))
        assert len(came) == len(set(came)), "nothing twice"
        for name in names:
            assert (await mesh.node("ada").outbox.row(name)).state == "delivered"
            await mesh.node("bob").inbox.letter(name)

    play(story, seed=seed)
    assert died, "nobody got there: the point shows nothing"


def test_an_acknowledgement_that_is_lost_brings_nothing_twice() -> None:
    async def story(mesh: SimMesh) -> None:
        _, bob = await two(mesh)
        honest = bob.sessions.handler(LETTER)
        assert honest is not None
        silent = 3

        async def loses(incoming: Any) -> bytes:
            nonlocal silent
            answer = await honest(incoming)
            if silent:
                silent -= 1
                await trio.sleep_forever()
            return answer

        bob.sessions.handle(LETTER, loses)
        name = await write(mesh, "once")
        assert (await ended(mesh, name, within_s=120)).state == "delivered"
        assert await texts(bob) == ["once"]
        assert len(told(bob, "letter.repeated")) == 3

    play(story)


# --- dedup ---


def test_a_deleted_letter_does_not_come_back_not_even_after_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        envelope = by_hand(ada, bob.peer)
        first = await ada.sessions.request(bob.peer, LETTER, envelope, timeout_s=10)
        await bob.inbox.delete(digest(envelope).hex())
        mesh.crash("bob")
        bob = await mesh.restart("bob")
        await trio.sleep(2)
        again = await ada.sessions.request(bob.peer, LETTER, envelope, timeout_s=10)
        assert await rows(bob) == []
        for raw in (first, again):
            assert read_ack(raw, network=NETWORK).letter == digest(envelope)

    play(story)


def test_another_letter_under_one_id_is_refused() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        await ada.sessions.request(bob.peer, LETTER, by_hand(ada, bob.peer), timeout_s=10)
        other = by_hand(ada, bob.peer, sequence=77)
        assert await refusal(ada, bob.peer, other) == ErrorCode.STALE
        assert len(await rows(bob)) == 1

    play(story)


def test_ids_are_forgotten_when_no_letter_can_come_under_them() -> None:
    async def story(mesh: SimMesh) -> None:
        _, bob = await two(mesh)
        await ended(mesh, await write(mesh, "short", lifetime_s=60))
        await ended(mesh, await write(mesh, "long"))
        await trio.sleep(2 * HOUR_S)
        assert len(mesh.members["bob"].disk.tables[SEEN]) == 2
        await ended(mesh, await write(mesh, "another"))
        await trio.sleep(1)
        assert len(mesh.members["bob"].disk.tables[SEEN]) == 2
        assert await texts(bob) == ["another", "long", "short"]

    play(story)


# --- what is refused ---


def test_a_letter_that_nobody_took_in_time_has_failed() -> None:
    async def story(mesh: SimMesh) -> None:
        await two(mesh)
        mesh.crash("bob")
        name = await write(mesh, "today", lifetime_s=1_800)
        await trio.sleep(1_790)
        assert (await mesh.node("ada").outbox.row(name)).state == "waiting"
        await trio.sleep(15)
        row = await mesh.node("ada").outbox.row(name)
        assert (row.state, row.code) == ("failed", "letter.expired")
        bob = await mesh.restart("bob")
        await trio.sleep(HOUR_S)
        assert await rows(bob) == []

    play(story)


def test_what_is_wrong_with_a_letter_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        now_ms = ada.clock.now_ms()
        past: dict[str, Any] = {"issued_ms": now_ms - 200_000, "expires_ms": now_ms - 100_000}
        assert await refusal(ada, bob.peer, by_hand(ada, bob.peer, **past)) == ErrorCode.EXPIRED
        astray = by_hand(ada, ada.peer)
        assert await refusal(ada, bob.peer, astray) == ErrorCode.WRONG_AUDIENCE
        foreign = by_hand(bob, bob.peer)
        assert await refusal(ada, bob.peer, foreign) == ErrorCode.MALFORMED
        assert await refusal(ada, bob.peer, b"no letter") == ErrorCode.MALFORMED
        large = bytes(limits.LETTER_SIZE_MAX + 1)
        assert await refusal(ada, bob.peer, large) == ErrorCode.TOO_LARGE
        assert await rows(bob) == []

    play(story)


def test_a_stranger_may_not_write_and_is_told_at_once() -> None:
    async def story(mesh: SimMesh) -> None:
        closed = settings()
        closed = type(closed)(
            **{
                **{name: getattr(closed, name) for name in closed.__struct_fields__},
                "access": AccessConfig(),
            }
        )
        await mesh.start("ada", config=CONFIG)
        bob = await mesh.start("bob", config=closed)
        await until(lambda: len(mesh.node("ada").known()) == 2)
        row = await ended(mesh, await write(mesh, "buy this"))
        assert (row.state, row.code) == ("failed", "letter.refused")
        assert "members of its mesh" in row.text
        assert await rows(bob) == []

    play(story)


def test_who_has_written_enough_is_put_off_and_nothing_is_lost() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob, eve = await start(
            mesh, settings(sender_letters_max=2, letters_max=3), ada=(), bob=(), eve=()
        )
        names = [await write(mesh, f"letter {n}") for n in range(3)]
        await trio.sleep(5)
        assert await texts(bob) == ["letter 0", "letter 1"]
        assert "as many letters of yours" in str(told(ada, "letter.undelivered")[-1]["why"])
        assert ada.outbox.waiting == 1
        await ended(mesh, await write(mesh, "hello", by="eve"), by="eve")
        await write(mesh, "more", by="eve")
        await trio.sleep(5)
        assert "inbox is full" in str(told(eve, "letter.undelivered")[-1]["why"])
        await bob.inbox.delete(names[0])
        await until(lambda: not (ada.outbox.waiting and eve.outbox.waiting), within_s=1_300)
        for name, _ in await rows(bob):
            await bob.inbox.delete(name)
        await until(lambda: not (ada.outbox.waiting or eve.outbox.waiting), within_s=1_300)

    play(story)


def test_bytes_are_counted_too_and_again_after_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh, settings(sender_bytes_max=100_000))
        await ended(mesh, await write(mesh, "a" * 60_000))
        mesh.crash("bob")
        bob = await mesh.restart("bob")
        await trio.sleep(5)
        await write(mesh, "b" * 60_000)
        await trio.sleep(5)
        assert len(await rows(bob)) == 1
        large = by_hand(ada, bob.peer, body=b"c" * 60_000)
        with pytest.raises(Busy, match="as many letters of yours") as caught:
            await ada.sessions.request(bob.peer, LETTER, large, timeout_s=10)
        assert caught.value.retry_after_ms == 600_000

    play(story)


@pytest.mark.parametrize(
    "wrong",
    [
        {"body": bytes(limits.LETTER_BODY_SIZE_MAX + 1)},
        {"subject": "a" * (limits.LETTER_SUBJECT_SIZE_MAX + 1)},
        {"subject": "two\nlines"},
        {"lifetime_s": 0},
        {"lifetime_s": 31 * 86_400.0},
        {"kind": "No Kind"},
        {"peer": "bob"},
    ],
)
def test_what_can_not_be_a_letter_is_not_written(wrong: Any) -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        fields = {"peer": bob.peer, "body": b"x", **wrong}
        with pytest.raises(InputInvalid):
            await ada.outbox.write(**fields)
        assert await ada.outbox.rows() == []

    play(story)


def test_the_outbox_has_an_end() -> None:
    async def story(mesh: SimMesh) -> None:
        await two(mesh, settings(outbox_letters_max=2))
        mesh.crash("bob")
        names = [await write(mesh, str(n)) for n in range(2)]
        with pytest.raises(Busy, match="2 letters wait"):
            await write(mesh, "one more")
        await mesh.node("ada").outbox.delete(names[0])
        await write(mesh, "one more")

    play(story)


def test_a_letter_that_is_deleted_while_it_waits_is_not_sent() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, _ = await two(mesh)
        mesh.crash("bob")
        name = await write(mesh, "forget it")
        await trio.sleep(10)
        await ada.outbox.delete(name)
        with pytest.raises(NotFound):
            await ada.outbox.row(name)
        bob = await mesh.restart("bob")
        await trio.sleep(HOUR_S)
        assert await rows(bob) == []

    play(story)


@pytest.mark.parametrize("lie", ["another letter", "another signer", "another reader", "none"])
def test_a_false_acknowledgement_ends_nothing(lie: str) -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        honest = bob.sessions.handler(LETTER)
        assert honest is not None
        lies = 2

        async def answer(incoming: Any) -> bytes:
            nonlocal lies
            lies -= 1
            if lies < 0:
                return await honest(incoming)
            await trio.lowlevel.checkpoint()
            if lie == "none":
                return b""
            signer = ada if lie == "another signer" else bob
            to = bob.peer if lie == "another reader" else ada.peer
            ack = LetterAck(
                h=signer.outbox._context.signer.header(to, Topic()),
                letter=digest(b"x" if lie == "another letter" else incoming.body),
                sealed=b"",
                state="kept",
                reason="",
            )
            return sign_ack(signer._ports.identity, ack)

        bob.sessions.handle(LETTER, answer)
        name = await write(mesh, "sign here")
        await trio.sleep(0.5)
        assert (await ada.outbox.row(name)).state == "waiting"
        assert (await ended(mesh, name)).state == "delivered"
        assert await texts(bob) == ["sign here"]
        assert len(told(ada, "letter.ack_refused")) == 2

    play(story)


def test_a_full_disk_at_the_reader_only_delays() -> None:
    async def story(mesh: SimMesh) -> None:
        _, bob = await two(mesh)
        await trio.sleep(5)
        mesh.fill_disk("bob", count=2)
        name = await write(mesh, "later")
        assert (await ended(mesh, name)).state == "delivered"
        assert await texts(bob) == ["later"]

    play(story)


# --- the owner's side, and rest ---


def test_reading_is_noted_once() -> None:
    async def story(mesh: SimMesh) -> None:
        _, bob = await two(mesh)
        name = await write(mesh, "read me")
        await ended(mesh, name)
        first = await bob.inbox.mark_read(name)
        await trio.sleep(60)
        assert first.read_ms
        assert (await bob.inbox.mark_read(name)).read_ms == first.read_ms
        for missing in ("", "00" * 32):
            with pytest.raises(MeshError):
                await bob.inbox.mark_read(missing)

    play(story)


def test_with_nothing_to_send_nothing_wakes_up() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await two(mesh)
        await ended(mesh, await write(mesh, "done"))
        await trio.sleep(1)
        woken = [node.outbox._news for node in (ada, bob)]
        await trio.sleep(HOUR_S)
        assert [node.outbox._news for node in (ada, bob)] == woken, "the same wait"

    play(story)
