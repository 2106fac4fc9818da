"""``meshnode jobs events``: what happened to a job, and what happens to it now."""

import sys
from functools import partial
from typing import Annotated, Any

import typer

from meshnode.cli.asking import Where
from meshnode.cli.following import Following
from meshnode.cli.job_ids import Job, whole
from meshnode.cli.job_lines import Contractors, event_line
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import say_json


def events(
    job: Job,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(metavar="SEQ", min=0, help="Only those after the event of that number."),
    ] = None,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show a job's events, each with time (UTC), number, unit, node, and what happened.

    With --follow it goes on through restarts of the node, and waits a minute for it.
    With --json each line is an event as the node tells it; lines with `progress` between
    them are no events of the journal, and have no number.

    Examples:
      meshnode jobs events 95402ad5
      meshnode jobs events 95402ad5 --follow --after 17 --json
    """
    import trio

    where = Where(home, url, token_file)
    show = say_json if as_json else partial(_print, who={})

    async def run() -> None:
        async with where.client() as client:
            name = await whole(client, job)
        await Following(where, name, show=show, after=after, follow=follow).run()

    trio.run(run)


def _print(line: dict[str, Any], who: Contractors) -> None:
    if line.get("progress", {}).get("event") != "award.progress":  # text is not for here
        sys.stdout.write(event_line(line, who) + "\n")
        sys.stdout.flush()
