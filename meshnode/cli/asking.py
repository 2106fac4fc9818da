"""Where the node is that a command's options name, and one question to it.

What a command needs for that is imported when it asks: `meshnode --help` needs none of it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from meshnode.cli.options import home_of

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Where:
    """Where the node is, as ``--home``, ``--url`` and ``--token-file`` say."""

    home: str = ""
    url: str = ""
    token_file: str = ""

    def client(self) -> AbstractAsyncContextManager["NodeClient"]:
        """Reach the node; a context manager.

        Raises:
            CommandFailed: On entering: no node runs there.
            ConfigError: On entering: its files can't be used.
        """
        from meshnode.cli.client import open_client

        return open_client(home_of(self.home), url=self.url, token_file=self.token_file)


def asked(ask: Callable[["NodeClient"], Awaitable[T]], where: Where) -> T:
    """Return what ``ask`` has from the node at ``where``.

    Raises:
        CommandFailed: No node runs there, or it refuses.
    """
    import trio

    async def run() -> T:
        async with where.client() as client:
            return await ask(client)

    return trio.run(run)


def answer_of(
    where: Where, method: str, path: str, *, body: object = None, **query: str
) -> dict[str, Any]:
    """Return what the node at ``where`` answers to one request.

    Raises:
        CommandFailed: No node runs there, or it refuses.
    """

    async def ask(client: "NodeClient") -> dict[str, Any]:
        told: dict[str, Any] = await client.call(method, path, body=body, **query)
        return told

    return asked(ask, where)
