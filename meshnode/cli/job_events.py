"""``meshnode jobs events``: what happened to a job, and what happens to it now.

Following survives the node: when that is restarted, or the connection breaks, the command
looks for it again and goes on after the last event that it printed.
"""

import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.job_ids import Job, whole
from meshnode.cli.job_lines import Contractors, event_line
from meshnode.cli.options import Home, Json, TokenFile, Url, home_of
from meshnode.cli.printing import say_json

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

#: A node that is gone for longer is not waited for, seconds.
PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.5
#: Failures that pass when the node is there again.
_PASSING: Final = frozenset({"cli.no_node", "http.cut", "node.unavailable"})


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

    reached = Reached(home, url, token_file)
    show = say_json if as_json else partial(_print, who={})
    trio.run(Following(reached, job, after=after, follow=follow, show=show).run)


def _print(line: dict[str, Any], who: Contractors) -> None:
    if line.get("progress", {}).get("event") != "award.progress":  # text is not for here
        sys.stdout.write(event_line(line, who) + "\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Reached:
    """Where the node is, as the options say."""

    home: str
    url: str
    token_file: str


class Following:
    """Reads a job's events, through broken connections and restarts of its node.

    Attributes:
        after: Number of the last event that was shown, or None.
    """

    def __init__(
        self,
        where: Reached,
        job: str,
        *,
        after: int | None,
        follow: bool,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self.after = after
        self._where = where
        self._given = job
        self._job = ""
        self._follow = follow
        self._show = show
        self._ended = False
        self._gone_s: float | None = None  # since when nobody has answered

    async def run(self) -> None:
        """Show the events that there are; while following, until the job has ended.

        Raises:
            CommandFailed: What is asked for can't be told; or the node stays away.
        """
        import trio

        from meshnode.cli.failure import CommandFailed

        while not self._ended:
            try:
                await self._read()
                if not self._follow:
                    return
            except CommandFailed as error:
                if not self._follow or not self._job or error.told not in _PASSING:
                    raise
                self._wait_on(error)
                await trio.sleep(_PAUSE_S)

    async def _read(self) -> None:
        from meshnode.cli.client import open_client

        where = self._where
        async with open_client(
            home_of(where.home), url=where.url, token_file=where.token_file
        ) as client:
            if self._gone_s is not None:
                await client.call("GET", f"/api/jobs/{self._job}")
                self._back()
            self._job = self._job or await whole(client, self._given)
            query = {"follow": "1" if self._follow else "0"}
            if self.after is not None:
                query["last_seq"] = str(self.after)
            before = self.after
            lines = client.lines(f"/api/jobs/{self._job}/events", **query)
            async with aclosing(lines):
                async for line in lines:
                    self._show(line)
                    if "seq" in line:
                        self.after = int(line["seq"])
                        self._ended = line["kind"] == "done"
            if self._follow and not self._ended:
                await self._make_sure(client, heard=self.after != before)

    async def _make_sure(self, client: "NodeClient", *, heard: bool) -> None:
        """See why a stream ended without the job's end: a node that closes ends it too.

        Args:
            client: To ask by.
            heard: The stream told something, so there may be more.

        Raises:
            CommandFailed: The job goes on, or has more to tell: it is to be followed again.
        """
        from meshnode.cli.failure import CommandFailed

        state = (await client.call("GET", f"/api/jobs/{self._job}"))["state"]
        # Asked after the last event, an ended job has nothing to tell.
        self._ended = state != "running" and not heard
        if not self._ended:
            raise CommandFailed(
                f"the node ended the stream of job {self._job}, which is {state}",
                hint=f"see `meshnode jobs show {self._job}`",
                told="http.cut",
            )

    def _wait_on(self, error: Exception) -> None:
        """Give up if the node has been gone for too long; say so the first time."""
        import trio

        now_s = trio.current_time()
        if self._gone_s is None:
            self._gone_s = now_s
            _note(f"the node is gone; looking for it for {PATIENCE_S:g} s")
        elif now_s - self._gone_s >= PATIENCE_S:
            raise error

    def _back(self) -> None:
        self._gone_s = None
        place = "from the start" if self.after is None else f"after event {self.after}"
        _note(f"the node is back; going on {place}")


def _note(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
