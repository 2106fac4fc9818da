"""A key that has ended is turned away everywhere, and its heir has all that was its.

In virtual time (a MockClock's), on real nodes and simulated ports.
"""

from typing import Any

import pytest
import trio

from meshnode.domain.trust.rules import Kind
from meshnode.errors import ConfigError, MeshError
from meshnode.node import Node
from meshnode.services.membership import MEMBERSHIP
from meshnode.services.sessions import Incoming, RequestFailed
from protocol import limits
from protocol.codec import encode
from protocol.errors import ErrorCode, Expired, RemoteProtocolError
from protocol.lifecycle import COMPARE, TELL, EndsTold, sign_revocation, sign_rotation
from protocol.membership import Chain
from protocol.signing import peek
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.inviting import STRICT, calling, invited, token_of
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)


def revoked(mesh: SimMesh, name: str, **fields: Any) -> bytes:
    return sign_revocation(mesh.identity(name), NETWORK, **fields)


def moved(mesh: SimMesh, old: str, new: str) -> bytes:
    from_ms = mesh.node("a").clock.now_ms()
    return sign_rotation(mesh.identity(old), mesh.identity(new), NETWORK, from_ms=from_ms)


def known_to_all(nodes: list[Node], peer: str) -> bool:
    return all(node.fates.bar(peer) for node in nodes)


def records(node: Node) -> set[str]:
    return {record.peer for record in node.known()}


# --- what follows from it --------------------------------------------------------------


def test_a_revoked_key_is_turned_away_by_all_and_its_record_is_gone() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c, d = await start(mesh, a=[], b=[], c=[TextAgent()], d=[])
        await a.fates.publish(revoked(mesh, "c", reason="its disk was stolen"))
        await until(lambda: known_to_all([a, b, d], c.peer), within_s=5)
        await until(
            lambda: all(c.peer not in n.sessions.connected() for n in (a, b, d)), within_s=5
        )
        await trio.sleep(30)  # its records come and come
        for node in (a, b, d):
            assert c.peer not in records(node)
            assert node.directory.providers("text.shout") == []
            assert c.peer not in node.sessions.connected()
        said = told(c, "session.refused_key")
        assert said[0]["why"] == f"the key {c.peer} is revoked: its disk was stolen"
        assert len(said) <= 6, "it doesn't dial over and over"

    play(story)


def test_nobody_is_blamed_for_passing_on_the_record_of_an_ended_key() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[], c=[])
        record = c.directory.own
        await a.fates.publish(revoked(mesh, "c"))
        outcome = a.directory._intake.offer(record, source=b.peer)
        assert (outcome.taken, outcome.blames_source) == (False, False)
        assert a.directory.refused() == {"revoked": 1}

    play(story)


SHOUT = "text.shout@1"
GOLDS: tuple[Kind, ...] = ("gold_passed",) * 6


async def learn(node: Node, agent: str, *kinds: Kind) -> None:
    for kind in kinds:
        noted = node.reputation.note(SHOUT, agent, kind)
        await vars(node.reputation)["_store"].commit(*noted.writes)
        node.reputation.learned(noted)


def test_an_heir_is_believed_as_its_old_key_was_and_banned_for_it() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c, d = await start(mesh, a=[], b=[], c=[], d=[])
        old, new, newest = (f"{node.peer}/shout" for node in (b, c, d))
        await learn(a, old, *GOLDS, "gold_failed")
        before = a.reputation.credibility(SHOUT, old)
        stranger = a.reputation.credibility(SHOUT, new)
        await a.fates.publish(moved(mesh, "b", "c"))
        assert a.reputation.credibility(SHOUT, new) == before != stranger
        await learn(a, new, "gold_passed", "served")
        after = a.reputation.credibility(SHOUT, new)
        assert after == a.reputation.credibility(SHOUT, old) > before
        await a.fates.publish(moved(mesh, "c", "d"))
        assert a.reputation.credibility(SHOUT, newest) == after
        account, events = await a.reputation.account(SHOUT, newest)
        assert (account.credibility, len(events)) == (after, 9)
        mesh.crash("a")
        again = await mesh.restart("a")
        assert again.reputation.credibility(SHOUT, newest) == after, "after a restart, too"
        again.reputation.judge_by(lambda peer: peer == c.peer)
        again.reputation.banned(c.peer)
        assert again.reputation.credibility(SHOUT, newest) == 0
        assert again.reputation.is_blocked(SHOUT, newest)

    play(story)


def test_no_award_goes_to_an_ended_key_and_none_is_taken_from_it() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        a, b = await start(mesh, a=[], b=[agent])
        job = await a.submit(shouting(), inputs("before"))
        await a.wait(job)
        await trio.sleep(5)  # until the receipt is complete
        await b.fates.publish(revoked(mesh, "a"))
        job = await a.submit(shouting(), inputs("after"))
        with trio.move_on_after(20):
            await a.wait(job)
        assert agent.calls == ["before"]
        (kept,) = await b.receipts.rows()
        assert peek(kept.acceptance).i == a.peer, "what it signed before stays"

    play(story)


def test_what_an_ended_key_asks_before_it_is_turned_away_is_refused_with_that_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        monkeypatch.setattr(b.sessions, "expel", lambda _: None)
        b.fates.take(revoked(mesh, "a"), source="")
        with pytest.raises(RequestFailed) as refused:
            await a.sessions.request(b.peer, MEMBERSHIP, encode(Chain([])), timeout_s=5)
        assert refused.value.failure == ErrorCode.REVOKED

    play(story)


def test_a_letter_by_an_ended_key_is_refused_at_the_door() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, calling("anyone"), a=[], b=[])
        assert await a.door.stranger(b.peer) is None
        await a.fates.publish(revoked(mesh, "b"))
        no = await a.door.stranger(b.peer)
        assert no is not None
        assert no.text == f"the key {b.peer} is revoked"
        assert not a.members.admits(b.peer, [])

    play(story)


# --- how it is told ----------------------------------------------------------------------


def test_who_was_away_hears_of_it_when_it_comes_back() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[], c=[])
        mesh.crash("b")
        await a.fates.publish(revoked(mesh, "c"))
        b = await mesh.restart("b")
        await until(lambda: bool(b.fates.bar(c.peer)), within_s=60)

    play(story)


def test_it_outlasts_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        await a.fates.publish(revoked(mesh, "b"))
        mesh.crash("b")
        mesh.crash("a")
        a = await mesh.restart("a")
        assert a.fates.bar(b.peer)
        assert a.fates.ended_ms(b.peer) is not None

    play(story)


def test_where_no_key_has_ended_nothing_is_said_of_it() -> None:
    async def story(mesh: SimMesh) -> None:
        nodes = await start(mesh, a=[], b=[], c=[])
        asked: list[str] = []

        async def note(incoming: Incoming) -> bytes:
            await trio.lowlevel.checkpoint()
            asked.append(incoming.method)
            return b""

        for node in nodes:
            node.sessions.handle(TELL, note)
            node.sessions.handle(COMPARE, note)
        await mesh.start("d")
        await trio.sleep(60)
        assert asked == []

    play(story)


def test_a_forged_statement_changes_nothing_and_is_not_passed_on() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[], c=[])
        good = revoked(mesh, "c")
        forged = good[:-40] + bytes([good[-40] ^ 1]) + good[-39:]
        with pytest.raises(RemoteProtocolError):
            a.fates.take(forged, source=b.peer)
        body = encode(EndsTold([forged, good]))
        with pytest.raises(MeshError, match="signature"):
            await b.sessions.request(a.peer, TELL, body, timeout_s=5)
        assert a.fates.bar(c.peer), "what holds is taken all the same"

    play(story)


def test_a_peer_brings_only_so_many() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        for batch in range(8):
            names = [f"made-up-{batch}-{n}" for n in range(limits.STATEMENTS_TOLD_MAX)]
            body = encode(EndsTold([revoked(mesh, name) for name in names]))
            try:
                await b.sessions.request(a.peer, TELL, body, timeout_s=5)
            except MeshError:
                break
        assert len(a.fates.all()) == 256

    play(story)


# --- an heir -----------------------------------------------------------------------------


async def rotated(mesh: SimMesh, name: str) -> Node:
    """Have the node called ``name`` go on with another key, on the same disk."""
    heir = f"{name}'s heir"
    await mesh.node(name).fates.publish(moved(mesh, name, heir))
    mesh.crash(name)
    member = mesh.members[name]
    member.identity = mesh.identity(heir)
    mesh._names[member.identity.peer] = name
    return await mesh.restart(name)


def test_an_heir_is_a_member_as_its_key_was_and_so_are_those_it_had_invited() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        c = await invited(mesh, "b", "c")
        await until(lambda: len(c.known()) == 3)
        old = b.peer
        heir = await rotated(mesh, "b")
        await until(lambda: known_to_all([a, c], old), within_s=30)
        await until(lambda: heir.peer in c.sessions.connected(), within_s=30)
        await heir.members.meet(c.peer)
        await c.members.meet(heir.peer)
        await a.members.meet(heir.peer)
        assert a.members.standing(heir.peer) == "invited"
        assert heir.members.standing(a.peer) == "inviter"
        assert c.members.standing(heir.peer) == "inviter"
        assert heir.members.standing(c.peer) == "invited"
        assert a.members.standing(old) == "stranger"
        assert a.fates.heir(old) == heir.peer
        # Both have links that name the new key before long.
        await until(lambda: heir.members.lineage.names == (a.peer, heir.peer), within_s=30)
        await until(lambda: c.members.lineage.names[-2:] == (heir.peer, c.peer), within_s=4_000)

    play(story)


def test_what_a_founder_founded_is_its_heirs() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        c = await invited(mesh, "a", "c", TextAgent())
        await until(lambda: len(c.known()) == 3)
        heir, old = await rotated(mesh, "a"), a.peer
        await until(lambda: known_to_all([b, c], old), within_s=30)
        d = await invited(mesh, "a", "d")  # by the heir: another root in its link
        await d.members.meet(c.peer)
        await c.members.meet(d.peer)
        await b.members.meet(heir.peer)
        assert c.members.is_member(d.peer)
        assert d.members.is_member(c.peer)
        assert b.members.standing(heir.peer) == "inviter"
        job = await d.submit(shouting(), inputs("hello"))
        await d.wait(job)
        assert await d.outputs(job) == {"said": "HELLO"}

    play(story)


def test_whom_a_revoked_key_let_in_is_a_stranger_until_somebody_else_does() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        c = await invited(mesh, "b", "c")
        await a.members.meet(c.peer)
        assert a.members.is_member(c.peer)
        await a.fates.publish(revoked(mesh, "b"))
        await until(lambda: bool(c.fates.bar(b.peer)), within_s=10)
        await trio.sleep(5)
        await a.members.meet(c.peer)
        assert a.members.standing(c.peer) == "stranger"
        assert c.members.lineage.root == c.peer

    play(story)


def test_links_by_a_followed_key_count_for_thirty_days() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        await invited(mesh, "a", "b")
        c = await invited(mesh, "b", "c")
        await until(lambda: c.peer in a.sessions.connected())
        mesh.crash("b")
        now_ms = a.clock.now_ms()
        old, new = mesh.identity("b"), mesh.identity("nobody runs this")
        lately = now_ms - limits.ROTATED_LINKS_MS + 5_000
        a.fates.take(sign_rotation(old, new, NETWORK, from_ms=lately), source="")
        await a.members.meet(c.peer)
        assert a.members.is_member(c.peer)
        await trio.sleep(10)
        assert not a.members.is_member(c.peer)
        with pytest.raises(Expired, match="followed long ago"):
            a.members._read(c.peer, c.members.links)

    play(story)


def test_a_thief_with_the_key_gets_nothing_by_an_heir_of_his_own() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[], c=[])
        a.fates.take(moved(mesh, "c", "owner"), source=b.peer)
        assert a.fates.heir(c.peer) == mesh.identity("owner").peer
        a.fates.take(moved(mesh, "c", "thief"), source=b.peer)
        assert a.fates.heir(c.peer) == c.peer
        assert a.fates.bar(c.peer)

    play(story)


def test_a_node_does_not_start_with_a_key_that_has_ended() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        await b.fates.publish(revoked(mesh, "b"))
        await until(lambda: bool(a.fates.bar(b.peer)), within_s=5)
        assert told(b, "keys.own_ended")
        with pytest.raises(ConfigError, match="is revoked"):
            await b.fates.load()

    play(story)


def test_an_invite_of_the_heir_is_good_for_who_has_heard_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        await invited(mesh, "a", "b")
        heir = await rotated(mesh, "b")
        await until(lambda: a.peer in heir.sessions.connected())
        token = await token_of(heir)
        assert token
        c = await invited(mesh, "b", "c")
        assert c.members.lineage.root == a.peer

    play(story)
