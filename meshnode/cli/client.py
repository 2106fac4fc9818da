"""Talking to a running node, through its HTTP interface.

The node is found by its home: ``http.json`` says where it listens (and, by the lock on
it, whether it runs), ``token`` opens the door.  What the node refuses is raised as it
said it, with its code.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import httpx

from meshnode.adapters.running_file import HTTP_FILE, read_running
from meshnode.cli.app_files import is_app_file, pass_of
from meshnode.cli.failure import CommandFailed
from meshnode.gateway.token_files import read_token

#: Finding strangers through the DHT takes some seconds.
_TIMEOUT_S: Final = 60.0
#: A node that is silent for so long on a stream is gone: it says something every 10 s.
_SILENCE_S: Final = 30.0
TOKEN_FILE: Final = "token"  # noqa: S105 - the file's name


class NodeClient:
    """Requests to one node."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, *, body: object = None, **query: str) -> Any:  # noqa: ANN401 - JSON of many shapes
        """Return the node's answer as JSON.

        Raises:
            CommandFailed: It refuses, with its own code; or it doesn't answer.
        """
        response = await self._send(method, path, body, query)
        return self._json(response)

    async def content(self, path: str) -> bytes:
        """Return the bytes at ``path``.

        Raises:
            CommandFailed: As :meth:`call`.
        """
        return (await self._send("GET", path, None, {})).content

    async def lines(self, path: str, **query: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the lines at ``path`` as they come; signs of life are left out.

        Raises:
            CommandFailed: As :meth:`call`; ``http.cut`` when the node goes silent.
        """
        timeout = httpx.Timeout(_TIMEOUT_S, read=_SILENCE_S)
        try:
            async with self._http.stream(
                "GET", path, params=query, timeout=timeout
            ) as response:
                if response.is_error:
                    await response.aread()
                    self._refuse(response)
                async with aclosing(_generator(response)) as lines:
                    async for line in lines:
                        if line.strip():
                            yield json.loads(line)
        except (httpx.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(
                f"the node at {self._http.base_url} broke off: {reason}",
                hint="is it still running?",
                told="http.cut",
            ) from error

    async def _send(
        self, method: str, path: str, body: object, query: Mapping[str, str]
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(
                f"no node answers at {self._http.base_url}: {reason}",
                hint="start one with `meshnode up`, or check --url",
                told="cli.no_node",
            ) from error
        if response.is_error:
            self._refuse(response)
        return response

    def _refuse(self, response: httpx.Response) -> None:
        """Raise what the node said."""
        said = self._json(response)
        error = said.get("error") if isinstance(said, dict) else None
        if not isinstance(error, dict):
            self._stranger(response)
        assert error is not None
        raise CommandFailed(
            str(error.get("message", "refused")),
            hint=str(error.get("hint", "")),
            told=str(error.get("code", "http.refused")),
        )

    def _json(self, response: httpx.Response) -> Any:  # noqa: ANN401 - JSON of many shapes
        try:
            return response.json()
        except ValueError:
            self._stranger(response)

    def _stranger(self, response: httpx.Response) -> None:
        raise CommandFailed(
            f"what answers at {self._http.base_url} is no meshnode node"
            f" (status {response.status_code})",
            hint="check --url",
            told="cli.no_node",
        )


@asynccontextmanager
async def open_client(
    home: Path, *, url: str = "", token_file: str = ""
) -> AsyncIterator[NodeClient]:
    """Reach the node of ``home``, or the one at ``url``.

    Raises:
        CommandFailed: No node runs there.
        ConfigError: Its files can't be used.
    """
    where = url or _url(home)
    if not where.startswith(("http://", "https://")):
        raise CommandFailed(f"{where!r} is no URL", hint="such as http://127.0.0.1:8000")
    path = Path(token_file) if token_file else home / TOKEN_FILE
    try:
        token = read_token(path)
    except FileNotFoundError as error:
        raise CommandFailed(
            f"there is no token file {path}", hint="give the node's with --token-file"
        ) from error
    if is_app_file(token):
        token = pass_of(token, where=str(path))
    async with httpx.AsyncClient(
        base_url=where,
        headers={"Authorization": f"Bearer {token}"},
        timeout=_TIMEOUT_S,
        trust_env=False,  # a proxy has no business between this machine and itself
    ) as http:
        yield NodeClient(http)


def _generator(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Return the lines; httpx types its generator as a mere iterator, which has no close."""
    return cast("AsyncGenerator[str, None]", response.aiter_lines())


def _url(home: Path) -> str:
    running = read_running(home / HTTP_FILE)
    if running is None:
        raise CommandFailed(
            f"no node runs at {home}",
            hint="start one with `meshnode up`, or name another --home",
            told="cli.no_node",
        )
    return str(running.get("url", ""))
