"""Answers that go on while something happens: one JSON value a line.

Whoever follows a job is told each event of its journal, in order, and the telemetry of
that job between them.  The journal is what counts: a client that was cut off asks
again from the number after the last event that it saw.  Nothing happening for a while
is said too (an empty line), so that both sides can tell quiet from gone.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from meshnode.gateway.api_views import event_view, happening_view
from meshnode.node import Events, Happening, JobJournal, Onlooker
from meshnode.ports import JsonValue

#: An empty line is sent after this much silence, seconds.
HEARTBEAT_S: Final = 10.0
HEARTBEAT: Final = b"\n"

#: Telemetry about a job that is shown to whoever follows it, beside its journal.
_LIVE: Final = frozenset({"award.progress", "job.mishap", "job.resumed", "job.stalled"})

Lines = AsyncGenerator[bytes, None]


class LinesResponse(Response):
    """Sends lines as they come, and stops making them when the client has left.

    Starlette's own leaves the generator to the garbage collector when a send is
    cancelled; here it is closed in the task that ran it.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: Lines) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._lines = lines

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_left, receive, nursery.cancel_scope)
            async with aclosing(self._lines) as lines:
                async for line in lines:
                    await send({"type": "http.response.body", "body": line, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _until_left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def line(value: JsonValue) -> bytes:
    """Return ``value`` as one line of JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


async def job_lines(journal: JobJournal, events: Events, *, since: int, follow: bool) -> Lines:
    """Yield a job's events from number ``since`` on; while following, until it has ended."""
    with events.watch() as onlooker:
        while True:
            for event in journal.events(since):
                since = event.seq + 1
                yield line(event_view(event))
            # The last events may have come while those before them were sent.
            if not follow or (journal.done is not None and not journal.events(since)):
                return
            happening = await _next(onlooker)
            if happening is None:
                yield HEARTBEAT
            elif happening.fields.get("job") == journal.job and happening.name in _LIVE:
                yield line({"progress": happening_view(happening)})


async def telemetry_lines(events: Events, *, follow: bool) -> Lines:
    """Yield what has happened lately; while following, what happens from now on."""
    with events.watch() as onlooker:
        told_lost = 0
        for happening in list(events.recent):
            yield line(happening_view(happening))
        while follow:
            news = await _next(onlooker)
            if onlooker.lost > told_lost:
                yield line({"lost": onlooker.lost - told_lost})
                told_lost = onlooker.lost
            yield HEARTBEAT if news is None else line(happening_view(news))


async def _next(onlooker: Onlooker) -> Happening | None:
    """Return the next event of telemetry, or None when it is time for a sign of life."""
    with trio.move_on_after(HEARTBEAT_S):
        return await onlooker.next()
    return None
