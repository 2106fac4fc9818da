"""One question to the node that a command's options name, from first to last.

What a command needs for that is imported when it asks: `meshnode --help` needs none of it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from meshnode.cli.options import home_of

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

T = TypeVar("T")

#: What ``--home``, ``--url`` and ``--token-file`` say.
Where: TypeAlias = tuple[str, str, str]


def asked(ask: Callable[["NodeClient"], Awaitable[T]], where: Where) -> T:
    """Return what ``ask`` has from the node at ``where``.

    Raises:
        CommandFailed: No node runs there, or it refuses.
    """
    import trio

    from meshnode.cli.client import open_client

    home, url, token_file = where

    async def run() -> T:
        async with open_client(home_of(home), url=url, token_file=token_file) as client:
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
