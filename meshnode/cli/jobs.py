"""``meshnode jobs``: the jobs of the node that runs here."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from meshnode.cli.options import Home, Json, TokenFile, Url, home_of
from meshnode.cli.printing import console, plain, say_json, table, units_table

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

Job = Annotated[str, typer.Argument(metavar="JOB", help="Its id, or enough of its beginning.")]
_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_LISTED_MAX: Final = 10_000


def list_(
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The newest so many.")] = 20,
    running: Annotated[bool, typer.Option("--running", help="Only those that go on.")] = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the node's jobs, the newest first.

    Examples:
      meshnode jobs list
      meshnode jobs list --running --json
    """

    async def ask(client: "NodeClient") -> list[dict[str, Any]]:
        asked = _LISTED_MAX if running else limit
        jobs: list[dict[str, Any]] = (await client.call("GET", "/api/jobs", limit=str(asked)))[
            "jobs"
        ]
        return [job for job in jobs if not (running and job["ended"])][:limit]

    jobs = _asked(ask, home, url, token_file)
    if as_json:
        say_json({"jobs": jobs})
        return
    rows = [
        (job["job"], plain(job["name"], size_max=50), _when(job["planned_ms"]), job["state"],
         _cost(job["cost_mc"]), _took(job["elapsed_s"]))
        for job in jobs
    ]  # fmt: skip
    if rows:
        titles = ("job", "name", "asked (UTC)", "state", "mc", "s")
        console().print(table(titles, rows, right="mc s"))
    else:
        print("no jobs" + (" are running" if running else " yet: see `meshnode ask`"))


def show(
    job: Job,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show how a job stands: each unit of work, who does it, what it cost, what failed.

    Examples:
      meshnode jobs show 95402ad5
    """

    async def ask(client: "NodeClient") -> dict[str, Any]:
        name = await _whole(client, job)
        told: dict[str, Any] = await client.call("GET", f"/api/jobs/{name}")
        return told

    told = _asked(ask, home, url, token_file)
    if as_json:
        say_json(told)
        return
    out = console()
    out.print(units_table(told["subtasks"]))
    for unit in told["subtasks"]:
        for attempt in unit["attempts"]:
            why = plain(attempt["text"] or attempt["code"], size_max=200)
            out.print(f"{unit['id']} failed at {attempt['node'][-8:]}: {why}", markup=False)
    cost = f"{told['cost_mc']} of {told['budget_mc']} mc, {told['elapsed_s']:.1f} s"
    out.print(f"\njob {told['job']} {told['state']}: {cost}", markup=False)
    if told["error"]:
        out.print(plain(told["error"]["message"] or told["error"]["code"]), markup=False)


def cancel(
    job: Job,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """End a job early; what is done already stays paid.

    Examples:
      meshnode jobs cancel 95402ad5
    """

    async def ask(client: "NodeClient") -> dict[str, Any]:
        name = await _whole(client, job)
        told: dict[str, Any] = await client.call("POST", f"/api/jobs/{name}/cancel")
        return told

    told = _asked(ask, home, url, token_file)
    if as_json:
        say_json(told)
    else:
        print(f"job {told['job']} is being cancelled")


def outputs(
    job: Job,
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep outputs and signed provenance there."),
    ] = None,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Print what a completed job returned, as JSON; with --out keep it and its provenance.

    Examples:
      meshnode jobs outputs 95402ad5
      meshnode jobs outputs 95402ad5 --out result
    """
    from meshnode.cli.job_files import keep, make_folder

    folder = None if out is None else make_folder(out)

    async def ask(client: "NodeClient") -> tuple[dict[str, Any], dict[str, Any], bytes]:
        name = await _whole(client, job)
        status: dict[str, Any] = await client.call("GET", f"/api/jobs/{name}")
        made: dict[str, Any] = await client.call("GET", f"/api/jobs/{name}/outputs")
        proof = await client.content(f"/api/jobs/{name}/provenance") if folder else b""
        return status, made, proof

    status, made, proof = _asked(ask, home, url, token_file)
    if folder is not None:
        keep(folder, status, made, proof)
    say_json(made)


# --- pieces ---------------------------------------------------------------------------


T = TypeVar("T")


def _asked(
    ask: Callable[["NodeClient"], Awaitable[T]], home: str, url: str, token_file: str
) -> T:
    import trio

    from meshnode.cli.client import open_client

    async def run() -> T:
        async with open_client(home_of(home), url=url, token_file=token_file) as client:
            return await ask(client)

    return trio.run(run)


async def _whole(client: "NodeClient", given: str) -> str:
    """Return the id of the one job that ``given`` is, or is the beginning of."""
    from meshnode.cli.failure import CommandFailed

    if _ID.fullmatch(given):
        jobs = (await client.call("GET", "/api/jobs", limit=str(_LISTED_MAX)))["jobs"]
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


def _cost(amount_mc: int | None) -> str:
    return "-" if amount_mc is None else str(amount_mc)


def _took(elapsed_s: float | None) -> str:
    return "-" if elapsed_s is None else f"{elapsed_s:.1f}"


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
