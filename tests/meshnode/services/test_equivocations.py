"""Who signs two statements that contradict each other is found, told of, and banned.

Real nodes in virtual time (a MockClock's).
"""

from collections.abc import Sequence
from typing import Final

import pytest
import trio

from meshnode.domain.trust.equivocation import contradiction
from meshnode.node import Node
from meshnode.services import equivocations
from meshnode.services.admission import BANNED
from meshnode.services.bodies import ACCEPTANCE, RECEIPTS, ReceiptRow
from meshnode.services.equivocations import BANS
from meshnode.services.sessions import RequestFailed
from protocol.codec import encode
from protocol.keys import Identity
from protocol.limits import PROOFS_MAX
from protocol.messages import read_message
from protocol.receipts import Acceptance
from protocol.reputation import PROOFS, Contradiction, Proofs
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.finished import SHOUT, contract, keep, said_otherwise
from tests.meshnode.services.test_hearing import believe
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)
from tests.protocol.samples import changed, identity

WORKER: Final = identity("worker")
CHEAT: Final = identity("cheat")


def two_faces(
    buyer: Identity, worker: Identity, *, at_ms: int
) -> tuple[ReceiptRow, ReceiptRow]:
    """Return a contract, as its buyer says it to one and to another."""
    row = contract(buyer, worker, 0, at_ms=at_ms)
    return row, said_otherwise(row, buyer, worker, at_ms)


def proof_of(cheat: Identity = CHEAT, *, at_ms: int) -> Contradiction:
    """Return a proof against a buyer."""
    one, other = two_faces(cheat, WORKER, at_ms=at_ms)
    found = contradiction("acceptance", one.acceptance, other.acceptance, network=NETWORK)
    assert found is not None
    return found


async def show(node: Node, to: Node, *proofs: Contradiction) -> None:
    body = encode(Proofs(list(proofs)))
    await node.sessions.request(to.peer, PROOFS, body, timeout_s=5)


def banned_at(mesh: SimMesh) -> dict[str, Sequence[str]]:
    """Return whom the nodes' disks say to be banned."""
    return {
        name: sorted(member.disk.tables.get(BANS, {})) for name, member in mesh.members.items()
    }


def test_who_tells_one_this_and_another_that_is_found_and_told_of() -> None:
    async def story(mesh: SimMesh) -> None:
        # a hears of one contract from its buyer b and its contractor c; d only knows a.
        a, b, c, d = await start(mesh, a=[], b=[], c=[], d=[])
        buyer, worker = mesh.members["b"].identity, mesh.members["c"].identity
        one, other = two_faces(buyer, worker, at_ms=a.clock.now_ms() - 1_000)
        await keep(b, one)
        await keep(c, other)
        await believe(a, b.peer)
        await believe(a, c.peer)
        before = a.reputation.credibility(SHOUT, f"{b.peer}/shout")
        assert before > 0.75
        await a.gossip.hearing.round()
        await until(lambda: d.gossip.equivocations.is_banned(b.peer))
        await until(lambda: c.gossip.equivocations.is_banned(b.peer))
        assert banned_at(mesh) == {"a": [b.peer], "b": [], "c": [b.peer], "d": [b.peer]}
        for node in (a, d):
            assert node.reputation.credibility(SHOUT, f"{b.peer}/shout") == 0.0
            assert node.reputation.book(SHOUT).is_blocked(f"{b.peer}/other")
            assert await node.door.stranger(b.peer) == BANNED
        assert a.gossip.hearing.raters() == [c.peer]
        account, _ = await a.reputation.account(SHOUT, f"{b.peer}/shout")
        assert (account.credibility, account.blocked) == (0.0, True)
        mesh.crash("d")
        d = await mesh.restart("d")
        assert d.gossip.equivocations.is_banned(b.peer)
        assert d.reputation.credibility(SHOUT, f"{b.peer}/shout") == 0.0

    play(story)


def test_a_contractor_that_is_sent_two_acceptances_needs_nobody_else() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        await a.wait(await a.submit(shouting(), inputs("word")))
        await until(lambda: bool(mesh.members["b"].disk.tables.get(RECEIPTS)))
        (row,) = await b.receipts.rows()
        said = read_message(row.acceptance, Acceptance, network=NETWORK)
        again = changed(said.h, id=bytes(16))
        for other in (
            changed(said, h=again),
            changed(said, h=again, verdict="rejected", paid_mc=0),
        ):
            assert not b.gossip.equivocations.is_banned(a.peer)
            envelope = a.broker._context.signer.sign(other)
            with pytest.raises(RequestFailed):
                await a.sessions.request(b.peer, ACCEPTANCE, envelope, timeout_s=5)
        await until(lambda: b.gossip.equivocations.is_banned(a.peer))
        # Its next call is refused.
        assert await b.door.stranger(a.peer) == BANNED

    play(story)


def test_a_proof_is_told_each_peer_once_and_those_that_come_later() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        proof = proof_of(at_ms=a.clock.now_ms())
        await show(a, b, proof)
        await show(a, b, proof)
        assert banned_at(mesh)["b"] == [CHEAT.peer]
        await trio.sleep(1_000)
        assert banned_at(mesh)["a"] == [], "who told it isn't told it"
        assert len(told(b, "peer.banned")) == 1
        c = await mesh.start("c")
        await until(lambda: c.gossip.equivocations.is_banned(CHEAT.peer), within_s=400)

    play(story)


@pytest.mark.parametrize("wrong", ["same", "forged", "many", "mesh"])
def test_what_proves_nothing_bans_nobody_and_is_refused(wrong: str) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        good = proof_of(at_ms=a.clock.now_ms())
        bad = {
            "same": [Contradiction("acceptance", good.first, good.first)],
            "forged": [Contradiction("receipt", good.first, good.second)],
            "many": [good] * (PROOFS_MAX + 1),
            "mesh": [Contradiction("acceptance", good.first[:-1], good.second)],
        }[wrong]
        with pytest.raises(RequestFailed):
            await show(a, b, *bad)
        assert banned_at(mesh) == {"a": [], "b": []}

    play(story)


def test_a_proof_against_oneself_is_told_the_owner() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        await show(a, b, proof_of(mesh.members["b"].identity, at_ms=a.clock.now_ms()))
        assert len(told(b, "ban.of_this_node")) == 1
        assert banned_at(mesh) == {"a": [], "b": []}
        assert b.reputation.credibility(SHOUT, f"{b.peer}/shout") == pytest.approx(0.8)

    play(story)


def test_bans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivocations, "BANS_MAX", 2)

    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        now_ms = a.clock.now_ms()
        await show(a, b, *[proof_of(identity(f"x{i}"), at_ms=now_ms) for i in range(3)])
        assert len(banned_at(mesh)["b"]) == 2

    play(story)
