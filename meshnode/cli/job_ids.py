"""Jobs as commands name them: by the beginning of an id, at the node that runs here."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.asking import Where, asked

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

Job = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or enough of its beginning.")]
#: Of those that begin so: more than one is too many, and how many is told to people.
_FOUND_MAX: Final = 100
_ID: Final = re.compile(r"[0-9a-f]{1,64}")


async def whole(client: "NodeClient", given: str) -> str:
    """Return the id of the one job that ``given`` is, or is the beginning of.

    Raises:
        CommandFailed: There is none, or there are several.
    """
    from meshnode.cli.failure import CommandFailed

    if _ID.fullmatch(given):
        told = await client.call("GET", "/api/jobs", begins=given, limit=str(_FOUND_MAX))
        found = [row["job"] for row in told["jobs"]]
        if len(found) == 1:
            return str(found[0])
        if found:
            many = f"{len(found)} jobs" if len(found) < _FOUND_MAX else "many jobs"
            raise CommandFailed(f"{many} begin with {given}", hint="give more of the id")
    raise CommandFailed(
        f"there is no job {given[:64]!r} here",
        hint="see `meshnode jobs list`",
        told="node.not_found",
    )


def answer_about(
    given: str, where: Where, method: str, what: str = "", *, body: object = None
) -> dict[str, Any]:
    """Return what the node at ``where`` answers to a request about the job ``given``.

    Args:
        given: Its id, or the beginning.
        where: As the options say.
        method: Of the request.
        what: What of the job, as the path goes on behind its id, such as ``/cancel``.
        body: Of the request.

    Raises:
        CommandFailed: No node runs there, there is no such job, or it refuses.
    """

    async def ask(client: "NodeClient") -> dict[str, Any]:
        job = await whole(client, given)
        told: dict[str, Any] = await client.call(method, f"/api/jobs/{job}{what}", body=body)
        return told

    return asked(ask, where)
