"""The log of a node: its stream of events, as lines for people or as NDJSON.

There is one stream; ``/api/events``, the terminal and a log file show the same events.
What a log doesn't get: an output's text on its way (``award.progress``), and the secret
in an invite.  Lines are written in a thread, so that a full disk or a reader that has
stopped holds up nothing but the log; what it can't keep up with is counted.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshnode.cli.printing import plain

if TYPE_CHECKING:
    from meshnode.config import LogConfig
    from meshnode.node import Events, Happening

LEVELS: Final = ("debug", "info", "warning")
#: What the owner should look at.
WARNINGS: Final = frozenset(
    [
        "acceptance.expired",
        "acceptance.held_up",
        "acceptance.undelivered",
        "agent.close_failed",
        "agent.raised",
        "artifact.damaged",
        "award.bug",
        "award.held_up",
        "award.unaccounted",
        "award.unreadable",
        "award.unsaved",
        "ban.of_this_node",
        "clock.off",
        "contract.equivocation",
        "directory.capability_dropped",
        "directory.names_left_out",
        "directory.record_unsaved",
        "http.app_failed",
        "http.route_failed",
        "invite.not_taken",
        "job.bug",
        "job.held_up",
        "job.not_abandoned",
        "job.stalled",
        "job.unreadable",
        "log.lost",
        "mdns.local_only",
        "mdns.unavailable",
        "membership.elsewhere",
        "membership.lapsed",
        "membership.not_renewed",
        "membership.stranger",
        "node.handed_back",
        "node.join_failed",
        "node.left_unsaid",
        "node.stopped_at_once",
        "peer.banned",
        "served.unsaved",
        "session.bug",
        "task.bug",
        "transport.handler_failed",
    ]
)
#: What is there to find a fault by.
DETAILS: Final = frozenset(
    [
        "artifact.garbage_kept",
        "award.cancel_unheard",
        "award.progress",
        "ban.untold",
        "directory.announcements_cut_short",
        "directory.dial_failed",
        "directory.expired",
        "directory.learned",
        "directory.neighbour",
        "directory.outrun",
        "directory.parted",
        "directory.provided",
        "directory.provide_failed",
        "directory.put_off",
        "hearsay.untold",
        "http.client_left",
        "http.connection_failed",
        "http.response_broken",
        "market.barred",
        "market.circuit",
        "market.no_offers",
        "market.search_failed",
        "market.tightened",
        "mdns.not_reached",
        "mdns.seen",
        "negotiation",
        "session.dial_failed",
        "session.held_up",
        "transport.connection_lost",
        "transport.dial_failed",
        "transport.duplicate_closed",
        "transport.frame_dropped",
        "transport.stream_refused",
    ]
)
#: Fields that hold what a job's owner and its contractors tell one another.
_CONTENT: Final = {"award.progress": frozenset({"text"})}
_TOKEN: Final = re.compile(r"\bmesh1:\w+")
_LINE_MAX: Final = 2_000
#: A log file that has grown to this size is put aside, in place of the one before.
FILE_BYTES_MAX: Final = 16 * 1024 * 1024

Render = Callable[["Happening"], str]


def level_of(name: str) -> str:
    """Return how much an event of that name matters."""
    return "warning" if name in WARNINGS else "debug" if name in DETAILS else "info"


async def keep_log(events: "Events", config: "LogConfig") -> None:
    """Write what has happened, and happens from here on, until cancelled."""
    import trio

    write = LogFile(config.file).write if config.file else _to_stderr
    render: Render = as_json if config.form == "json" else as_text
    shown = LEVELS[LEVELS.index(config.level) :]

    def lines(happened: Iterable["Happening"]) -> str:
        wanted = (one for one in happened if level_of(one.name) in shown)
        return "".join(render(one) + "\n" for one in wanted)

    with events.watch() as onlooker:
        news = [*events.recent]
        while True:
            if lost := onlooker.lost:
                onlooker.lost = 0
                news.insert(0, events.note("log.lost", count=lost))
            if text := lines(news):
                await trio.to_thread.run_sync(write, text, abandon_on_cancel=True)
            news = await onlooker.several()


def as_json(happening: "Happening") -> str:
    """Return an event as one line of JSON, as ``/api/events`` has it, with its level."""
    view = _view(happening)
    at = datetime.fromtimestamp(happening.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    line = {"at": at.replace("+00:00", "Z"), "level": level_of(happening.name), **view}
    return json.dumps(line, ensure_ascii=True)


def as_text(happening: "Happening") -> str:
    """Return an event as a line for people: time of day (UTC), name, fields."""
    fields = " ".join(f"{name}={value}" for name, value in _view(happening)["fields"].items())
    second = happening.at_ms // 1000 % 86_400
    hour = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    mark = "! " if level_of(happening.name) == "warning" else ""
    return plain(f"{hour} {mark}{happening.name} {fields}".rstrip(), size_max=_LINE_MAX)


def _view(happening: "Happening") -> dict[str, Any]:
    from meshnode.gateway.api_views import happening_view

    view: dict[str, Any] = dict(happening_view(happening))
    hidden = _CONTENT.get(happening.name, frozenset())
    fields: Mapping[str, Any] = view["fields"]
    view["fields"] = {
        name: scrubbed(value) for name, value in fields.items() if name not in hidden
    }
    return view


def scrubbed(value: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Return ``value`` without the secrets of invites."""
    match value:
        case str():
            return _TOKEN.sub("mesh1:…", value)
        case list():
            return [scrubbed(item) for item in value]
        case dict():
            return {name: scrubbed(item) for name, item in value.items()}
        case _:
            return value


def _to_stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody listens any more, and there is nobody to tell


class LogFile:
    """A file of the owner's alone that is put aside when it is full."""

    def __init__(self, path: str, *, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = Path(path).expanduser()
        self._bytes_max = bytes_max
        self._broken = False

    def write(self, text: str) -> None:
        """Append lines; a disk that refuses them is told on stderr, once."""
        try:
            if self._path.exists() and self._path.stat().st_size >= self._bytes_max:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            with os.fdopen(os.open(self._path, flags, 0o600), "wb") as stream:
                stream.write(text.encode())
            self._broken = False
        except OSError as error:
            if not self._broken:
                _to_stderr(f"the log {self._path} can't be written: {error.strerror}\n")
            self._broken = True
