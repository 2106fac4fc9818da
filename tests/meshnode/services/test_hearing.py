"""What others' receipts say is heard from who is believed, bounded, and gives nothing away.

Real nodes in virtual time (a MockClock's).
"""

from dataclasses import replace
from random import Random
from typing import Any, Final

import msgspec
import pytest
import trio

from meshnode.config import MEMBERS, AccessConfig
from meshnode.domain.trust.hearsay import Deal
from meshnode.domain.trust.rules import RULES, Kind, mu
from meshnode.errors import Busy
from meshnode.node import Node
from meshnode.services import hearing, testimony
from meshnode.services.hearsay_rows import CURSORS, DEALS, HALVES, HEARD
from meshnode.services.retention import RECEIPT_S_MIN
from meshnode.services.sessions import Incoming
from meshnode.services.testimony_rows import TESTIMONY
from protocol.codec import encode
from protocol.receipts import Spent
from protocol.reputation import ASK, Halves, Question, Told, read_body
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.finished import SHOUT, contract, keep
from tests.meshnode.services.test_retention import days_later
from tests.meshnode.services.worlds import (
    TextAgent,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)
from tests.protocol.samples import identity

WORKER: Final = identity("worker")
AGENT: Final = f"{WORKER.peer}/shout"
GOLDS: Final[tuple[Kind, ...]] = ("gold_passed",) * 9


async def believe(node: Node, peer: str, *kinds: Kind) -> None:
    """Have ``node`` see an agent of ``peer`` do well."""
    kinds = kinds or GOLDS[:6]
    noted = [node.reputation.note(SHOUT, f"{peer}/shout", kind) for kind in kinds]
    await node._ports.store.commit(*(write for one in noted for write in one.writes))
    node.reputation.learned(*noted)


async def two(mesh: SimMesh, *verdicts: str, **said: Any) -> tuple[Node, Node]:
    """Start a and b; a believes b, which has finished contracts with :data:`WORKER`."""
    a, b = await start(mesh, a=[], b=[])
    await believe(a, b.peer)
    buyer, at_ms = mesh.members["b"].identity, b.clock.now_ms() - 90_000
    rows = []
    for number, verdict in enumerate(verdicts):
        paid = {"paid_mc": 0} if verdict == "rejected" else {}
        row = contract(
            buyer, WORKER, number, at_ms=at_ms + number, verdict=verdict, **paid, **said
        )
        rows.append(row)
    await keep(b, *rows)
    return a, b


def test_receipts_of_who_is_believed_count_and_a_restart_changes_no_bit() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh, "verified", "agreed", "rejected", "unverified", "contested")
        assert a.reputation.credibility(SHOUT, AGENT) == pytest.approx(0.4)
        await a.gossip.hearing.round()
        said = a.reputation.imported(SHOUT, AGENT)
        # A verified and an agreed one, which is as much as one rater may say; the rejection
        # proves nothing, the others say nothing.
        assert said.good_mu == mu(RULES.rater_max) < mu(1 + RULES.agreed) / 2
        assert said.bad_mu == 0
        account, _ = await a.reputation.account(SHOUT, AGENT)
        assert [share.rater for share in account.heard] == [b.peer]
        assert account.credibility == a.reputation.credibility(SHOUT, AGENT) > 0.5
        # It is no evidence of this node's own: nobody becomes a rater by it.
        assert a.gossip.hearing.raters() == [b.peer]
        mesh.crash("a")
        a = await mesh.restart("a")
        assert a.reputation.imported(SHOUT, AGENT) == said
        assert (await a.reputation.account(SHOUT, AGENT))[0] == account
        await a.gossip.hearing.weigh()
        assert a.reputation.imported(SHOUT, AGENT) == said

    play(story)


@pytest.mark.parametrize(
    "kinds", [("gold_failed",), ("gold_passed", "gold_failed"), ("served",)]
)
def test_who_is_not_believed_is_not_asked(kinds: tuple[Kind, ...]) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[])
        await believe(a, b.peer, *kinds)
        await keep(b, contract(mesh.members["b"].identity, WORKER, 0, at_ms=b.clock.now_ms()))
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT) == (0, 0)
        assert not mesh.members["a"].disk.tables.get(CURSORS)

    play(story)


def test_it_is_asked_now_and_then_without_being_told_to() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await two(mesh, "verified")
        await trio.sleep(130)
        assert a.reputation.imported(SHOUT, AGENT).good_mu > 0

    play(story)


def test_what_the_work_was_about_is_not_told() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[], c=[TextAgent()])
        await believe(a, b.peer)
        await believe(a, c.peer)
        await b.wait(await b.submit(shouting(), inputs("confidential")))
        await until(lambda: not b.receipts._sending)
        (row,) = await b.receipts.rows()
        assert b"confidential" in row.award
        assert b"CONFIDENTIAL" in row.result
        for teller in (b, c):
            answer = await a.sessions.request(
                teller.peer, ASK, encode(Question(SHOUT)), timeout_s=5
            )
            assert read_body(answer, Told).contracts == [Halves(row.receipt, row.acceptance)]
            assert b"confidential" not in answer.lower()
        await a.gossip.hearing.round()
        assert told(a, "hearsay.untold") == []
        for table in mesh.members["a"].disk.tables.values():
            for value in table.values():
                assert b"confidential" not in value.lower()

    play(story)


def test_work_below_and_strangers_are_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(mesh: SimMesh) -> None:
        below = [Spent(level=1, subtask="x/0", peer=WORKER.peer, awards=1, cost_mc=1)]
        a, b = await two(mesh, "verified", below=below)
        assert (await b.gossip.testimony.told(Question(SHOUT))).contracts == []
        await keep(b, contract(mesh.members["b"].identity, WORKER, 7, at_ms=b.clock.now_ms()))
        assert len((await b.gossip.testimony.told(Question(SHOUT))).contracts) == 1
        assert (await b.gossip.testimony.told(Question("text.shou@1"))).contracts == []

        async def stranger(_: str) -> bool:
            return False

        monkeypatch.setattr(b.members, "may_call", stranger)
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT) == (0, 0)

    play(story)


def test_all_is_told_page_by_page_and_once_and_the_newest_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "KEPT_MAX", 90)

    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh, *["verified"] * 150)
        asked: list[Told] = []
        honest = b.gossip.testimony.told

        async def counting(question: Question) -> Told:
            asked.append(await honest(question))
            return asked[-1]

        monkeypatch.setattr(b.gossip.testimony, "told", counting)
        await a.gossip.hearing.round()
        assert [len(answer.contracts) for answer in asked] == [64, 64, 22]
        tables = mesh.members["a"].disk.tables
        assert len(tables[DEALS]) == len(tables[HALVES]) == 90
        times = [int(key.split("/")[2]) for key in tables[DEALS]]
        assert max(times) - min(times) == 89
        await a.gossip.hearing.round()
        assert [len(answer.contracts) for answer in asked] == [64, 64, 22, 0]
        await trio.sleep(1)
        late = contract(mesh.members["b"].identity, WORKER, 999, at_ms=b.clock.now_ms())
        await keep(b, late)
        await a.gossip.hearing.round()
        assert len(asked[-1].contracts) == 1
        # Of one rater three units count, however much it tells.
        assert a.reputation.imported(SHOUT, AGENT).good_mu <= mu(RULES.rater_max)

    play(story)


def test_a_cursor_that_the_teller_never_wrote_begins_at_the_beginning() -> None:
    async def story(mesh: SimMesh) -> None:
        _, b = await two(mesh, "verified", "verified")
        for after in ("", "x", "9" * 15, "0" * 15 + "/" + "f" * 63):
            assert len((await b.gossip.testimony.told(Question(SHOUT, after))).contracts) == 2
        found = await b.gossip.testimony.told(Question(SHOUT))
        again = await b.gossip.testimony.told(Question(SHOUT, found.next))
        assert (again.contracts, again.next) == ([], found.next)

    play(story)


def test_no_more_than_the_window_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testimony, "WINDOW", 3)

    async def story(mesh: SimMesh) -> None:
        _, b = await two(mesh, *["verified"] * 5)
        assert len((await b.gossip.testimony.told(Question(SHOUT))).contracts) == 3

    play(story)


@pytest.mark.parametrize("lie", ["others", "future", "capability", "garbage", "endless"])
def test_a_lie_is_not_taken_and_nothing_with_it(lie: str) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh)
        buyer, now_ms = mesh.members["b"].identity, b.clock.now_ms()
        good = contract(buyer, WORKER, 0, at_ms=now_ms)
        bad = {
            "others": contract(identity("x"), WORKER, 1, at_ms=now_ms),
            "future": contract(buyer, WORKER, 1, at_ms=now_ms + 100_000),
        }.get(lie, good)
        rows = [Halves(row.receipt, row.acceptance) for row in (good, bad)]

        async def lying(incoming: Incoming) -> bytes:
            await trio.lowlevel.checkpoint()
            match lie:
                case "capability":
                    return encode(Told([Halves(bad.award, bad.acceptance)], "", more=False))
                case "garbage":
                    return b"\xc1"
                case "endless":
                    return encode(Told([], "", more=True))
                case _:
                    return encode(Told(rows, "", more=False))

        b.sessions.handle(ASK, lying)
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT) == (0, 0)
        assert not mesh.members["a"].disk.tables.get(DEALS)
        assert len(told(a, "hearsay.untold")) == 1

    play(story)


def test_what_a_contractor_tells_of_itself_does_not_count() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh)
        worker, now_ms = mesh.members["b"].identity, b.clock.now_ms()
        rows = [contract(identity(f"x{i}"), worker, i, at_ms=now_ms) for i in range(9)]
        await keep(b, *rows)
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, f"{b.peer}/shout") == (0, 0)
        assert not mesh.members["a"].disk.tables.get(DEALS)

    play(story)


@pytest.mark.parametrize("rejected", [0.0, 0.1, 0.5])
def test_whatever_is_heard_stays_within_its_bound(rejected: float) -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        # So much of one rater that thirty say more than all together may.
        rules = a.reputation.rules = replace(RULES, rater_max=4.0)
        chance = Random(7)
        raters = [f"12D3KooWRater{number:02}" for number in range(30)]
        agents = [f"12D3KooWAgent{number}/shout" for number in range(4)]
        for rater in raters:
            await believe(a, rater, *GOLDS[: chance.randint(1, 9)])
        by_rater = a.gossip.hearing._deals.setdefault(SHOUT, {})
        for rater in raters:
            by_rater[rater] = {
                f"{rater}{number}": Deal(
                    rater,
                    chance.choice([*agents, f"{chance.choice(raters)}/shout"]),
                    "rejected" if chance.random() < rejected else "verified",
                    number,
                    both_signed=True,
                    settled=True,
                )
                for number in range(chance.choice([3, 200]))
            }
        await a.gossip.hearing.weigh()
        heard = mesh.members["a"].disk.tables[HEARD]
        assert len(heard) > len(agents)
        for agent in agents:
            said = a.reputation.imported(SHOUT, agent)
            assert mu(1) < said.good_mu + said.bad_mu <= mu(RULES.import_max)
            if not rejected:  # all raters agree, so the bound is what bounds them
                assert said.good_mu > mu(RULES.import_max) - len(raters)
            account, _ = await a.reputation.account(SHOUT, agent)
            for share in account.heard:
                assert share.good_mu + share.bad_mu <= mu(rules.rater_max)

    play(story)


def test_what_is_no_longer_said_is_forgotten() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh, "verified")
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT).good_mu > 0
        await believe(a, b.peer, "gold_failed", "caught", "gold_failed", "gold_failed")
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT) == (0, 0)
        tables = mesh.members["a"].disk.tables
        assert not any(tables.get(table) for table in (HEARD, DEALS, HALVES, CURSORS))
        # Believed again, it is heard from the beginning.
        await believe(a, b.peer, *GOLDS, *GOLDS, *GOLDS)
        await a.gossip.hearing.round()
        assert a.reputation.imported(SHOUT, AGENT).good_mu > 0

    play(story)


def test_names_behind_one_that_is_believed_add_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        await believe(a, "12D3KooWTrusted")
        names = [f"12D3KooWSybil{number}" for number in range(40)]

        async def heard(*sybils: str) -> int:
            """Return what counts where the believed one vouches for them, and they for x."""
            by_rater = a.gossip.hearing._deals[SHOUT] = {}
            worked = [("12D3KooWTrusted", f"{name}/shout") for name in sybils]
            worked += [(name, "12D3KooWX/shout") for name in ("12D3KooWTrusted", *sybils)]
            for number, (buyer, agent) in enumerate(worked * 9):
                deal = Deal(buyer, agent, "verified", number, both_signed=True, settled=True)
                by_rater.setdefault(buyer, {})[str(number)] = deal
            await a.gossip.hearing.weigh()
            return a.reputation.imported(SHOUT, "12D3KooWX/shout").good_mu

        assert mu(0.5) < await heard() <= mu(RULES.rater_max)
        assert await heard(*names) <= await heard(names[0]) <= await heard()

    play(story)


def test_what_may_be_told_is_forgotten_with_the_receipt() -> None:
    async def story(mesh: SimMesh) -> None:
        _, b = await two(mesh, "verified", "agreed")
        host = msgspec.structs.replace(CONFIG.host, history_s=0.0)
        b.retention._history_s = host.history_s
        tables = mesh.members["b"].disk.tables
        assert len(tables[TESTIMONY]) == 2
        days_later(mesh, b, RECEIPT_S_MIN / 86_400 + 1)
        await b.retention.sweep()
        assert not tables.get(TESTIMONY)
        assert (await b.gossip.testimony.told(Question(SHOUT))).contracts == []

    play(story)


def test_who_asks_too_often_is_told_to_wait() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await two(mesh)
        body = encode(Question(SHOUT))

        async def ask(times: int) -> None:
            for _ in range(times):
                await a.sessions.request(b.peer, ASK, body, timeout_s=5)

        await ask(60)
        with pytest.raises(Busy):
            await ask(40)

    play(story)


def test_in_a_private_mesh_strangers_hear_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        config = msgspec.structs.replace(CONFIG, access=AccessConfig(callers=MEMBERS))
        a, b = await start(mesh, config, a=[], b=[])
        await keep(b, contract(mesh.members["b"].identity, WORKER, 0, at_ms=b.clock.now_ms()))
        answer = await a.sessions.request(b.peer, ASK, encode(Question(SHOUT)), timeout_s=30)
        assert read_body(answer, Told).contracts == []

    play(story)
