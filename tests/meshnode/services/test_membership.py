"""Who was invited is a member, members work for one another, and nobody else is let in.

In virtual time (a MockClock's), on real nodes and simulated ports.
"""

import msgspec
import pytest
import trio

from meshnode.config import AccessConfig
from meshnode.domain.circuits import CircuitState
from meshnode.errors import MeshError
from meshnode.services.bodies import CFP
from meshnode.services.membership import MEMBERSHIP, RENEW
from protocol.codec import encode
from protocol.invites import read_token
from protocol.membership import Chain, Joined, read_joined, read_presented
from protocol.messages import Refuse, read_message
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.broker_by_hand import Hand, refusal_of
from tests.meshnode.services.inviting import (
    STRICT,
    calling,
    holding,
    invited,
    standings,
    token_of,
)
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    play,
    shouting,
    told,
    until,
)

DAY_MS = 86_400_000

# --- being a member ------------------------------------------------------------------


def test_whoever_was_invited_however_far_down_is_a_member_for_everyone() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        c = await invited(mesh, "b", "c")
        d = await invited(mesh, "a", "d")
        nodes = [a, b, c, d]
        for one in nodes:
            for other in nodes:
                await one.members.meet(other.peer)
        assert standings(nodes, a) == ["self", "invited", "member", "invited"]
        assert standings(nodes, b) == ["inviter", "self", "invited", "member"]
        assert standings(nodes, c) == ["member", "inviter", "self", "member"]
        assert c.members.lineage.path == (a.peer, b.peer, c.peer)

    play(story)


def test_a_member_works_for_another_that_it_has_never_met() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a", config=STRICT)
        await invited(mesh, "a", "b", TextAgent())
        c = await invited(mesh, "a", "c")
        await until(lambda: len(c.known()) == 3)
        job = await c.submit(shouting(), inputs("hello"))
        await c.wait(job)
        assert await c.outputs(job) == {"said": "HELLO"}

    play(story)


def test_a_stranger_is_refused_without_blame_and_told_what_to_do() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", agents=lambda: [TextAgent()], config=STRICT)
        b = await mesh.start("b", config=STRICT)  # by address
        await until(lambda: len(b.known()) == 2)
        job = await b.submit(shouting(), inputs("hello"))
        with trio.fail_after(15):
            state = await b.wait(job)
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "access.not_allowed")
        assert f"ask the owner of {a.peer} for an invite" in state.done.text
        assert b.market.circuit(a.peer) is CircuitState.CLOSED, "to refuse is no fault"
        assert standings([a], b) == ["stranger"]
        assert {event["reason"] for event in told(a, "contract.refused")} == {"not_allowed"}

    play(story)


def test_another_provider_is_found_beside_those_that_refuse() -> None:
    async def story(mesh: SimMesh) -> None:
        closed, open_ = TextAgent(price_mc=1), TextAgent(price_mc=9)
        await mesh.start("a", agents=lambda: [closed], config=STRICT)
        await mesh.start("b", agents=lambda: [open_], config=calling("anyone"))
        c = await mesh.start("c", config=STRICT)
        await until(lambda: len(c.known()) == 3)
        job = await c.submit(shouting(), inputs("hello"))
        await c.wait(job)
        assert await c.outputs(job) == {"said": "HELLO"}
        assert (closed.calls, open_.calls) == ([], ["hello"])

    play(story)


@pytest.mark.parametrize(
    ("callers", "expected"),
    [
        (("members",), [True, True, True, False]),
        (("invited",), [True, True, False, False]),
        (("anyone",), [True, True, True, True]),
        (("stranger",), [True, False, False, True]),
        (("invited", "stranger"), [True, True, False, True]),
    ],
)
def test_the_owner_says_who_may_call(callers: tuple[str, ...], expected: list[bool]) -> None:
    async def story(mesh: SimMesh) -> None:
        stranger = mesh.identity("stranger").peer
        named = [stranger if caller == "stranger" else caller for caller in callers]
        a = await mesh.start("a", agents=lambda: [TextAgent()], config=calling(*named))
        await invited(mesh, "a", "invited")
        await invited(mesh, "invited", "member")
        await mesh.start("stranger", config=STRICT)
        await until(lambda: len(a.known()) == 4)
        names = ("a", "invited", "member", "stranger")
        assert [await a.members.may_call(mesh.peer(name)) for name in names] == expected

    play(story)


def test_an_offer_that_a_stranger_has_kept_is_not_taken_up() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a", config=STRICT)
        agent = TextAgent()
        await mesh.start("b", agents=lambda: [agent], config=calling("anyone"))
        hand = Hand(mesh)
        await until(lambda: len(hand.node.known()) == 2)
        offer = await hand.offer()
        mesh.crash("b")
        mesh.members["b"].config = msgspec.structs.replace(
            mesh.members["b"].config, access=AccessConfig()
        )
        await mesh.restart("b")
        refuse = refusal_of(await hand.send(hand.award(offer)))
        assert refuse.reason == "not_allowed"
        assert agent.calls == []
        called = read_message(await hand.request(CFP, hand.cfp()), Refuse, network=NETWORK)
        assert called.reason == "not_allowed"
        with pytest.raises(IndexError):
            await hand.offer()  # none

    play(story)


def test_who_joins_after_being_refused_is_let_in_soon() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", agents=lambda: [TextAgent()], config=STRICT)
        b = await mesh.start("b", config=STRICT)
        assert not await a.members.may_call(b.peer)
        await b.invites.join(read_token(await token_of(a)))
        assert await a.members.may_call(b.peer)
        c = await mesh.start("c", config=STRICT)
        await until(lambda: len(b.known()) == 3)
        assert not await b.members.may_call(c.peer)
        await c.invites.join(read_token(await token_of(a)))
        await trio.sleep(2)
        assert await b.members.may_call(c.peer)

    play(story)


def test_anothers_chain_makes_nobody_a_member() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        thief = await mesh.start("thief", config=STRICT)
        shown = encode(Chain(list(b.members.links)))
        answer = await thief.sessions.request(a.peer, MEMBERSHIP, shown, timeout_s=5)
        assert read_presented(answer).links == []
        assert a.members.standing(thief.peer) == "stranger"
        assert told(a, "membership.refused")[0]["peer"] == thief.peer

    play(story)


# --- as time goes by --------------------------------------------------------------------


def later(mesh: SimMesh, days: int, *names: str) -> None:
    """Stop the nodes, and let so many days pass."""
    for name in names:
        mesh.crash(name)
        mesh.members[name].clock = mesh.world.clock(skew_ms=days * DAY_MS)


def test_a_link_is_renewed_by_its_inviter_in_the_second_half_of_its_life() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        first = b.members.lineage
        for days, renewed in ((170, False), (190, True)):
            later(mesh, days, "a", "b")
            await mesh.restart("a")
            b = await mesh.restart("b")
            await until(lambda: mesh.peer("a") in mesh.node("b").sessions.connected())
            await trio.sleep(1)
            assert (b.members.lineage.expires_ms > first.expires_ms) is renewed

    play(story)


def test_a_chain_that_has_lapsed_is_worth_nothing_until_it_is_renewed() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh.start("a", config=STRICT)
        await invited(mesh, "a", "b")
        later(mesh, 400, "a", "b")
        b = await mesh.restart("b")
        assert b.members.lineage.root == b.peer
        assert told(b, "membership.lapsed")
        a = await mesh.restart("a")
        await until(lambda: b.members.lineage.root == a.peer)

    play(story)


def test_who_moves_to_another_mesh_takes_those_it_invited_along() -> None:
    async def story(mesh: SimMesh) -> None:
        x = await mesh.start("x", config=STRICT)
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        await a.invites.join(read_token(await token_of(x)))
        assert b.members.lineage.root == a.peer
        mesh.crash("b")
        b = await mesh.restart("b")
        await until(lambda: b.members.lineage.root == x.peer)
        assert b.members.lineage.path == (x.peer, a.peer, b.peer)

    play(story)


def test_nobody_renews_for_whom_it_did_not_invite() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await mesh.start("b", config=STRICT)
        raw = await b.sessions.request(a.peer, RENEW, encode(Chain([])), timeout_s=5)
        assert read_joined(raw) == Joined([], "unknown")

    play(story)


# --- clocks -----------------------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", [3_600_000, -3_600_000])
def test_a_node_whose_clock_is_an_hour_off_joins_and_is_told_of_its_clock(
    skew_ms: int,
) -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        c = await invited(mesh, "a", "c")
        token = await token_of(a, lifetime_s=7_200.0)
        b = await mesh.start("b", config=holding(token), skew_ms=skew_ms)
        assert b.members.lineage.inviter == a.peer
        assert await a.members.may_call(b.peer)
        await b.sessions.connect(c.peer, addresses=c.dialled)
        await c.members.meet(b.peer)
        assert c.members.is_member(b.peer)
        side = "ahead of" if skew_ms > 0 else "behind"
        await until(lambda: bool(told(b, "clock.off")), within_s=60)
        text = f"this machine's clock is 60 min {side} those of its 2 peers"
        assert text in b.advice.text()
        other = f"the clock of peer {b.peer} is 60 min {side} this machine's"
        await until(lambda: bool(told(a, "clock.off")), within_s=60)
        assert other in a.advice.text()
        with pytest.raises(MeshError) as caught:
            await b.submit(shouting(), inputs("x"))
        assert text in caught.value.hint

    play(story)


def test_a_node_with_nobody_is_told_how_to_find_somebody() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        with pytest.raises(MeshError) as caught:
            await a.submit(shouting(), inputs("x"))
        for word in ("no peers", "meshnode invite", "--join", "--mdns"):
            assert word in caught.value.hint

    play(story)


def test_a_node_that_looks_around_and_sees_nobody_is_told_the_other_way() -> None:
    async def story(mesh: SimMesh) -> None:
        directory = msgspec.structs.replace(STRICT.directory, mdns=True)
        looking = msgspec.structs.replace(STRICT, directory=directory)
        a = await mesh.start("a", config=looking)
        assert "sees none on this network" in a.advice.text()
        assert "--mdns" not in a.advice.text()

    play(story)
