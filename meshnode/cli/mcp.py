"""``meshnode mcp``: the running node's mesh as tools, over standard input and output."""

from typing import TYPE_CHECKING

from meshnode.cli.asking import Where, asked
from meshnode.cli.options import Home, TokenFile, Url

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient


def mcp(*, home: Home = "", url: Url = "", token_file: TokenFile = "") -> None:
    """Serve the mesh to an MCP client over stdin and stdout, through the node that runs here.

    Examples:
      meshnode mcp
      meshnode mcp --home desk

    For the configuration of an MCP client:
      {"mcpServers": {"mesh": {"command": "meshnode", "args": ["mcp"]}}}

    Tools: mesh_find_agents, mesh_run, mesh_status.  A client that speaks HTTP finds the
    same at /mcp of the node, with the node's token.
    """
    asked(_serve, Where(home, url, token_file))


async def _serve(client: "NodeClient") -> None:
    from meshnode.gateway.mcp import mcp_server

    server = mcp_server(client.call)
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
