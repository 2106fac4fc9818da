"""The mesh as tools, for the real MCP client: over stdio and over HTTP."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.processes import MESHNODE, ROOT, NodeProcess, running

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

AGENTS = '''"""An agent."""
from meshnode import agent


@agent("text.shouting@1", price_mc=3)
def shout(text: str) -> str:
    """Return a text in capitals, shouting."""
    if text == "quiet":
        raise ValueError("not that one")
    return text.upper()
'''
Opened = Callable[[], AbstractAsyncContextManager[Client]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "mcp_agents.py").write_text(AGENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")
        with running(folder / "node", "up", "--function", "mcp_agents:shout") as process:
            yield process


@pytest.fixture(params=["stdio", "http"])
def opened(request: pytest.FixtureRequest, node: NodeProcess) -> Opened:
    @asynccontextmanager
    async def over_stdio() -> AsyncIterator[Client]:
        arguments = [*MESHNODE[1:], "mcp", "--home", str(node.home / "home")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        server = StdioServerParameters(command=MESHNODE[0], args=arguments, env=environment)
        async with Client(server) as client:
            yield client

    @asynccontextmanager
    async def over_http() -> AsyncIterator[Client]:
        token = Path(node.ready["token_file"]).read_text("ascii").strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            transport = streamable_http_client(node.ready["http"] + "/mcp", http_client=http)
            async with Client(transport) as client:
                yield client

    return over_stdio if request.param == "stdio" else over_http


async def use(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    told = result.structured_content
    assert isinstance(told, dict)
    return told


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return str(result.content[0].text)  # type: ignore[union-attr]


async def test_tools_are_three_and_always_the_same(opened: Opened) -> None:
    async with opened() as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
    assert listed == ["mesh_find_agents", "mesh_run", "mesh_status"]


async def test_agents_are_found_work_is_done_and_asked_after(opened: Opened) -> None:
    async with opened() as client:
        found = await use(client, "mesh_find_agents", query="say it loud")
        assert found["agents"][0]["capability"] == "text.shouting@1"
        done = await use(
            client, "mesh_run", capability="text.shouting@1", input={"text": "hello"}
        )
        assert (done["state"], done["outputs"], done["cost_mc"]) == (
            "completed",
            {"output": "HELLO"},
            3,
        )
        again = await use(client, "mesh_status", job=done["job"])
        assert again["outputs"] == done["outputs"]
        planned = await use(
            client,
            "mesh_run",
            goal="Put this text in capitals, shouting",
            files=[{"path": "a", "text": "from a file"}],
        )
        assert list(planned["outputs"].values()) == ["FROM A FILE"]
        handle = await use(
            client, "mesh_run", capability="text.shouting", input={"text": "x"}, wait_s=0
        )
        assert (await use(client, "mesh_status", job=handle["job"], wait_s=30))["outputs"] == {
            "output": "X"
        }


async def test_what_goes_wrong_is_an_error_that_helps(opened: Opened) -> None:
    async with opened() as client:
        assert "one of the two" in await refused(client, "mesh_run")
        assert "nothing here can serve" in await refused(client, "mesh_run", goal="Paint it")
        unknown = await refused(client, "mesh_run", capability="text.shoutin@1", input={})
        assert "text.shouting@1" in unknown
        assert "see its schema" in await refused(client, "mesh_status", job=3)
        assert "there is no job" in await refused(client, "mesh_status", job="abc")
        assert "there is no tool" in await refused(client, "mesh_destroy")
        failed = await use(
            client, "mesh_run", capability="text.shouting@1", input={"text": "quiet"}
        )
        assert failed["state"] == "failed"
        assert "not that one" in failed["error"]["message"]


def test_http_wants_the_token(node: NodeProcess) -> None:
    answer = httpx.post(node.ready["http"] + "/mcp", json={})
    assert answer.status_code == 401
