"""The A2A SDK: a message to an agent over JSON-RPC and HTTP, answered with a message.

Its own server on uvicorn, its own client, no streaming and no task to keep: its bare hop.
Nothing is signed, checked or stored, and nobody is authenticated.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
from a2a.client import Client, ClientConfig, create_client
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Role, SendMessageRequest
from starlette.applications import Starlette

from meshnode.bench.beside.turns import TEXT, arguments, check, take_turns


class Echo(AgentExecutor):
    """Gives back what it is given."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer."""
        answer = new_text_message(context.get_user_input(), context_id=context.context_id)
        await event_queue.enqueue_event(answer)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nothing runs long enough."""


def _card(url: str) -> AgentCard:
    """Return what a client needs to know of the agent at ``url``."""
    return AgentCard(
        name="echo",
        description="gives back what it is given",
        version="1",
        supported_interfaces=[AgentInterface(protocol_binding="JSONRPC", url=url)],
        capabilities=AgentCapabilities(),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )


@asynccontextmanager
async def _serving() -> AsyncIterator[str]:
    """Serve the agent on a free port of loopback; give its URL."""
    # Named TCP, as uvicorn's own is: else asyncio leaves Nagle on, which costs 40 ms a call.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        handler = DefaultRequestHandler(Echo(), InMemoryTaskStore(), _card(url))
        app = Starlette(routes=create_jsonrpc_routes(handler, "/"))
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield url
        server.should_exit = True
        await serving


async def _main() -> None:
    logging.disable(logging.CRITICAL)
    part, url = arguments()
    if part == "callee":
        async with _serving() as url:
            await take_turns(_readline, address=url)
    elif part == "caller":
        await _calling(url)
    else:
        async with _serving() as url:
            await _calling(url)


async def _calling(url: str) -> None:
    async with await create_client(_card(url), ClientConfig(streaming=False)) as client:
        await take_turns(_readline, partial(_call, client))


async def _call(client: Client) -> None:
    request = SendMessageRequest(message=new_text_message(TEXT, role=Role.ROLE_USER))
    answer = ""
    async for event in client.send_message(request):
        answer = get_message_text(event.message)
    check(answer, TEXT)


async def _readline() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main())
