"""A program with a certified key is let in for what its certificate says, and no more."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from trio.testing import MockClock

from meshnode.gateway.app_passes import passes, purpose_of
from meshnode.gateway.auth import GateRules, build_app
from meshnode.node import Node
from protocol.app_keys import AppCertificate, sign_certificate, sign_pass
from protocol.keys import Identity
from tests.meshnode.gateway.api_nodes import INPUTS, NETWORK, Desk, open_desk
from tests.protocol.samples import STRANGER, identity

APP = identity("app")
DAY_MS = 86_400_000


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def key_of(node: Node) -> Identity:
    return node.identities.apps._context.signer.identity


def bearer(node: Node, *purposes: str, app: Identity = APP, by: Identity | None = None) -> str:
    """A pass to ``node``, certified for ``purposes``."""
    now_ms = node.clock.now_ms()
    certificate = AppCertificate(
        app=APP.peer,
        name="dashboard",
        purposes=list(purposes),
        issued_ms=now_ms,
        expires_ms=now_ms + DAY_MS,
    )
    signed = sign_certificate(by or key_of(node), NETWORK, certificate)
    envelope = sign_pass(app, NETWORK, signed, audience=node.peer, now_ms=now_ms)
    return "app1." + urlsafe_b64encode(envelope).rstrip(b"=").decode()


async def ask(
    desk: Desk, method: str, path: str, text: str, body: Any = None
) -> httpx.Response:
    """Make a request through a gate that knows passes, in front of the desk's routes."""
    rules = GateRules("t" * 43, judge_pass=passes(desk.node))
    routes: Any = desk.app._app.routes  # type: ignore[attr-defined]  # behind its own gate
    transport = httpx.ASGITransport(build_app(routes, rules, desk.node.events.emit))
    headers = {"authorization": f"Bearer {text}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=headers
    ) as http:
        return await http.request(method, path, json=body)


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"]) if answer.is_error else ""


@pytest.mark.parametrize(
    ("purpose", "allowed"),
    [
        ("api.read", [True, False, False]),
        ("api.jobs", [False, True, False]),
        ("api", [True, True, True]),
        ("letters", [False, False, False]),
    ],
)
async def test_a_program_may_do_what_it_is_certified_for(
    autojump_clock: MockClock, desk: Desk, purpose: str, allowed: list[bool]
) -> None:
    text = bearer(desk.node, purpose)
    graph = {"name": "x"}
    asked = [
        await ask(desk, "GET", "/api/node", text),
        await ask(desk, "POST", "/api/jobs", text, {"graph": graph, "inputs": INPUTS}),
        await ask(desk, "POST", "/api/pause", text),
    ]
    assert [code_of(one) != "http.not_certified" for one in asked] == allowed
    assert asked[0].status_code == (200 if allowed[0] else 403)
    assert (desk.node.door.paused is not None) == allowed[2]


async def test_two_purposes_are_two_rights(autojump_clock: MockClock, desk: Desk) -> None:
    text = bearer(desk.node, "api.read", "api.jobs")
    assert (await ask(desk, "GET", "/api/node", text)).status_code == 200
    assert code_of(await ask(desk, "POST", "/api/jobs", text, {})) == "request.invalid"
    assert code_of(await ask(desk, "POST", "/api/invites", text)) == "http.not_certified"


async def test_a_pass_that_does_not_hold_opens_nothing(
    autojump_clock: MockClock, desk: Desk
) -> None:
    good = bearer(desk.node, "api")
    for text in (
        good[:-8] + "AAAAAAAA",
        bearer(desk.node, "api", by=STRANGER),
        bearer(desk.node, "api", app=STRANGER),
        bearer(desk.worker, "api"),
        "app1.",
        "app1.????",
        "app1." + "A" * 10_000,
    ):
        answer = await ask(desk, "GET", "/api/node", text)
        assert (answer.status_code, code_of(answer)) == (401, "http.unauthorized")
        assert good not in answer.text


async def test_what_the_owner_withdraws_is_let_in_no_more(
    autojump_clock: MockClock, desk: Desk
) -> None:
    text = bearer(desk.node, "api.read")
    assert (await ask(desk, "GET", "/api/node", text)).status_code == 200
    answer = await desk.http.post(f"/api/apps/{APP.peer}/withdraw")
    assert answer.json() == {"app": APP.peer}
    refused = await ask(desk, "GET", "/api/node", text)
    assert (refused.status_code, code_of(refused)) == (401, "http.unauthorized")
    assert APP.peer in (await desk.http.get("/api/keys")).json()["withdrawn"]
    desk.node.identities.apps._withdrawn.clear()
    await desk.node.identities.apps.load()
    assert (await ask(desk, "GET", "/api/node", text)).status_code == 401, "through a restart"
    answer = await desk.http.post("/api/apps/nobody/withdraw")
    assert answer.status_code == 422


async def test_what_a_program_changes_has_its_name_to_it(
    autojump_clock: MockClock, desk: Desk
) -> None:
    text = bearer(desk.node, "api")
    await ask(desk, "GET", "/api/node", text)
    await ask(desk, "POST", "/api/pause", text)
    (event,) = [e for e in desk.node.events.recent if e.name == "app.acts"]
    assert dict(event.fields) == {"app": APP.peer, "called": "dashboard", "path": "/api/pause"}


@pytest.mark.parametrize(
    ("method", "path", "purpose"),
    [
        ("GET", "/api/invites", "api.read"),
        ("HEAD", "/api/jobs", "api.read"),
        ("POST", "/api/jobs", "api.jobs"),
        ("POST", "/api/jobs/x/cancel", "api.jobs"),
        ("POST", "/v1/chat/completions", "api.jobs"),
        ("DELETE", "/mcp", "api.jobs"),
        ("POST", "/api/jobsters", "api"),
        ("POST", "/v10/chat", "api"),
        ("POST", "/api/keys", "api"),
        ("PUT", "/api/jobs", "api"),
        ("", "/api/jobs", "api"),
    ],
)
def test_what_a_request_needs(method: str, path: str, purpose: str) -> None:
    assert purpose_of(method, path) == purpose
