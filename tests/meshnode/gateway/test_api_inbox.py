"""Letters through the node's API: written, listed, read, deleted, and what is refused."""

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def post(desk: Desk, path: str, body: Any = None, status: int = 200) -> Any:
    answer = await desk.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def get(desk: Desk, path: str) -> Any:
    answer = await desk.http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_letter_is_written_and_how_it_stands_is_told(
    autojump_clock: MockClock, desk: Desk
) -> None:
    body = {"to": desk.worker.peer, "text": "At one?", "subject": "lunch", "expires_s": 60}
    told = await post(desk, "/api/outbox", body, 201)
    assert (told["to"], told["state"], told["code"]) == (desk.worker.peer, "waiting", None)
    assert told["expires_ms"] - told["sent_ms"] == 60_000
    await trio.sleep(2)
    (row,) = (await get(desk, "/api/outbox"))["letters"]
    assert (row["id"], row["state"], row["subject"]) == (told["id"], "delivered", "lunch")
    ((name, _),) = await desk.worker.inbox.rows()
    assert name == told["id"]


async def test_a_letter_that_came_is_listed_read_and_deleted(
    autojump_clock: MockClock, desk: Desk
) -> None:
    assert await get(desk, "/api/inbox") == {"letters": [], "unread": 0}
    name = await desk.worker.outbox.write(desk.node.peer, b"Come at two.", subject="lunch")
    await trio.sleep(2)
    listed = await get(desk, "/api/inbox")
    (row,) = listed["letters"]
    assert (row["id"], row["from"], row["by"]) == (name, desk.worker.peer, None)
    assert (row["subject"], row["read_ms"], listed["unread"]) == ("lunch", None, 1)
    shown = await get(desk, f"/api/inbox/{name[:10]}")
    assert (shown["text"], shown["kind"]) == ("Come at two.", "text/plain")
    read = await post(desk, f"/api/inbox/{name[:10]}/read")
    assert read["read_ms"] >= row["received_ms"]
    assert (await get(desk, "/api/inbox"))["unread"] == 0
    gone = await post(desk, f"/api/inbox/{name}/delete")
    assert gone == {"id": name, "deleted": True}
    assert await get(desk, "/api/inbox") == {"letters": [], "unread": 0}


async def test_bytes_go_as_base64(autojump_clock: MockClock, desk: Desk) -> None:
    raw = bytes(range(256))
    body = {"to": desk.node.peer, "base64": b64encode(raw).decode()}
    told = await post(desk, "/api/outbox", body, 201)
    await trio.sleep(2)
    shown = await get(desk, f"/api/inbox/{told['id']}")
    assert (shown["base64"], shown["kind"]) == (body["base64"], "application/octet-stream")


async def test_whom_it_is_for_may_be_said_shortly(
    autojump_clock: MockClock, desk: Desk
) -> None:
    end = desk.worker.peer[-8:]
    told = await post(desk, "/api/outbox", {"to": end, "text": "x"}, 201)
    assert told["to"] == desk.worker.peer
    deleted = await post(desk, f"/api/inbox/{told['id'][:12]}/delete")
    assert deleted["id"] == told["id"]
    assert (await get(desk, "/api/outbox"))["letters"] == []


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"to": "nobody", "text": "x"}, 404, "node.not_found", "no peer 'nobody'"),
        ({"to": "", "text": "x"}, 404, "node.not_found", "no peer ''"),
        ({"text": "x"}, 400, "request.invalid", "no 'to'"),
        ({"to": "TO"}, 400, "request.invalid", "no 'text'"),
        ({"to": "TO", "text": "x", "base64": ""}, 400, "request.invalid", "or two"),
        ({"to": "TO", "base64": "a"}, 400, "request.invalid", "'base64' is none"),
        ({"to": "TO", "base64": "é"}, 400, "request.invalid", "'base64' is none"),
        ({"to": "TO", "txt": "x"}, 400, "request.invalid", "did you mean 'text'"),
        ({"to": "TO", "text": 3}, 400, "request.invalid", "'text'|text should be text"),
        ({"to": "TO", "text": "x", "subject": "a\nb"}, 422, "input.invalid", "one line"),
        ({"to": "TO", "text": "x", "kind": "A"}, 422, "input.invalid", "media type"),
        ({"to": "TO", "text": "x", "expires_s": 0}, 422, "input.invalid", "expires in 0 s"),
    ],
)
async def test_what_is_no_letter_is_refused(
    autojump_clock: MockClock, desk: Desk, body: Any, status: int, code: str, says: str
) -> None:
    if body.get("to") == "TO":
        body = {**body, "to": desk.worker.peer}
    answer = await desk.http.post("/api/outbox", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert any(part in answer.json()["error"]["message"] for part in says.split("|"))
    assert (await get(desk, "/api/outbox"))["letters"] == []


@pytest.mark.parametrize("name", ["zz", "-", "0" * 64, "%2e%2e", "a" * 65])
async def test_a_letter_that_is_not_there_is_not_found(
    autojump_clock: MockClock, desk: Desk, name: str
) -> None:
    await desk.worker.outbox.write(desk.node.peer, b"x")
    await trio.sleep(2)
    for answer in (
        await desk.http.get(f"/api/inbox/{name}"),
        await desk.http.post(f"/api/inbox/{name}/read"),
        await desk.http.post(f"/api/inbox/{name}/delete"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "node.not_found"
