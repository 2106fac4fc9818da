"""Who owes whom, as the node's API tells it."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import Desk, open_desk
from tests.meshnode.gateway.test_api_owner import ask_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_who_owes_what_is_told_with_the_receipts(
    autojump_clock: MockClock, desk: Desk
) -> None:
    told = (await desk.http.get("/api/ledger")).json()
    assert (told["peers"], told["owed_mc"], told["owing_mc"]) == ([], 0, 0)
    assert told["limits"] == {"owed_max_mc": None, "owing_max_mc": None}
    assert await ask_desk(desk) == "completed"
    told = (await desk.http.get("/api/ledger")).json()
    (row,) = told["peers"]
    assert (row["peer"], row["due_mc"], row["earned_mc"]) == (desk.worker.peer, 1, 1)
    assert (told["owed_mc"], told["owing_mc"]) == (1, 0)
    for name in (desk.worker.peer, desk.worker.peer[-8:]):
        shown = (await desk.http.get(f"/api/ledger/{name}")).json()
        assert (shown["peer"], shown["due_mc"]) == (desk.worker.peer, 1)
        (posting,) = shown["postings"]
        assert (posting["kind"], posting["amount_mc"], posting["unit"]) == (
            "earned",
            1,
            "join/0",
        )
    assert (await desk.http.get(f"/api/ledger/{desk.worker.peer}?limit=0")).json()[
        "postings"
    ] == []


@pytest.mark.parametrize("name", ["nobody", "x", "n" * 500])
async def test_who_is_not_known_is_not_found(
    autojump_clock: MockClock, desk: Desk, name: str
) -> None:
    answer = await desk.http.get(f"/api/ledger/{name}")
    assert answer.status_code == 404


async def test_a_node_without_settlement_says_so(autojump_clock: MockClock, desk: Desk) -> None:
    body = {"amount_mc": 5, "note": "x"}
    answer = await desk.http.post(f"/api/ledger/{desk.worker.peer}/settle", json=body)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "ledger.no_settlement"
    assert "ledger.settlement" in answer.json()["error"]["hint"]
    for what in ("confirm", "deny"):
        answer = await desk.http.post(f"/api/payments/00ff/{what}")
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"note": "x"}, 400),
        ({"amount_mc": "5"}, 400),
        ({"amount_mc": 5, "notes": "x"}, 400),
        ({"amount_mc": 5}, 422),
        ({"amount_mc": 0, "note": "x"}, 422),
    ],
)
async def test_what_is_no_payment_is_refused(
    autojump_clock: MockClock, desk: Desk, body: object, status: int
) -> None:
    answer = await desk.http.post(f"/api/ledger/{desk.worker.peer}/settle", json=body)
    assert answer.status_code == status
