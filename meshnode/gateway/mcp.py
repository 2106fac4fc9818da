"""A door for MCP clients: the server of :mod:`.mcp_tools`, over HTTP at ``/mcp`` or stdio.

The ``mcp`` library takes over a second to import and is an extra: it is loaded by the
first request, and without it the door says what to install.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import trio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from meshnode.domain.schemas import mismatch
from meshnode.domain.values import canonical
from meshnode.errors import MeshError
from meshnode.gateway.api_views import program_version
from meshnode.gateway.auth import Refused
from meshnode.gateway.mcp_tools import INSTRUCTIONS, NAME, TOOLS, Calls, as_text, use

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

PATH = "/mcp"


class NoMcp(Refused):
    """The library isn't installed."""

    code = "mcp.missing"
    status: ClassVar[int] = 501

    def __init__(self) -> None:
        super().__init__("the MCP door isn't installed", hint="pip install 'meshnode[mcp]'")


def mcp_server(calls: Calls) -> "Server[Any]":
    """Return an MCP server whose tools use the API behind ``calls``.

    Raises:
        NoMcp: The library isn't installed.
    """
    try:
        import mcp_types as types  # noqa: PLC0415 - an extra, and slow to import
        from mcp.server.lowlevel import Server  # noqa: PLC0415 - as above
    except ImportError as error:
        raise NoMcp from error
    # It puts a handler for INFO on the root logger; the node tells in its own way.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    listed = [
        types.Tool(name=name, description=about, input_schema=schema)
        for name, (about, schema) in TOOLS.items()
    ]

    async def list_tools(_: object, __: object) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        return types.ListToolsResult(tools=listed)

    async def call_tool(_: object, asked: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            value = await use(asked.name, _checked(asked.name, asked.arguments or {}), calls)
        except MeshError as error:
            said = types.TextContent(type="text", text=error.line())
            return types.CallToolResult(content=[said], is_error=True)
        said = types.TextContent(type="text", text=as_text(value))
        return types.CallToolResult(content=[said], structured_content=value)

    return Server(
        NAME,
        version=program_version(),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _checked(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``arguments`` if they fit.

    Raises:
        MeshError: There is no such tool, or they don't.
    """
    if name not in TOOLS:
        raise MeshError(f"there is no tool {name[:60]!r}", hint=f"there are {', '.join(TOOLS)}")
    if reason := mismatch(canonical(TOOLS[name][1]), dict(arguments)):
        raise MeshError(f"{name} can't take these arguments: {reason}", hint="see its schema")
    return arguments


class McpDoor:
    """``/mcp`` of a node.

    Args:
        api: The node's own API, in this process.
    """

    def __init__(self, api: ASGIApp) -> None:
        self._api = api
        self._nursery: trio.Nursery | None = None
        self._opening = trio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None

    def routes(self) -> list[BaseRoute]:
        """Return its route."""
        return [Route(PATH, _Asgi(self), methods=["GET", "POST", "DELETE"])]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Let sessions live for as long as the app does."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            yield
            nursery.cancel_scope.cancel()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            NoMcp: The library isn't installed.
        """
        async with self._opening:
            if self._manager is None:
                assert self._nursery is not None
                self._manager = await self._nursery.start(self._run)
        await self._manager.handle_request(scope, receive, send)

    async def _run(
        self, *, task_status: "trio.TaskStatus[StreamableHTTPSessionManager]"
    ) -> None:
        try:
            from mcp.server.streamable_http_manager import (  # noqa: PLC0415 - an extra
                StreamableHTTPSessionManager,
            )
        except ImportError as error:
            raise NoMcp from error
        transport = httpx.ASGITransport(self._api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:

            async def calls(
                method: str, path: str, *, body: Mapping[str, Any] | None = None, **query: str
            ) -> Any:  # noqa: ANN401 - JSON of many shapes
                answer = await http.request(method, path, json=body, params=query)
                told = answer.json()
                if answer.is_success:
                    return told
                raise MeshError(told["error"]["message"], hint=told["error"]["hint"])

            manager = StreamableHTTPSessionManager(mcp_server(calls))
            async with manager.run():
                task_status.started(manager)
                await trio.sleep_forever()


class _Asgi:
    """A door as an ASGI app: Starlette takes a function for one that returns a response."""

    def __init__(self, door: McpDoor) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door.serve(scope, receive, send)
