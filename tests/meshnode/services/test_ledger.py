"""What is owed is written down with the receipts, once, and outlives them.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.domain.ledger import Posting, Standing
from meshnode.errors import StoreError
from meshnode.node import Node
from meshnode.ports import Add, Once, Put
from meshnode.services.bodies import ACCEPTANCE, RECEIPTS
from meshnode.services.buyers import BUYERS, UNACCEPTED
from meshnode.services.crash_points import read_crash_point
from meshnode.services.ledger import BALANCES, HISTORY, POSTINGS, Ledger
from meshnode.services.retention import RECEIPT_S_MIN
from simulations.agents import CallBook
from simulations.checkers import check_rest
from simulations.ledgers import amounts, check_ledgers, postings
from simulations.mesh import CONFIG, SimMesh
from simulations.money import check_money
from tests.meshnode.services.test_retention import days_later
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, until


async def worked(mesh: SimMesh, **agent: Any) -> tuple[Node, Node]:
    """Have b shout three words for a, at 2 mc each; both have the receipts."""
    desk, worker = await start(mesh, a=[], b=[TextAgent(**agent)])
    await shouted(desk)
    return desk, worker


async def shouted(desk: Node) -> None:
    await desk.wait(await desk.submit(shouting(3), inputs("one", "two", "three")))
    await until(lambda: not desk.receipts._sending)


def test_both_sides_say_what_is_owed_and_for_what() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        assert desk.ledger.balances.standing(worker.peer) == Standing(-6, 0, 6, 0, 0)
        assert worker.ledger.balances.standing(desk.peer) == Standing(6, 6, 0, 0, 0)
        told = await worker.ledger.history(desk.peer, count_max=100)
        assert sum(posting.amount_mc for posting in told) == 6
        assert {posting.key for posting in told} == mesh.members["b"].disk.tables[
            RECEIPTS
        ].keys()
        ((job, _),) = await desk.broker.jobs()
        assert {posting.job for posting in told} == {job}
        assert sorted(p.unit for p in told) == sorted(
            p.unit for p in await desk.ledger.history(worker.peer, count_max=100)
        )
        assert list(check_money(mesh)) == []

    play(story)


def test_the_newest_come_first_and_no_more_than_wanted() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        await trio.sleep(5)
        await shouted(desk)
        told = await desk.ledger.history(worker.peer, count_max=100)
        times = [posting.at_ms for posting in told]
        assert times == sorted(times, reverse=True)
        assert times[0] > times[-1]
        assert await desk.ledger.history(worker.peer, count_max=1) == told[:1]

    play(story)


@pytest.mark.parametrize("name", ["a", "b"])
def test_what_is_owed_survives_a_crash(name: str) -> None:
    async def story(mesh: SimMesh) -> None:
        await worked(mesh)
        before = mesh.node(name).ledger.balances.amounts()
        mesh.crash(name)
        await mesh.restart(name)
        assert mesh.node(name).ledger.balances.amounts() == before != {}

    play(story)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize(("name", "label"), [("a", "job.charged"), ("b", "receipt.kept")])
def test_no_crash_parts_a_posting_from_its_receipt(name: str, label: str, side: str) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, _ = await start(mesh, a=[], b=[TextAgent()])
        died = trio.Event()
        mesh.crash_at(name, read_crash_point(f"{side}:{label}"), died.set)
        job = await desk.submit(shouting(3), inputs("one", "two", "three"))
        with trio.fail_after(60):
            await died.wait()
        receipts = mesh.members[name].disk.tables.get(RECEIPTS, {})
        assert receipts.keys() == {posting.key for posting in postings(mesh.members[name])}
        assert bool(receipts) == (side == "after")
        await mesh.restart(name)
        desk = mesh.node("a")
        await desk.wait(job)
        await until(lambda: not mesh.members["a"].disk.tables.get("acceptance_due"))
        assert list(check_money(mesh)) == []

    play(story)


def test_what_the_disk_refused_is_not_owed_until_it_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await start(mesh, a=[], b=[TextAgent()])
        honest = worker.ledger.commit
        refused: list[int] = []

        async def once_full(posting: Posting | None, *writes: Any) -> None:
            if not refused:
                refused.append(worker.ledger.balances.due_mc(desk.peer))
                life = mesh.members["b"].life
                assert life is not None
                life.store.fail_next()
            await honest(posting, *writes)

        monkeypatch.setattr(worker.ledger, "commit", once_full)
        await desk.wait(await desk.submit(shouting(), inputs("one")))
        await until(lambda: worker.ledger.balances.due_mc(desk.peer) == 2)
        assert refused == [0]
        assert list(check_money(mesh)) == []

    play(story)


def test_an_acceptance_that_comes_again_is_owed_once() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        for row in await desk.served():
            await desk.sessions.request(worker.peer, ACCEPTANCE, row.acceptance, timeout_s=5.0)
        assert worker.ledger.balances.due_mc(desk.peer) == 6
        assert amounts(mesh.members["b"]) == worker.ledger.balances.amounts()

    play(story)


def test_a_posting_that_is_written_again_changes_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        before = amounts(mesh.members["a"])
        for posting in await desk.ledger.history(worker.peer, count_max=100):
            later = msgspec.structs.replace(posting, at_ms=posting.at_ms + 1)
            await desk.ledger._store.commit(*Ledger.writes(posting), *Ledger.writes(later))
        assert amounts(mesh.members["a"]) == before
        assert list(check_money(mesh)) == []

    play(story)


def test_free_work_is_not_owed() -> None:
    async def story(mesh: SimMesh) -> None:
        _, worker = await worked(mesh, price_mc=0)
        assert len(await worker.served()) == 3
        for name in "ab":
            assert postings(mesh.members[name]) == []
            assert amounts(mesh.members[name]) == {}
        assert list(check_money(mesh)) == []

    play(story)


def test_work_for_oneself_is_not_owed() -> None:
    async def story(mesh: SimMesh) -> None:
        (alone,) = await start(mesh, a=[TextAgent()])
        await shouted(alone)
        assert len(await alone.served()) == 3
        assert alone.ledger.balances.peers() == []
        assert amounts(mesh.members["a"]) == {}
        assert list(check_money(mesh)) == []

    play(story)


def test_postings_go_with_their_receipts_and_balances_stay() -> None:
    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(CONFIG.host, history_s=86_400.0)
        config = msgspec.structs.replace(CONFIG, host=host)
        desk, worker = await start(mesh, config, a=[], b=[TextAgent()])
        await shouted(desk)
        for node, name, due_mc in ((desk, "a", -6), (worker, "b", 6)):
            (other,) = node.ledger.balances.peers()
            days_later(mesh, node, RECEIPT_S_MIN / 86_400 - 0.1)
            await node.retention.sweep()
            assert await node.ledger.history(other, count_max=1)
            days_later(mesh, node, RECEIPT_S_MIN / 86_400 + 0.1)
            await node.retention.sweep()
            tables = mesh.members[name].disk.tables
            assert (tables[HISTORY], tables[POSTINGS]) == ({}, {})
            mesh.crash(name)
            await mesh.restart(name)
            assert mesh.node(name).ledger.balances.due_mc(other) == due_mc

    play(story)


def test_a_start_reads_balances_and_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        store, looked = desk.ledger._store, list[str]()
        honest = store.scan

        async def noting(table: str, prefix: str = "", *, count_max: int = 10_000) -> Any:
            looked.append(table)
            return await honest(table, prefix, count_max=count_max)

        monkeypatch.setattr(store, "scan", noting)
        await desk.ledger.load()
        assert looked == [BALANCES, BUYERS, UNACCEPTED]
        assert desk.ledger.balances.due_mc(worker.peer) == -6

    play(story)


def test_a_balance_that_is_none_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        (desk,) = await start(mesh, a=[])
        await desk.ledger._store.commit(Put(BALANCES, "due/somebody", b"much"))
        with pytest.raises(StoreError, match="is no sum"):
            await desk.ledger.load()

    play(story)


# --- the checker --------------------------------------------------------------------------


def test_the_checker_sees_each_thing_that_is_wrong() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await worked(mesh)
        store, peer = desk.ledger._store, worker.peer

        def found() -> str:
            return "\n".join(check_money(mesh))

        assert found() == ""
        await store.commit(Add(BALANCES, f"due/{peer}", -1))
        told = found()
        assert "the accounts of a make -1 mc" in told
        assert "its postings make" in told
        assert any("a believes in balances of" in line for line in check_rest(mesh, CallBook()))
        assert "says that b owes it -7 mc, and b that it owes -6 mc" in told
        await store.commit(Add(BALANCES, f"due/{peer}", 1))
        assert found() == ""
        stray = Posting(key="00", peer=peer, kind="spent", amount_mc=1, at_ms=1)
        await desk.ledger.commit(stray)
        assert "a posted 1 mc spent (b) for award 00, its receipt says nothing" in found()
        await store.commit(Once(POSTINGS, "01", b""))
        assert "a has other keys than postings" in found()
        assert any(
            "its receipt says nothing" in line for line in check_ledgers(mesh, paid={}, got={})
        )

    play(story)
