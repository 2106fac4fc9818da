"""Following a job through broken connections and restarts of its node.

Events have numbers, so whoever looks for the node again goes on after the last one that it
heard.  A node may listen elsewhere when it is back: it is found anew each time.
"""

import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from meshnode.cli.asking import Where

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

#: How long a node that is gone is waited for unless said otherwise, seconds.
PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.5
#: Failures that pass when the node is there again.
PASSING: Final = frozenset({"cli.no_node", "http.cut", "node.unavailable"})


class Following:
    """Reads a job's events, through broken connections and restarts of its node.

    Attributes:
        after: Number of the last event that was shown, or None.
        patience_s: A node that is gone for longer is not waited for.
    """

    def __init__(
        self,
        where: Where,
        job: str,
        *,
        show: Callable[[dict[str, Any]], None],
        after: int | None = None,
        follow: bool = True,
    ) -> None:
        """Begin.

        Args:
            where: The node.
            job: Its whole id.
            show: Takes each line as the node tells it.
            after: Only events after the one of that number; None for all.
            follow: Go on until the job has ended.
        """
        self.after = after
        self.patience_s = PATIENCE_S
        self._where = where
        self._job = job
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
                if not self._follow or error.told not in PASSING:
                    raise
                self._wait_on(error)
                await trio.sleep(_PAUSE_S)

    async def _read(self) -> None:
        async with self._where.client() as client:
            if self._gone_s is not None:
                await client.call("GET", f"/api/jobs/{self._job}")
                self._back()
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
            _note(f"the node is gone; looking for it for {self.patience_s:g} s")
        elif now_s - self._gone_s >= self.patience_s:
            raise error

    def _back(self) -> None:
        self._gone_s = None
        place = "from the start" if self.after is None else f"after event {self.after}"
        _note(f"the node is back; going on {place}")


def _note(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
