"""The API's word on ended keys: news for the mesh, and what is known."""

from binascii import b2a_base64
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from protocol.lifecycle import sign_revocation
from tests.meshnode.gateway.api_nodes import NETWORK, Desk, open_desk
from tests.protocol.samples import identity


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_what_is_published_is_known_to_the_mesh(
    autojump_clock: MockClock, desk: Desk
) -> None:
    assert (await desk.http.get("/api/keys")).json() == {
        "peer": desk.node.peer,
        "ended": [],
        "withdrawn": {},
    }
    lost = identity("lost")
    statement = sign_revocation(lost, NETWORK, reason="stolen")
    body = {"statement": b2a_base64(statement, newline=False).decode()}
    answer = await desk.http.post("/api/keys", json=body)
    assert (answer.status_code, answer.json()) == (201, {"peer": lost.peer, "heir": ""})
    (row,) = (await desk.http.get("/api/keys")).json()["ended"]
    assert (row["peer"], row["reason"], row["stands"]) == (lost.peer, "stolen", lost.peer)
    await trio.sleep(5)
    assert desk.worker.fates.bar(lost.peer)


@pytest.mark.parametrize("statement", ["", "?", "AAAA", 3, None])
async def test_what_ends_no_key_is_refused(
    autojump_clock: MockClock, desk: Desk, statement: object
) -> None:
    answer = await desk.http.post("/api/keys", json={"statement": statement})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "request.invalid"
