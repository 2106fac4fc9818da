"""Two nodes on simulated ports, and the HTTP interface of the first, in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
import trio
from starlette.types import ASGIApp, Message

from meshnode.adapters.agents.function import agent
from meshnode.config import ANYONE, AccessConfig, NodeConfig
from meshnode.gateway.api import api_routes
from meshnode.gateway.api_families import family_routes
from meshnode.gateway.api_golds import golds_routes
from meshnode.gateway.api_inbox import inbox_routes
from meshnode.gateway.api_keys import key_routes
from meshnode.gateway.api_ledger import ledger_routes
from meshnode.gateway.api_owner import owner_routes
from meshnode.gateway.api_reputation import reputation_routes
from meshnode.gateway.auth import GateRules, build_app
from meshnode.gateway.openai import openai_routes
from meshnode.node import Node, Ports
from meshnode.ports import Agent, Chunk, Output
from meshnode.services.directory import validate_record
from protocol.keys import Identity
from simulations.clock import SeededEntropy, SimClock
from simulations.directory import SimDirectory
from simulations.network import open_network
from simulations.store import MemoryDisk, MemoryStore

TOKEN = "t" * 43
NETWORK = "api-test"
HEADERS = {"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1"}
BODY_BYTES_MAX = 64 * 1024

#: A map over job input `words`, joined.
GRAPH: dict[str, Any] = {
    "name": "shout",
    "subtasks": {
        "upper": {
            "capability": "text.upper@1",
            "each": ["text"],
            "inputs": {"text": "@words/*/w"},
        },
        "join": {"capability": "text.join@1", "inputs": {"texts": "upper"}},
    },
    "outputs": {"shouted": "join"},
}
INPUTS: dict[str, Any] = {"words": [{"w": "a"}, {"w": "b"}, {"w": "c"}]}
#: One call that doesn't come back by itself.
SLOW: dict[str, Any] = {
    "name": "slow",
    "subtasks": {"nap": {"capability": "test.nap@1", "inputs": {"s": {"value": 500}}}},
    "outputs": {"nap": "nap"},
}


# Async, all of them: while a thread works nothing else may happen, and a MockClock jumps.


@agent(capability="text.upper@1", price_mc=2)
async def upper(text: str) -> str:
    """Return the text in capitals."""
    return text.upper()


@agent(capability="text.join@1", price_mc=1)
async def join(texts: list[str]) -> str:
    """Join texts."""
    return "-".join(texts)


@agent(capability="test.nap@1", timeout_s=1_000.0)
async def nap(s: int) -> AsyncIterator[str]:
    """Sleep, and say so."""
    yield "zzz"
    yield "…"  # a piece is passed on when the next has come
    await trio.sleep(s)
    yield "!"


@agent(capability="test.fail@1")
async def fail(text: str) -> str:
    """Fail."""
    raise ValueError(f"no luck with {text}")


@agent(capability="test.tell@1", timeout_s=1_000.0, price_mc=3, returns=str)
async def tell(text: str) -> AsyncIterator[Chunk | Output]:
    """Repeat a text word by word, as a model would."""
    for word in text.split():
        yield Chunk(f"{word} ")
        await trio.sleep(1)
    if text.startswith("lie"):
        yield Output("something else")
    else:
        yield Output(text, {"tokens_in": 2, "tokens_out": 3})


@dataclass
class Desk:
    """The node whose interface is tested, and the one that does the work."""

    app: ASGIApp
    http: httpx.AsyncClient
    node: Node
    worker: Node

    async def submit(self, graph: Any = GRAPH, inputs: Any = INPUTS, **more: Any) -> str:
        answer = await self.http.post(
            "/api/jobs", json={"graph": graph, "inputs": inputs, **more}
        )
        assert answer.status_code == 201, answer.text
        job: str = answer.json()["job"]
        return job

    async def ended(self, job: str) -> dict[str, Any]:
        await self.node.wait(job)
        view: dict[str, Any] = (await self.http.get(f"/api/jobs/{job}")).json()
        return view


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """Run both nodes for as long as the context lasts; call it under a MockClock."""
    async with open_network(Random(1)) as network, trio.open_nursery() as nursery:
        directory = SimDirectory(Random(2), validate_record(NETWORK, SimClock()))

        async def start(name: str, *agents: Agent, join: tuple[str, ...] = ()) -> Node:
            identity = Identity(name.encode().ljust(32, b"0"), name.encode().ljust(32, b"1"))
            ports = Ports(
                identity=identity,
                transport=network.transport(identity.peer),
                directory=directory.port(identity.peer),
                store=MemoryStore(MemoryDisk()),
                clock=SimClock(),
                entropy=SeededEntropy(name),
                rng=Random(name),
            )
            config = NodeConfig(network=NETWORK, join=join, access=AccessConfig(callers=ANYONE))
            node = Node(config, ports, agents)
            await nursery.start(node.run)
            return node

        worker = await start("worker", upper, nap, fail, tell)
        desk = await start("desk", join, join=(worker.addresses[0],))
        while len(desk.known()) < 2:  # noqa: ASYNC110 - virtual time; it has no event for this
            await trio.sleep(0.1)
        rules = GateRules(token=TOKEN, body_bytes_max=BODY_BYTES_MAX)
        routes = [
            *api_routes(desk, SimClock()),
            *openai_routes(desk, SimClock()),
            *owner_routes(desk),
            *ledger_routes(desk),
            *reputation_routes(desk),
            *golds_routes(desk),
            *family_routes(desk),
            *inbox_routes(desk),
            *key_routes(desk),
        ]
        app = build_app(routes, rules, desk.events.emit)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=HEADERS
        ) as http:
            yield Desk(app, http, desk, worker)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stream(
    app: ASGIApp, path: str, query: str = "", *, body: bytes = b""
) -> AsyncIterator[tuple[trio.MemoryReceiveChannel[bytes], trio.Event]]:
    """Give the pieces of a streamed answer as they are sent, and what says that we left."""
    send, receive = trio.open_memory_channel[bytes](0)
    left = trio.Event()

    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def request() -> Message:
        if unread:
            return unread.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def answer(message: Message) -> None:
        assert message.get("status", 200) == 200
        if message.get("body"):
            await send.send(message["body"])

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST" if body else "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in HEADERS.items()],
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }

    async def run() -> None:
        async with send:
            await app(scope, request, answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield receive, left
        nursery.cancel_scope.cancel()
