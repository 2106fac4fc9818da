"""Jobs as commands name them: by the beginning of an id, at the node that runs here."""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from meshnode.cli.options import home_of

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

Job = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or enough of its beginning.")]
#: Jobs that are looked through.
LISTED_MAX: Final = 10_000
_ID: Final = re.compile(r"[0-9a-f]{1,64}")

T = TypeVar("T")


def asked(
    ask: Callable[["NodeClient"], Awaitable[T]], home: str, url: str, token_file: str
) -> T:
    """Return what ``ask`` has from the node that the options name."""
    import trio

    from meshnode.cli.client import open_client

    async def run() -> T:
        async with open_client(home_of(home), url=url, token_file=token_file) as client:
            return await ask(client)

    return trio.run(run)


async def whole(client: "NodeClient", given: str) -> str:
    """Return the id of the one job that ``given`` is, or is the beginning of.

    Raises:
        CommandFailed: There is none, or there are several.
    """
    from meshnode.cli.failure import CommandFailed

    if _ID.fullmatch(given):
        jobs = (await client.call("GET", "/api/jobs", limit=str(LISTED_MAX)))["jobs"]
        found = [row["job"] for row in jobs if row["job"].startswith(given)]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise CommandFailed(
                f"{len(found)} jobs begin with {given}", hint="give more of the id"
            )
    raise CommandFailed(
        f"there is no job {given[:64]!r} here",
        hint="see `meshnode jobs list`",
        told="node.not_found",
    )
