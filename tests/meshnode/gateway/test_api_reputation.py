"""Who is believed how far, as the node's API tells it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from trio.testing import MockClock

from meshnode.domain.spot_checks import Spotted
from meshnode.domain.trust.accounts import account_of, told
from meshnode.domain.trust.rules import Kind
from meshnode.node import Node
from protocol.keys import digest
from protocol.messages import read_message
from protocol.receipts import Acceptance
from tests.meshnode.gateway.api_nodes import NETWORK, Desk, open_desk

UPPER = "text.upper@1"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def learn(node: Node, agent: str, *kinds: Kind, source: bytes = b"") -> None:
    noted = [node.reputation.note(UPPER, agent, kind, source=source) for kind in kinds]
    await node._ports.store.commit(*(write for one in noted for write in one.writes))
    node.reputation.learned(*noted)


async def test_all_agents_are_listed_the_most_credible_first(
    autojump_clock: MockClock, desk: Desk
) -> None:
    agents = (await desk.http.get("/api/reputation")).json()["agents"]
    assert len(agents) > 1
    # This node's own begin as members do; who is new is believed as newcomers are.
    for row in agents:
        own = row["agent"].startswith(desk.node.peer)
        assert row["credibility"] == (0.8 if own else 0.4)
    worker = f"{desk.worker.peer}/upper"
    await learn(desk.node, worker, "gold_passed", "gold_passed", "gold_passed", "served")
    await learn(desk.node, "12D3KooWLiar/upper", "gold_failed", "served", "absent")
    path = f"/api/reputation?capability={UPPER}"
    rows = (await desk.http.get(path)).json()["agents"]
    assert [row["capability"] for row in rows] == [UPPER] * len(rows)
    assert [row["credibility"] for row in rows] == sorted(
        (row["credibility"] for row in rows), reverse=True
    )
    by_agent = {row["agent"]: row for row in rows}
    assert by_agent[worker]["state"] == "alone"
    assert by_agent[worker]["events"] == 4
    assert by_agent["12D3KooWLiar/upper"]["state"] == "blocked"
    assert by_agent["12D3KooWLiar/upper"]["seen_against"] == pytest.approx(1.0)


async def test_one_is_told_with_what_it_is_made_of_and_the_receipts(
    autojump_clock: MockClock, desk: Desk
) -> None:
    job = await desk.submit()
    assert (await desk.ended(job))["state"] == "completed"
    rows = await desk.node.served()
    worker = f"{desk.worker.peer}/upper"
    award = digest(rows[0].award)
    accepted = read_message(rows[0].acceptance, Acceptance, network=NETWORK)
    await learn(desk.node, worker, "check_passed", "served", source=award)
    await learn(desk.node, worker, "agreed")
    found: Any = None
    for name in (worker, desk.worker.peer, desk.worker.peer[-8:]):
        answer = await desk.http.get(f"/api/reputation/{name}")
        accounts = {one["agent"]: one for one in answer.json()["accounts"]}
        found = accounts[worker]
    kept = await desk.node.reputation.kept(UPPER, worker)
    made = account_of([row.event for row in kept.rows], now_ms=desk.node.clock.now_ms())
    assert found["credibility"] == made.credibility
    assert found["lines"] == told(made)
    assert [part["kind"] for part in found["parts"]] == [part.kind for part in made.parts]
    newest, *others = found["evidence"]
    assert (newest["kind"], newest["receipt"]) == ("agreed", None)
    # Beside what the job itself has taught.
    proven = next(one for one in others if one["kind"] == "check_passed")
    assert proven["source"] == award.hex()
    assert proven["receipt"]["job"] == job
    assert proven["receipt"]["unit"] == accepted.h.subtask
    assert proven["receipt"]["paid_mc"] == accepted.paid_mc > 0
    few = (await desk.http.get(f"/api/reputation/{worker}?limit=1")).json()["accounts"]
    assert [one["kind"] for one in few[0]["evidence"]] == ["agreed"]


@pytest.mark.parametrize("name", ["nobody", "x/y", "n" * 500, "{worker}/nobody", "%2F"])
async def test_who_is_not_known_is_not_found(
    autojump_clock: MockClock, desk: Desk, name: str
) -> None:
    meant = name.format(worker=desk.worker.peer)
    assert (await desk.http.get(f"/api/reputation/{meant}")).status_code == 404


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "what=1"])
async def test_what_is_no_question_is_refused(
    autojump_clock: MockClock, desk: Desk, query: str
) -> None:
    answer = await desk.http.get(f"/api/reputation/{desk.worker.peer}?{query}")
    assert answer.status_code == 400


async def test_who_overclaims_is_told_by_name_wherever_agents_are_told(
    autojump_clock: MockClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = f"{desk.worker.peer}/upper"
    seen = Spotted(tried=4, right=4, asked=3, overclaims=True)
    unseen = desk.node.spots.of
    monkeypatch.setattr(
        desk.node.spots,
        "of",
        lambda name, agent: seen if agent == worker else unseen(name, agent),
    )
    line = "claims 4 of 4 of its examples right, 0 of 3 seen; it overclaims"
    (account,) = (await desk.http.get(f"/api/reputation/{worker}")).json()["accounts"]
    assert account["overclaims"]
    assert account["lines"][-1] == line
    rows = (await desk.http.get("/api/reputation")).json()["agents"]
    assert [row["agent"] for row in rows if row["overclaims"]] == [worker]
    listed = (await desk.http.get("/api/agents")).json()["agents"]
    told = {row["agent"]: row["seen"] for row in listed}
    assert told[worker]["text"].endswith(line)
    assert [agent for agent, row in told.items() if row["overclaims"]] == [worker]


async def test_buyers_are_told_with_what_they_have_and_may_have(
    autojump_clock: MockClock, desk: Desk
) -> None:
    assert (await desk.http.get("/api/buyers")).json() == {"buyers": []}
    taker, buyers = desk.worker.peer, desk.node.ledger.buyers
    for award, price_mc in ((b"a", 300), (b"b", 40)):
        buyers.delivered(award, taker, price_mc, 1)
    await buyers.refuse(b"a".hex())
    (row,) = (await desk.http.get("/api/buyers")).json()["buyers"]
    assert (row["peer"], row["out_mc"], row["lost_mc"]) == (taker, 340, 300)
    assert (row["cap_mc"], row["first_mc"], row["fairness"]) == (500, 1_000, 0.5)
    assert (await desk.http.get("/api/buyers?x=1")).status_code == 400
