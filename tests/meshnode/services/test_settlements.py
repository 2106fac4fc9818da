"""What one owner paid another comes off both ledgers, once, whatever crashes or is lost.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import LedgerConfig, NodeConfig
from meshnode.domain.admission import No
from meshnode.errors import Busy, InputInvalid, KeyReused, NoSettlement, NotFound
from meshnode.node import Node
from meshnode.services.bodies import PAYMENT
from meshnode.services.sessions import RequestFailed
from meshnode.services.settlements import Settled
from meshnode.services.signer import Topic
from protocol.messages import read_message
from protocol.settlements import PAYMENT_LIFETIME_MS, Payment, PaymentAnswer
from simulations.mesh import CONFIG, NETWORK, SimMesh
from simulations.money import check_money
from tests.meshnode.services.test_credit import credit, ended, outcome
from tests.meshnode.services.worlds import TextAgent, play, start, until

MANUAL = credit(settlement="manual")


async def owing(mesh: SimMesh, config: NodeConfig = MANUAL) -> tuple[Node, Node]:
    """Have a owe b 6 mc."""
    desk, worker = await start(mesh, config, a=[], b=[TextAgent()])
    assert outcome(await ended(desk, "one", "two", "three")) == "completed"
    return desk, worker


def waiting(node: Node) -> list[str]:
    """Return the payments that ``node``'s owner is to confirm."""
    rows = node.settlements._rows.items()
    return [key for key, row in rows if row.kind == "received"]


def due(desk: Node, worker: Node) -> tuple[int, int]:
    return desk.ledger.balances.due_mc(worker.peer), worker.ledger.balances.due_mc(desk.peer)


def test_a_payment_comes_off_both_ledgers_once_its_payee_confirms() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, row = await desk.settlements.settle(worker.peer, 4, "transfer 17")
        assert (row.state, due(desk, worker)) == ("noted", (-6, 6))
        assert waiting(worker) == [key]
        assert (await worker.settlements.decide(key, came=True)).state == "settled"
        assert due(desk, worker) == (-6, 2), "the payer hasn't heard yet"
        await until(lambda: due(desk, worker) == (-2, 2), within_s=120)
        told = await desk.ledger.history(worker.peer, count_max=1)
        assert (told[0].key, told[0].kind, told[0].note) == (key, "paid", "transfer 17")
        assert list(check_money(mesh)) == []

    play(story)


def test_the_word_of_who_is_believed_is_enough() -> None:
    async def story(mesh: SimMesh) -> None:
        desk = await mesh.start("a", config=MANUAL)
        believing = credit(settlement="manual", believed=(desk.peer,), owed_max_mc=2)
        worker = await mesh.start("b", agents=lambda: [TextAgent()], config=believing)
        await until(lambda: len(desk.known()) == 2)
        assert outcome(await ended(desk, "one")) == "completed"
        assert outcome(await ended(desk, "two")) == "credit.exhausted"
        _, row = await desk.settlements.settle(worker.peer, 2, "cash")
        assert (row.state, due(desk, worker)) == ("settled", (0, 0))
        assert outcome(await ended(desk, "three")) == "completed", "at once"
        await until(lambda: due(desk, worker) == (-2, 2))  # its receipt comes behind the end
        assert list(check_money(mesh)) == []

    play(story)


def test_what_did_not_come_stays_owed() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, _ = await desk.settlements.settle(worker.peer, 4, "lost")
        await worker.settlements.decide(key, came=False)
        key_again, row = await desk.settlements.settle(worker.peer, 4, "lost")
        assert (key_again, row.state, row.text) == (key, "refused", "it did not come")
        assert due(desk, worker) == (-6, 6)
        with pytest.raises(NotFound, match="waits to be confirmed"):
            await worker.settlements.decide(key, came=True)
        another, row = await desk.settlements.settle(worker.peer, 4, "lost")
        assert another != key
        assert row.state == "noted", "a new one, since that was refused"

    play(story)


def test_a_note_is_one_payment_however_often_it_is_said() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        keys = {(await desk.settlements.settle(worker.peer, 4, "one"))[0] for _ in range(3)}
        assert waiting(worker) == [*keys]
        with pytest.raises(KeyReused, match="the payment of 4 mc"):
            await desk.settlements.settle(worker.peer, 5, "one")
        await worker.settlements.decide(*keys, came=True)
        assert (await desk.settlements.settle(worker.peer, 4, "one"))[1].state == "settled"
        assert (await desk.settlements.settle(worker.peer, 4, "one"))[1].state == "settled"
        assert due(desk, worker) == (-2, 2)

    play(story)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_crash_between_the_two_sides_posts_it_once_at_each(name: str) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, _ = await desk.settlements.settle(worker.peer, 4, "x")
        await worker.settlements.decide(key, came=True)
        mesh.crash(name)
        await trio.sleep(1)
        await mesh.restart(name)
        desk, worker = mesh.node("a"), mesh.node("b")
        await until(lambda: due(desk, worker) == (-2, 2), within_s=200)
        await trio.sleep(200)
        assert due(desk, worker) == (-2, 2)
        assert list(check_money(mesh)) == []

    play(story)


def test_a_payee_that_is_away_is_told_when_it_is_back() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        mesh.crash("b")
        _, row = await desk.settlements.settle(worker.peer, 4, "x")
        assert (row.state, bool(row.text)) == ("sent", True)
        mesh.crash("a")
        await mesh.restart("b")
        await mesh.restart("a")
        await until(lambda: len(waiting(mesh.node("b"))) == 1, within_s=200)

    play(story)


def test_a_payment_is_not_settled_after_its_time() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, _ = await desk.settlements.settle(worker.peer, 4, "x")
        clock = mesh.world.clock(skew_ms=PAYMENT_LIFETIME_MS + 1)
        worker.settlements._letters._clock = clock
        with pytest.raises(NotFound, match="over a week old"):
            await worker.settlements.decide(key, came=True)
        assert (await desk.settlements.settle(worker.peer, 4, "x"))[1].state == "refused"
        assert due(desk, worker) == (-6, 6)

    play(story)


def test_what_a_payee_never_heard_of_in_time_lapses() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        desk.artifacts._signer._clock = mesh.world.clock(skew_ms=-2 * PAYMENT_LIFETIME_MS)
        _, row = await desk.settlements.settle(worker.peer, 4, "x")
        assert row.state == "lapsed"
        assert due(desk, worker) == (-6, 6)

    play(story)


@pytest.mark.parametrize(("payer", "payee"), [("none", "manual"), ("manual", "none")])
def test_a_node_that_keeps_balances_only_neither_pays_nor_is_paid(
    payer: str, payee: str
) -> None:
    async def story(mesh: SimMesh) -> None:
        desk = await mesh.start("a", config=credit(settlement=payer))
        worker = await mesh.start(
            "b", agents=lambda: [TextAgent()], config=credit(settlement=payee)
        )
        await until(lambda: len(desk.known()) == 2)
        assert outcome(await ended(desk, "one")) == "completed"
        if payer == "none":
            with pytest.raises(NoSettlement, match="keeps balances only"):
                await desk.settlements.settle(worker.peer, 2, "x")
        else:
            _, row = await desk.settlements.settle(worker.peer, 2, "x")
            assert (row.state, row.text) == (
                "refused",
                "this node settles by none, not by manual",
            )
        await until(lambda: due(desk, worker) == (-2, 2))
        assert mesh.members["b"].disk.tables.get("settlement", {}) == {}

    play(story)


@pytest.mark.parametrize(
    ("amount_mc", "reference"), [(0, "x"), (-1, "x"), (1, ""), (1, "x" * 257)]
)
def test_what_is_no_payment_is_refused(amount_mc: int, reference: str) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        with pytest.raises(InputInvalid):
            await desk.settlements.settle(worker.peer, amount_mc, reference)
        assert await desk.settlements.rows() == {}

    play(story)


def test_a_payee_keeps_few_undecided_payments_of_one_payer() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        states = [
            (await desk.settlements.settle(worker.peer, 1, f"note {n}"))[1].state
            for n in range(17)
        ]
        assert states == ["noted"] * 16 + ["sent"]
        assert len(waiting(worker)) == 16

    play(story)


def test_another_s_payment_is_answered_to_nobody_else() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        thief = await mesh.start("c", config=MANUAL)
        await until(lambda: len(thief.known()) == 3)
        await desk.settlements.settle(worker.peer, 4, "x")
        (row,) = (await desk.settlements.rows()).values()
        for payee in (worker, desk):
            with pytest.raises(RequestFailed):
                await thief.sessions.request(payee.peer, PAYMENT, row.envelope, timeout_s=5.0)

    play(story)


def test_a_payment_that_lives_for_ever_is_malformed() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        signer = desk.artifacts._signer
        header = signer.header(worker.peer, Topic(), lifetime_ms=PAYMENT_LIFETIME_MS + 1)
        payment = Payment(h=header, amount_mc=4, method="manual", reference="x")
        with pytest.raises(RequestFailed, match="a week at most"):
            await desk.sessions.request(
                worker.peer, PAYMENT, signer.sign(payment), timeout_s=5.0
            )

    play(story)


def test_a_port_that_knows_is_asked_and_its_word_counts() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        bank = Bank()
        for node in (desk, worker):
            node.settlements._port = bank
        for _ in range(2):
            _, row = await desk.settlements.settle(worker.peer, 4, "x")
            assert row.state == "settled"
        assert bank.moved == [(worker.peer, 4, "x")]
        assert due(desk, worker) == (-2, 2)

    play(story)


class Bank:
    """A port that pays, and looks for what came; it is slow about some.

    Attributes:
        moved: What was paid: to whom, how much, and for what.
    """

    method = "bank"

    def __init__(self, slow: str = "") -> None:
        self.moved: list[tuple[str, int, str]] = []
        self.opened = trio.Event()
        self._slow = slow

    async def pay(self, peer: str, amount_mc: int, reference: str, /) -> None:
        await self._open(f"pay {reference}")
        self.moved.append((peer, amount_mc, reference))

    async def came(self, _: str, amount_mc: int, reference: str, /) -> bool | None:
        await self._open(f"came {reference}")
        return (amount_mc, reference) in [moved[1:] for moved in self.moved]

    async def _open(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if what == self._slow:
            await self.opened.wait()


def test_a_stranger_that_takes_its_time_holds_up_no_other_payment() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        stranger = await mesh.start("c", config=MANUAL)
        await until(lambda: len(stranger.known()) == 3)
        let_in = worker.settlements._door.stranger
        asked = trio.Event()

        async def slow(peer: str) -> No | None:
            if peer == stranger.peer:
                asked.set()
                await trio.sleep(15)
            return await let_in(peer)

        vars(worker.settlements._door)["stranger"] = slow
        key, _ = await desk.settlements.settle(worker.peer, 1, "first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.settlements.settle, worker.peer, 4, "x")
            await asked.wait()
            with trio.fail_after(1):
                await worker.settlements.decide(key, came=True)
                _, row = await desk.settlements.settle(worker.peer, 4, "y")
            assert row.state == "noted"
            nursery.cancel_scope.cancel()

    play(story)


@pytest.mark.parametrize("slow", ["pay x", "came x"])
def test_a_slow_port_holds_up_the_payment_alone_that_it_is_slow_about(slow: str) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        bank = Bank(slow)
        for node in (desk, worker):
            node.settlements._port = bank
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(desk.settlements.settle, worker.peer, 1, "x")
            await trio.sleep(1)
            with trio.fail_after(1):
                _, row = await desk.settlements.settle(worker.peer, 2, "y")
            assert row.state == "settled"
            bank.opened.set()
        assert sorted(bank.moved) == [(worker.peer, 1, "x"), (worker.peer, 2, "y")]
        await until(lambda: due(desk, worker) == (-3, 3), within_s=200)

    play(story)


def test_a_question_without_an_answer_takes_back_none_that_came_meanwhile() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        ask, asked, gone = desk.sessions.request, trio.Event(), trio.Event()

        async def lost(*_: Any, **__: Any) -> bytes:
            asked.set()
            await gone.wait()
            raise Busy("the session")

        vars(desk.sessions)["request"] = lost
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.settlements.settle, worker.peer, 4, "x")
            await asked.wait()
            vars(desk.sessions)["request"] = ask
            assert (await desk.settlements.settle(worker.peer, 4, "x"))[1].state == "noted"
            gone.set()
        (row,) = (await desk.settlements.rows()).values()
        assert row.state == "noted"

    play(story)


@pytest.mark.parametrize("text", ["go away", ""])
def test_who_may_not_call_pays_nothing_whatever_he_is_told(text: str) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)

        async def nobody(_: str) -> No | None:
            await trio.lowlevel.checkpoint()
            return No("access", text)

        vars(worker.settlements._door)["stranger"] = nobody
        _, row = await desk.settlements.settle(worker.peer, 4, "x")
        assert (row.state, row.text) == ("refused", text)
        assert await worker.settlements.rows() == {}

    play(story)


def test_the_answer_is_kept_as_proof_and_old_ones_are_forgotten() -> None:
    async def story(mesh: SimMesh) -> None:
        host: Any = msgspec.structs.replace(CONFIG.host, history_s=86_400.0)
        desk = await mesh.start("a", config=msgspec.structs.replace(MANUAL, host=host))
        believing = msgspec.structs.replace(
            MANUAL, ledger=LedgerConfig(settlement="manual", believed=(desk.peer,)), host=host
        )
        worker = await mesh.start("b", agents=lambda: [TextAgent()], config=believing)
        await until(lambda: len(desk.known()) == 2)
        assert outcome(await ended(desk, "one")) == "completed"
        key, row = await desk.settlements.settle(worker.peer, 2, "x")
        answer = read_message(row.answer, PaymentAnswer, network=NETWORK)
        assert (answer.payment.hex(), answer.state) == (key, "settled")
        later = mesh.world.clock(skew_ms=9 * 86_400_000)
        for node in (desk, worker):
            (kept,) = (await node.settlements.rows()).values()
            assert isinstance(kept, Settled)
            await node.settlements.forget_old()
            assert len(await node.settlements.rows()) == 1
            context = node.settlements._context
            object.__setattr__(context, "clock", later)
            await node.settlements.forget_old()
            assert await node.settlements.rows() == {}
        assert due(desk, worker) == (0, 0)

    play(story)
