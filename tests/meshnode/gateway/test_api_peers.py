"""Letters and payments go to whom the owner means, or to nobody."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from meshnode.errors import NotFound
from meshnode.gateway.api_peers import who_is_meant
from tests.meshnode.gateway.api_nodes import Desk, open_desk

NOBODY = "12D3KooWLSZa9aH2u7PQZFxXtBy8cJP3P1knDWmYZNw9YYP6KZTW"


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_a_peer_is_named_by_its_id_the_end_of_it_or_what_the_owner_calls_it(
    autojump_clock: MockClock, desk: Desk
) -> None:
    worker = desk.worker.peer
    names = {worker: "ann"}
    vars(desk.node.members)["name_of"] = lambda peer: names.get(peer, "")
    for text in (worker, worker[-8:], worker[-6:], "ann"):
        assert await who_is_meant(desk.node, text) == worker
    for text in ("", worker[-5:], worker[:8], "bob", NOBODY):
        with pytest.raises(NotFound, match="no peer"):
            await who_is_meant(desk.node, text)
    assert await who_is_meant(desk.node, NOBODY, or_anybody=True) == NOBODY
    names[desk.node.peer] = worker[-8:]
    assert await who_is_meant(desk.node, worker[-8:]) == desk.node.peer, "his names come first"
    names[desk.node.peer] = "ann"
    with pytest.raises(NotFound, match="2 peers"):
        await who_is_meant(desk.node, "ann")


async def test_the_ledger_and_the_outbox_mean_the_same_peer(
    autojump_clock: MockClock, desk: Desk
) -> None:
    vars(desk.node.members)["name_of"] = {desk.worker.peer: "ann"}.get
    told = (await desk.http.get("/api/ledger/ann")).json()
    assert told["peer"] == desk.worker.peer
    body = {"to": "ann", "text": "x"}
    assert (await desk.http.post("/api/outbox", json=body)).json()["to"] == desk.worker.peer
    answer = await desk.http.get(f"/api/ledger/{NOBODY}")
    assert answer.status_code == 404, "nobody is paid of whom this node never heard"
