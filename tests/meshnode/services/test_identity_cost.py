"""A name that anybody may make has cost something, or it shows.

In virtual time (a MockClock's), on real nodes and simulated ports: nobody hashes here.
"""

from dataclasses import dataclass, field
from functools import partial

import msgspec
import trio

from meshnode.config import NodeConfig, TrustConfig
from meshnode.node import Node, Terms
from protocol.lifecycle import sign_rotation
from simulations.mesh import CONFIG, NETWORK, SimMesh
from tests.meshnode.services.inviting import STRICT, invited
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)


@dataclass
class Worker:
    """Labour in no time but virtual: a nonce of n bits begins with n.

    Attributes:
        checks: Whose proof was checked.
        searches: For whom one was found.
    """

    checks: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)

    async def bits(self, network: str, peer: str, nonce: bytes) -> int:
        assert network == NETWORK
        await trio.sleep(0.2)
        self.checks.append(peer)
        return nonce[0]

    async def search(self, network: str, peer: str, bits: int) -> bytes:
        assert network == NETWORK
        await trio.sleep(20.0)
        self.searches.append(peer)
        return bytes([bits]) + bytes(7)


def with_labour(node: Node, worker: Worker, nursery: trio.Nursery) -> None:
    """Let ``node`` do work: in simulations nobody does, unless given somebody to."""
    node.identities.cost._labour = worker
    nursery.start_soon(node.identities.cost.run)


def shows(node: Node, peer: str, nonce: bytes) -> bool:
    return node.directory.work_of(peer) == nonce


def asking(bits: int) -> NodeConfig:
    return msgspec.structs.replace(CONFIG, trust=TrustConfig(work_bits=bits))


def test_a_name_is_proved_once_shown_in_the_record_and_checked_when_asked_for() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, asking(8), a=[], b=[])
        mine, theirs = Worker(), Worker()
        assert a.identities.cost.cost(b.peer) == "unpaid"
        async with trio.open_nursery() as nursery:
            with_labour(a, mine, nursery)
            with_labour(b, theirs, nursery)
            await until(lambda: a.directory.work_of(b.peer) == bytes([8]) + bytes(7))
            assert theirs.searches == [b.peer]
            assert mine.checks == [], "nobody has asked"
            assert a.identities.cost.cost(b.peer) == "unknown"
            await until(lambda: a.identities.cost.cost(b.peer) == "paid", within_s=1)
            await trio.sleep(700)  # its record was signed anew since
            assert a.identities.cost.cost(b.peer) == "paid"
            assert mine.checks == [b.peer], "a proof is checked once"
            nursery.cancel_scope.cancel()

    play(story)


def test_what_was_proved_and_checked_outlasts_a_restart() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, asking(8), a=[], b=[])
        async with trio.open_nursery() as nursery:
            for node in (a, b):
                with_labour(node, Worker(), nursery)
            await until(lambda: a.identities.cost.cost(b.peer) == "paid")
            await trio.sleep(1)  # until that is on disk
            nursery.cancel_scope.cancel()
        mesh.crash("a")
        mesh.crash("b")
        a, b = await mesh.restart("a"), await mesh.restart("b")
        assert a.identities.cost.cost(b.peer) == "paid"
        assert b.directory.work_of(b.peer) == bytes([8]) + bytes(7)
        async with trio.open_nursery() as nursery:
            again = Worker()
            with_labour(b, again, nursery)
            await trio.sleep(60)
            assert again.searches == []
            nursery.cancel_scope.cancel()

    play(story)


def test_too_little_work_pays_for_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=asking(9))
        b = await mesh.start("b", config=asking(8))
        worker = Worker()
        async with trio.open_nursery() as nursery:
            with_labour(a, worker, nursery)
            with_labour(b, Worker(), nursery)
            await until(lambda: bool(a.directory.work_of(b.peer)))
            assert a.identities.cost.cost(b.peer) == "unknown"
            await until(lambda: a.identities.cost.cost(b.peer) == "unpaid", within_s=1)
            assert b.identities.cost.asked_bits == 8
            nursery.cancel_scope.cancel()

    play(story)


def test_a_peer_with_ever_new_proofs_has_two_checked_in_ten_minutes() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, asking(8), a=[], b=[])
        worker = Worker()
        async with trio.open_nursery() as nursery:
            with_labour(a, worker, nursery)
            for number in range(1, 6):
                nonce = bytes([0, number]) + bytes(6)
                b.directory.prove(nonce)
                await until(partial(shows, a, b.peer, nonce))
                a.identities.cost.cost(b.peer)
                await trio.sleep(5)
            assert worker.checks.count(b.peer) == 2
            nursery.cancel_scope.cancel()

    play(story)


def test_membership_is_the_cost_in_a_private_mesh() -> None:
    async def story(mesh: SimMesh) -> None:
        a = await mesh.start("a", config=STRICT)
        b = await invited(mesh, "a", "b")
        worker = Worker()
        async with trio.open_nursery() as nursery:
            with_labour(a, worker, nursery)
            await trio.sleep(60)
            assert a.identities.cost.cost(b.peer) == "paid"
            assert (worker.searches, worker.checks) == ([], [])
            nursery.cancel_scope.cancel()

    play(story)


def test_a_member_that_buys_in_public_may_prove_its_name_all_the_same() -> None:
    async def story(mesh: SimMesh) -> None:
        always = msgspec.structs.replace(STRICT, trust=TrustConfig(work_always=True))
        a = await mesh.start("a", config=always)
        worker = Worker()
        async with trio.open_nursery() as nursery:
            with_labour(a, worker, nursery)
            await until(lambda: worker.searches == [a.peer])
            nursery.cancel_scope.cancel()

    play(story)


def test_an_heir_has_paid_what_its_old_key_had_paid() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, asking(8), a=[], b=[], c=[])
        async with trio.open_nursery() as nursery:
            for node in (a, b):
                with_labour(node, Worker(), nursery)
            await until(lambda: a.identities.cost.cost(b.peer) == "paid")
            nursery.cancel_scope.cancel()
        assert a.identities.cost.cost(c.peer) == "unpaid"
        sign = partial(sign_rotation, mesh.identity("b"), mesh.identity("c"), NETWORK)
        await a.fates.publish(sign(from_ms=a.clock.now_ms()))
        assert a.identities.cost.cost(c.peer) == "paid"

    play(story)


def test_who_is_not_known_is_not_judged() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, asking(8), a=[])
        assert a.identities.cost.cost(mesh.identity("nobody").peer) == "unknown"
        assert a.identities.cost.cost(a.peer) == "paid"
        assert told(a, "work.checked") == []

    play(story)


def test_whose_name_cost_nothing_is_given_work_when_nobody_else_is_there() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {"b": [TextAgent(price_mc=9)], "c": [TextAgent(price_mc=1)]}
        a, b, c = await start(mesh, asking(8), a=[], **agents)

        async def asked() -> str:
            state = await a.wait(await a.submit(shouting(), inputs("hi"), Terms(deadline_s=60)))
            done = state.units["say/0"].accepted
            assert done is not None
            return done.peer

        async with trio.open_nursery() as nursery:
            assert await asked() == c.peer, "nobody has paid yet"
            for node in (a, b):
                with_labour(node, Worker(), nursery)
            await until(lambda: a.identities.cost.cost(b.peer) == "paid")
            assert await asked() == b.peer, "nine times as dear"
            mesh.crash("b")
            assert await asked() == c.peer
            nursery.cancel_scope.cancel()

    play(story)
