"""Answers that go on while something happens: one JSON value a line, or server-sent events.

Whoever follows a job is told each event of its journal, in order, and the telemetry of
that job between them.  The journal is what counts: its events are told once they are
durable, numbered without gaps, so a client that was cut off names the last one that it
saw and misses nothing and sees nothing twice, through restarts of the node too.  The
telemetry between has no number and may be lost; what agents stream carries its own place
(:mod:`meshnode.services.token_streams`), and who comes later gets what is kept of it.

The stream of a job is whole when its last event was ``done``.  Nothing happening for a
while is said too (an empty line, or a comment), so that both sides can tell quiet from
gone.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from meshnode.gateway.api_views import event_view, happening_view
from meshnode.node import Events, Happening, JobJournal, Node, Onlooker
from meshnode.ports import JsonValue

#: A sign of life is sent after this much silence, seconds.
HEARTBEAT_S: Final = 10.0
HEARTBEAT: Final = b"\n"
EVENT_STREAM: Final = "text/event-stream"

#: Telemetry about a job that is shown to whoever follows it, beside its journal.
_LIVE: Final = frozenset(
    {
        "award.progress",
        "job.bug",
        "job.held_up",
        "job.mishap",
        "job.resumed",
        "job.stalled",
        "job.unreadable",
    }
)

Lines = AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class News:
    """What is told of a job: an event of its journal, or telemetry.

    Attributes:
        seq: Number of the event; None for telemetry.
        view: What is shown.
    """

    seq: int | None
    view: dict[str, JsonValue]


#: Makes bytes of news, or, of None, a sign of life.
Form = Callable[[News | None], bytes]


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


class EventsResponse(LinesResponse):
    """Server-sent events."""

    media_type = EVENT_STREAM


async def _until_left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def line(value: JsonValue) -> bytes:
    """Return ``value`` as one line of JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def as_line(news: News | None) -> bytes:
    """Return ``news`` as a line of JSON: an event as it is, telemetry as ``progress``."""
    if news is None:
        return HEARTBEAT
    return line(news.view if news.seq is not None else {"progress": news.view})


def as_message(news: News | None) -> bytes:
    """Return ``news`` as a server-sent event; only an event of the journal has an id."""
    if news is None:
        return b": still there\n\n"
    if news.seq is None:
        return b"event: progress\ndata: " + line(news.view) + b"\n"
    kind = str(news.view["kind"]).encode()
    return b"id: %d\nevent: %s\ndata: %s\n" % (news.seq, kind, line(news.view))


async def job_lines(
    journal: JobJournal, node: Node, *, since: int, follow: bool, form: Form = as_line
) -> Lines:
    """Yield a job's events from number ``since`` on; while following, until it has ended."""
    with node.events.watch() as onlooker:
        # Taken in the moment from which on the onlooker hears of more: none is told twice.
        streamed = node.streamed(journal.job) if follow else []
        while True:
            for event in journal.events(since):
                since = event.seq + 1
                yield form(News(event.seq, event_view(event)))
            for piece in streamed:
                yield form(News(None, happening_view(piece)))
            streamed = []
            # The last events may have come while those before them were sent.
            if not follow or (journal.done is not None and not journal.events(since)):
                return
            happening = await _next(onlooker)
            if happening is None:
                yield form(None)
            elif happening.fields.get("job") == journal.job and happening.name in _LIVE:
                yield form(News(None, happening_view(happening)))


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
