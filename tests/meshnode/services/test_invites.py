"""An invite lets in whom it may, once for each use, and says why when it does not.

In virtual time (a MockClock's), on real nodes and simulated ports.
"""

from typing import Any

import pytest
import trio

from meshnode.errors import InputInvalid, MeshError, NotFound
from meshnode.node import Node
from meshnode.services.invites import InviteRefused
from protocol import limits
from protocol.codec import encode
from protocol.invites import Invite, read_token
from protocol.keys import digest
from protocol.membership import Join, Joined
from simulations.mesh import SimMesh
from tests.meshnode.services.inviting import (
    STRICT,
    holding,
    invited,
    joined,
    row_of,
    token_of,
)
from tests.meshnode.services.worlds import (
    play,
    told,
    until,
)


def test_a_use_is_counted_once_for_a_member_however_often_it_asks() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await mesh.start("b", config=STRICT)
        token = await token_of(a, uses=2)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: joined(b, a, token=token))
        assert (await row_of(a, token)).used == 1
        mesh.crash("a")
        a = await mesh.restart("a")
        assert (await joined(b, a, token=token)).links, "and after a restart"
        assert (await row_of(a, token)).used == 1
        c, d = await mesh.start("c", config=STRICT), await mesh.start("d", config=STRICT)
        answers: list[Joined] = []

        async def come(node: Node) -> None:
            answers.append(await joined(node, a, token=token))

        async with trio.open_nursery() as nursery:  # one place is left for two
            nursery.start_soon(come, c)
            nursery.start_soon(come, d)
        assert sorted(answer.reason for answer in answers) == ["", "used"]
        assert (await row_of(a, token)).used == 2

    play(story)


def test_an_invite_that_can_not_be_taken_says_why() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await mesh.start("b", config=STRICT)
        brief = await token_of(a, lifetime_s=10.0)
        revoked = await token_of(a)
        await a.invites.revoke(read_token(revoked).invite.hex())
        await trio.sleep(11)
        guessed = read_token(await token_of(a))
        body = encode(Join(guessed.invite, bytes(limits.INVITE_SECRET_SIZE)))
        assert (await joined(b, a, token=brief)).reason == "expired"
        assert (await joined(b, a, token=revoked)).reason == "revoked"
        assert (await joined(b, a, body)).reason == "unknown"
        nobody = encode(Join(bytes(8), guessed.secret))
        assert (await joined(b, a, nobody)).reason == "unknown"
        assert a.members.edges() == []
        with pytest.raises(NotFound, match="no invite 'ff'"):
            await a.invites.revoke("ff")

    play(story)


def test_a_member_has_its_chain_again_by_an_invite_that_has_lapsed() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await mesh.start("b", config=STRICT)
        token = await token_of(a, lifetime_s=10.0)
        assert (await joined(b, a, token=token)).links
        await trio.sleep(11)
        assert (await joined(b, a, token=token)).links
        await a.invites.revoke(read_token(token).invite.hex())
        assert (await joined(b, a, token=token)).reason == "revoked"

    play(story)


def test_a_node_whose_only_invite_is_refused_does_not_start() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        token = await token_of(a, lifetime_s=5.0)
        await trio.sleep(6)
        await mesh.start("b", config=holding(token))
        (death,) = mesh.failures
        mesh.failures.clear()
        assert f"InviteRefused: the invite by {a.peer} has expired" in death
        # One that does is enough.
        good = await token_of(a)
        c = await mesh.start("c", config=holding(token, good))
        assert c.members.lineage.inviter == a.peer

    play(story)


@pytest.mark.parametrize(
    ("offset_ms", "says"),
    [
        (0, "ask its owner for a new one"),
        (3_600_000, "60 min ahead"),
        (-3_600_000, "60 min behind"),
    ],
)
def test_a_clock_that_is_off_is_named_when_an_invite_has_expired(
    offset_ms: int, says: str
) -> None:
    assert says in InviteRefused("expired", "x", offset_ms=offset_ms).hint
    assert "clock" not in InviteRefused("used", "x", offset_ms=offset_ms).hint


def test_membership_outlives_a_restart_without_the_invite() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        lineage = b.members.lineage
        mesh.members["b"].config = STRICT  # neither invite nor address
        mesh.crash("b")
        mesh.crash("a")
        a, b = await mesh.restart("a"), await mesh.restart("b")
        assert b.members.lineage == lineage
        assert a.members.standing(b.peer) == "invited"
        await until(lambda: a.peer in b.sessions.connected())
        assert len(b.known()) == 2, "it was found by where the invite said"

    play(story)


def test_a_node_that_starts_with_its_old_invite_does_not_ask_again() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        (invite, _) = (await a.invites.rows())[0]
        await a.invites.revoke(invite)
        mesh.crash("b")
        b = await mesh.restart("b")
        assert b.members.lineage.inviter == a.peer
        assert not told(a, "invite.refused")

    play(story)


def test_an_inviter_that_is_away_is_asked_until_it_is_there() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        token = await token_of(a)
        mesh.crash("a")
        b = await mesh.start("b", config=holding(token))
        assert told(b, "node.join_failed")
        assert "doesn't answer" in b.advice.text()
        await mesh.restart("a")
        await until(lambda: b.members.lineage.inviter == mesh.peer("a"))

    play(story)


def test_nobody_joins_below_itself() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        token = await token_of(b)
        with pytest.raises(InviteRefused, match="in a circle"):
            await a.invites.join(read_token(token))
        assert (await row_of(b, token)).used == 0
        mesh.members["a"].config = holding(token)
        mesh.crash("a")
        a = await mesh.restart("a")
        assert a.members.lineage.root == a.peer, "and it lives on"

    play(story)


def test_the_eighth_below_the_founder_invites_nobody() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("n0", config=STRICT)
        for number in range(1, limits.CHAIN_LINKS_MAX + 1):
            await invited(mesh, f"n{number - 1}", f"n{number}")
        last = mesh.node(f"n{limits.CHAIN_LINKS_MAX}")
        assert last.members.lineage.root == mesh.peer("n0")
        with pytest.raises(MeshError, match="8 invitations"):
            await token_of(last)
        assert last.members.hindrance("anybody") == "depth"

    play(story)


@pytest.mark.parametrize(
    "wrong",
    [{"uses": 0}, {"uses": 10_001}, {"lifetime_s": 0.0}, {"name": "a" * 81}, {"name": "a\n"}],
)
def test_an_invite_out_of_range_is_not_made(wrong: dict[str, Any]) -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        with pytest.raises(InputInvalid):
            await token_of(a, **wrong)
        assert await a.invites.rows() == []

    play(story)


def test_the_secret_is_kept_nowhere() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        invite: Invite = read_token(await token_of(a))
        rows = mesh.members["a"].disk.tables
        kept = b"".join(value for table in rows.values() for value in table.values())
        assert invite.secret not in kept
        assert digest(invite.secret) in kept

    play(story)


def test_a_seed_makes_an_invite_at_each_start_and_keeps_the_last_few() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        tokens = [await a.invites.renew_open(a.dialled) for _ in range(30)]
        assert len(await a.invites.rows()) == 21
        b, c = await mesh.start("b", config=STRICT), await mesh.start("c", config=STRICT)
        assert (await joined(b, a, token=tokens[-5])).links
        assert (await joined(c, a, token=tokens[0])).reason == "unknown"

    play(story)
