"""What owners say holds for orders, and whoever forges one, or its outcome, gets nothing.

Time passes on a MockClock.
"""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import AccessConfig, LedgerConfig, NodeConfig, OrdersConfig
from meshnode.node import Node
from meshnode.services.bodies import AWARD, AwardBody, ResultBody
from meshnode.services.commissions import COMMISSIONS
from meshnode.services.letter_writing import Draft
from meshnode.services.orders import ORDERS
from meshnode.services.signer import Topic
from protocol.codec import decode_as, encode
from protocol.keys import digest
from protocol.mail import read_letter
from protocol.messages import Award, Cancel, Refuse, read_message
from protocol.orders import CALLED_OFF, ORDER, OUTCOME, Outcome
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.ordering import (
    TERMS,
    TIME_S,
    deposited,
    ended,
    ordered,
    taking,
    three,
)
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    until,
)


def replaced(**tables: Any) -> NodeConfig:
    """Settings of a node that takes orders, with other tables."""
    changed: NodeConfig = msgspec.structs.replace(taking(), **tables)
    return changed


async def held(mesh: SimMesh, name: str, table: str) -> dict[str, bytes]:
    await trio.lowlevel.checkpoint()
    return mesh.members[name].disk.tables.get(table, {})


async def codes(node: Node, job: str) -> set[str]:
    """How attempts at the only unit have failed."""
    return {failed.code for failed in (await node.journal(job)).state.units["say/0"].failures()}


async def refused(mesh: SimMesh, job: str, code: str) -> None:
    """Wait until Ada knows of a refusal."""
    ada = mesh.node("ada")
    with trio.fail_after(300):
        while code not in await codes(ada, job):  # noqa: ASYNC110 - a fold has no event
            await trio.sleep(1)


# --- what owners say ---


def test_who_has_become_dearer_refuses_by_letter_and_nothing_is_owed() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        _, bob = await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        dear = TextAgent(price_mc=3)
        mesh.members["bob"].agents = lambda: (dear,)
        bob = await mesh.restart("bob")
        await refused(mesh, job, "refused.price")
        await trio.sleep(60)
        assert agent.calls == []
        # He is there now, and does it at his price.
        state = await ended(mesh.node("ada"), job)
        assert (state.spent_mc, dear.calls) == (3, ["x"])
        assert await held(mesh, "bob", COMMISSIONS) == {}
        assert bob.contractor.active == 0

    play(story)


def test_a_node_that_takes_no_orders_any_more_says_so() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        mesh.members["bob"].config = CONFIG
        await mesh.restart("bob")
        await refused(mesh, job, "order.refused")

    play(story)


@pytest.mark.parametrize("way", ["paused", "full"])
def test_what_passes_is_waited_for(way: str) -> None:
    agent = TextAgent(answers_after(60), timeout_s=200.0)

    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(CONFIG.host, awards_max=1)
        config = replaced(host=host) if way == "full" else taking()
        _, bob = await three(mesh, [agent], config)
        if way == "paused":
            await bob.pause()
        mesh.crash("bob")
        words = ("a", "b") if way == "full" else ("a",)
        job = await ordered(mesh, *words)
        bob = await mesh.restart("bob")
        await trio.sleep(40)
        assert agent.running == (way == "full"), "one at a time, or none"
        await bob.resume()
        state = await ended(mesh.node("ada"), job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert sorted(agent.calls) == sorted(words)

    play(story)


def test_a_pause_that_outlasts_the_order_is_a_refusal() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        _, bob = await three(mesh, [agent])
        await bob.pause()
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        await mesh.restart("bob")
        await trio.sleep(TIME_S)
        assert agent.calls == []
        assert await codes(mesh.node("ada"), job) >= {"access.paused"}

    play(story)


def test_credit_holds_for_orders() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent], replaced(ledger=LedgerConfig(owed_max_mc=1)))
        mesh.crash("bob")
        await ordered(mesh, "x")
        await mesh.restart("bob")
        await trio.sleep(120)
        assert agent.calls == []
        assert len(await held(mesh, "bob", COMMISSIONS)) == 1, "it may be settled meanwhile"

    play(story)


def test_one_sender_has_no_more_orders_waiting_than_the_owner_says() -> None:
    agent = TextAgent(answers_after(100), concurrency_max=1, timeout_s=200.0)

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent], taking(peer_waiting_max=2))
        mesh.crash("bob")
        job = await ordered(mesh, "a", "b", "c")
        await mesh.restart("bob")
        await trio.sleep(60)
        assert len(await held(mesh, "bob", COMMISSIONS)) == 2
        await deposited(mesh, 1)  # the third is left where it is
        state = await ended(mesh.node("ada"), job)
        assert state.done is not None
        assert state.done.state == "completed", "and comes when there is room"

    play(story)


def test_a_stranger_orders_nothing() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        access = AccessConfig(callers=(mesh.peer("box"),))
        mesh.members["bob"].config = replaced(access=access)
        await mesh.restart("bob")
        await trio.sleep(60)
        assert agent.calls == []
        assert await held(mesh, "bob", COMMISSIONS) == {}
        await refused(mesh, job, "order.refused")

    play(story)


# --- called off ---


def test_a_cancel_fetches_an_order_back_from_the_mailbox() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        await ada.cancel(job)
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "cancelled"
        await trio.sleep(60)
        await mesh.restart("bob")
        await trio.sleep(120)
        assert agent.calls == []
        assert await held(mesh, "bob", COMMISSIONS) == {}

    play(story)


def test_a_cancel_stops_work_when_its_letter_comes_though_its_sender_has_gone() -> None:
    agent = TextAgent(answers_after(600), timeout_s=700.0)

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        mesh.crash("ada")
        await mesh.restart("bob")
        await until(lambda: agent.running == 1)
        mesh.world.network.cut_one_way(mesh.peer("ada"), mesh.peer("bob"))
        mesh.world.network.cut_one_way(mesh.peer("bob"), mesh.peer("ada"))
        ada = await mesh.restart("ada")
        await ada.cancel(job)
        await ended(ada, job)
        await deposited(mesh)
        mesh.crash("ada")
        await until(lambda: agent.running == 0, within_s=60)
        bob = mesh.node("bob")
        assert bob.ledger.balances.due_mc(mesh.peer("ada")) == 0

    play(story)


# --- lies ---


async def sent(node: Node, to: str, kind: str, body: bytes) -> str:
    """Have a letter sent; return how it ended."""
    letter = await node.outbox.post(Draft(to, body, kind, 3_600.0))
    with trio.fail_after(60):
        while (row := await node.outbox.row(letter)).state == "waiting":  # noqa: ASYNC110 - likewise
            await trio.sleep(0.1)
    return row.code or row.state


async def an_order(mesh: SimMesh) -> tuple[str, bytes]:
    """Have Ada order; return the job and the award."""
    job = await ordered(mesh, "x")
    unit = (await mesh.node("ada").journal(job)).state.units["say/0"]
    return job, unit.attempts[-1].award


def test_nobody_answers_for_another() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        eve = await mesh.start("eve", config=CONFIG)
        mesh.crash("bob")
        job, award = await an_order(mesh)
        signer = eve.outbox._context.signer
        no = Refuse(h=signer.header(ada.peer, Topic()), of=digest(award), reason="price")
        body = encode(Outcome(signer.sign(no), b"", b""))
        assert await sent(eve, ada.peer, OUTCOME, body) == "order.unknown"
        assert await sent(eve, ada.peer, OUTCOME, b"\x90") == "order.malformed"
        unknown = replace_of(no, digest(b"another"))
        body = encode(Outcome(signer.sign(unknown), b"", b""))
        assert await sent(eve, ada.peer, OUTCOME, body) == "order.unknown"
        (row,) = (await held(mesh, "ada", ORDERS)).values()
        assert not decode_as(row, msgspec.msgpack.Decoder(dict)).get("outcome")
        await mesh.restart("bob")
        state = await ended(ada, job)
        assert state.done is not None
        assert state.done.state == "completed"

    play(story)


def replace_of(no: Refuse, of: bytes) -> Refuse:
    changed: Refuse = msgspec.structs.replace(no, of=of)
    return changed


def test_nobody_orders_or_calls_off_in_anothers_name() -> None:
    agent = TextAgent(answers_after(60), timeout_s=200.0)

    async def story(mesh: SimMesh) -> None:
        await three(mesh, [agent])
        eve = await mesh.start("eve", config=CONFIG)
        mesh.crash("bob")
        job, award = await an_order(mesh)
        letter = await mesh.node("ada").outbox.rows()
        (name,) = [name for name, row in letter if row.kind == ORDER]
        envelope = await mesh.node("ada").outbox.envelope(name)
        assert envelope is not None
        bob = await mesh.restart("bob")
        await until(lambda: agent.running == 1, within_s=60)
        body = read_letter(envelope, network=mesh.network_id).body
        assert await sent(eve, bob.peer, ORDER, body) == "order.malformed"
        signer = eve.outbox._context.signer
        off = Cancel(h=signer.header(bob.peer, Topic()), award=digest(award), reason="owner")
        assert await sent(eve, bob.peer, CALLED_OFF, signer.sign(off)) == "delivered"
        await trio.sleep(5)
        assert (agent.running, agent.calls) == (1, ["x"]), "it isn't hers"
        state = await ended(mesh.node("ada"), job)
        assert state.done is not None
        assert state.done.state == "completed"

    play(story)


def test_an_order_over_a_session_is_refused() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        mesh.crash("bob")
        job, award = await an_order(mesh)
        mesh.crash("box")  # so that the order waits at Ada's
        mesh.members["bob"].config = msgspec.structs.replace(taking(), orders=OrdersConfig())
        bob = await mesh.restart("bob")
        await until(lambda: bob.peer in ada.sessions.connected())
        body = encode(AwardBody(award, b""))
        raw = await ada.sessions.request(bob.peer, AWARD, body, timeout_s=10)
        refuse = decode_as(raw, msgspec.msgpack.Decoder(ResultBody)).refuse
        assert read_message(refuse, Refuse, network=mesh.network_id).reason == "terms"
        assert agent.calls == []
        assert read_message(award, Award, network=mesh.network_id).lease_ms == 0
        await refused(mesh, job, "order.refused")

    play(story)


def test_a_node_that_was_ordered_of_is_asked_live_when_it_is_back() -> None:
    agent = TextAgent()

    async def story(mesh: SimMesh) -> None:
        ada, _ = await three(mesh, [agent])
        mesh.crash("bob")
        job = await ordered(mesh, "x")
        await mesh.restart("bob")
        state = await ended(ada, job, within_s=120)
        assert state.done is not None
        assert state.done.state == "completed", "straight, as soon as both are up"
        second = await ada.submit(shouting(), inputs("y"), replace(TERMS, deadline_s=1_000))
        state = await ended(ada, second, within_s=30)
        assert not state.units["say/0"].attempts[-1].by_letter
        assert agent.calls == ["x", "y"]

    play(story)
