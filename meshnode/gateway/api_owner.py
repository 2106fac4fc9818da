"""What the owner of the machine says and sees, under ``/api``: pauses, and who was served.

POST /api/pause                    take on nothing more for others: {for_s} or nothing
                                   -> {paused, working}
POST /api/resume                   -> {was_paused}
GET  /api/served?since_s=N         what was asked, done and earned in the last N seconds
                                   (a day), by caller and capability; what is left of
                                   quotas
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.domain.admission import DAY_HOURS, Use
from meshnode.domain.tallies import Tally, total
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import read_count, read_pause, read_query
from meshnode.node import Node, Pause
from meshnode.ports import JsonValue

_DAY_S: Final = 86_400
#: Rows that are listed, the busiest first.
_ROWS_MAX: Final = 1_000


def owner_routes(node: Node) -> list[BaseRoute]:
    """Return the routes for the owner of ``node``."""
    api = _Owner(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("POST", "/api/pause", api.pause),
        ("POST", "/api/resume", api.resume),
        ("GET", "/api/served", api.served),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


def owner_view(node: Node) -> dict[str, JsonValue]:
    """Return what ``GET /api/node`` says of the owner's word: may others have work done?"""
    no = node.door.closed()
    pause = node.door.paused
    return {
        "paused": None if pause is None else _pause(pause),
        "closed": None if no is None else {"reason": no.reason, "text": no.text},
        "working": node.contractor.active,
    }


class _Owner:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def pause(self, request: Request) -> Response:
        """Take on nothing more for others."""
        read_query(request.query_params.multi_items())
        pause = await self._node.pause(read_pause(await request.body()))
        return answer({"paused": _pause(pause), "working": self._node.contractor.active})

    async def resume(self, request: Request) -> Response:
        """Work for others again."""
        read_query(request.query_params.multi_items())
        return answer({"was_paused": await self._node.resume()})

    async def served(self, request: Request) -> Response:
        """Tell who asked for what, and what came of it."""
        query = read_query(request.query_params.multi_items(), "since_s")
        since_s = read_count(query.get("since_s", str(_DAY_S)), "since_s")
        node = self._node
        since_ms = max(0, node.clock.now_ms() - since_s * 1000)
        tallies = await node.tallies.tallies(since_ms)
        rows = sorted(tallies.items(), key=lambda row: (-row[1].calls, -row[1].asked, row[0]))
        listed: list[JsonValue] = [
            {
                "caller": caller,
                "standing": node.members.standing(caller),
                "capability": capability,
                **_counts(tally),
            }
            for (caller, capability), tally in rows[:_ROWS_MAX]
        ]
        return answer(
            {
                "since_ms": since_ms,
                "rows": listed,
                "total": _counts(total(tallies.values())),
                "outstanding": node.tallies.outstanding(),
                "quotas": self._quotas(),
            }
        )

    def _quotas(self) -> list[JsonValue]:
        """Return the quotas for all callers together, and what is used of each."""
        quota, used = self._node.config.quota, self._node.tallies.everyone
        hour = self._node.door.now.hour
        table = (
            ("calls_per_hour", quota.calls_per_hour, _last(used, hour, 1).calls),
            ("calls_per_day", quota.calls_per_day, _last(used, hour, DAY_HOURS).calls),
            ("run_s_per_day", quota.run_s_per_day, _last(used, hour, DAY_HOURS).run_ms / 1000),
        )
        return [
            {"quota": name, "limit": limit, "used": amount}
            for name, limit, amount in table
            if limit
        ]


def _last(used: Use, hour: int, length: int) -> Tally:
    """Return what was used in the last ``length`` clock hours."""
    hours = range(hour - length + 1, hour + 1)
    return Tally(
        calls=sum(used.calls.get(number, 0) for number in hours),
        run_ms=sum(used.run_ms.get(number, 0) for number in hours),
    )


def _pause(pause: Pause) -> dict[str, JsonValue]:
    return {"since_ms": pause.since_ms, "until_ms": pause.until_ms or None}


def _counts(tally: Tally) -> dict[str, JsonValue]:
    return msgspec.structs.asdict(tally)
