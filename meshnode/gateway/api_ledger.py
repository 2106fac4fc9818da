"""Who owes whom, under ``/api``: balances with each peer, and the receipts behind them.

GET  /api/ledger                   how this node and each peer stand, who owes most first
GET  /api/ledger/PEER?limit=N      one of them, with its newest N postings (100), the
                                   newest first

POST /api/ledger/PEER/settle       say that it was paid, outside the mesh: {amount_mc,
                                   note} -> 201 {payment}
POST /api/payments/KEY/confirm     a payment that is said to have come has come
POST /api/payments/KEY/deny        it has not -> {payment}

PEER is a PeerId, the end of one that only one peer here has, or the name of an invited one;
KEY is the beginning of a payment's.
"""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_peers import who_is_meant
from meshnode.gateway.api_requests import read_count, read_payment, read_query
from meshnode.node import Node, Settled
from meshnode.ports import JsonValue

_POSTINGS: Final = 100
_POSTINGS_MAX: Final = 10_000


def ledger_routes(node: Node) -> list[BaseRoute]:
    """Return the routes of ``node``'s ledger."""
    api = _Ledger(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/api/ledger", api.peers),
        ("GET", "/api/ledger/{peer}", api.peer),
        ("POST", "/api/ledger/{peer}/settle", api.settle),
        ("POST", "/api/payments/{key}/confirm", api.confirm),
        ("POST", "/api/payments/{key}/deny", api.deny),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


class _Ledger:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def peers(self, request: Request) -> Response:
        """Tell how this node and each peer stand."""
        read_query(request.query_params.multi_items())
        rows = [self._standing(peer) for peer in self._node.ledger.balances.peers()]
        rows.sort(key=lambda row: (-_whole(row["due_mc"]), str(row["peer"])))
        due = [_whole(row["due_mc"]) for row in rows]
        return answer(
            {
                "peers": [*rows],
                "owed_mc": sum(amount_mc for amount_mc in due if amount_mc > 0),
                "owing_mc": -sum(amount_mc for amount_mc in due if amount_mc < 0),
                "to_confirm": [
                    payment_view(key, row)
                    for key, row in await self._payments()
                    if (row.kind, row.state) == ("received", "noted")
                ],
                "settlement": self._node.settlements.method,
                "limits": {
                    "owed_max_mc": self._node.config.ledger.owed_max_mc or None,
                    "owing_max_mc": self._node.config.ledger.owing_max_mc or None,
                },
            }
        )

    async def peer(self, request: Request) -> Response:
        """Tell how one peer stands, and what that is made of."""
        query = read_query(request.query_params.multi_items(), "limit")
        limit = min(read_count(query.get("limit", str(_POSTINGS)), "limit"), _POSTINGS_MAX)
        peer = await who_is_meant(self._node, request.path_params["peer"])
        found = await self._node.ledger.history(peer, count_max=limit)
        postings: list[JsonValue] = [msgspec.to_builtins(posting) for posting in found]
        payments: list[JsonValue] = [
            payment_view(key, row) for key, row in await self._payments() if row.peer == peer
        ]
        return answer(
            {**self._standing(peer), "postings": postings, "payments": payments[:limit]}
        )

    async def settle(self, request: Request) -> Response:
        """Note a payment, and tell its payee."""
        read_query(request.query_params.multi_items())
        amount_mc, note = read_payment(await request.body())
        peer = await who_is_meant(self._node, request.path_params["peer"])
        key, row = await self._node.settlements.settle(peer, amount_mc, note)
        return answer({"payment": payment_view(key, row), **self._standing(peer)}, 201)

    async def confirm(self, request: Request) -> Response:
        """Say that a payment came."""
        return await self._decide(request, came=True)

    async def deny(self, request: Request) -> Response:
        """Say that it didn't."""
        return await self._decide(request, came=False)

    async def _decide(self, request: Request, *, came: bool) -> Response:
        read_query(request.query_params.multi_items())
        text: str = request.path_params["key"]
        waiting = [
            key
            for key, row in await self._payments()
            if row.state == "noted" and row.kind == "received" and key.startswith(text)
        ]
        if len(waiting) > 1:
            raise NotFound(f"{len(waiting)} payments begin with {text[:80]!r}", hint="say more")
        key = waiting[0] if waiting else text
        row = await self._node.settlements.decide(key, came=came)
        return answer({"payment": payment_view(key, row), **self._standing(row.peer)})

    async def _payments(self) -> list[tuple[str, Settled]]:
        """Return every payment, the newest first."""
        rows = await self._node.settlements.rows()
        return sorted(rows.items(), key=lambda item: (-item[1].at_ms, item[0]))

    def _standing(self, peer: str) -> dict[str, JsonValue]:
        standing = self._node.ledger.balances.standing(peer)
        return {
            "peer": peer,
            "name": self._node.members.name_of(peer),
            "standing": self._node.members.standing(peer),
            **{name: getattr(standing, name) for name in standing.__slots__},
            "unaccepted_mc": self._node.ledger.waiting_mc(peer),
        }


def payment_view(key: str, row: Settled) -> dict[str, JsonValue]:
    """Return what is told of a payment."""
    return {
        "key": key,
        "peer": row.peer,
        "kind": row.kind,
        "amount_mc": row.amount_mc,
        "note": row.reference,
        "state": row.state,
        "at_ms": row.at_ms,
        "expires_ms": row.expires_ms,
        "text": row.text,
    }


def _whole(value: JsonValue) -> int:
    assert isinstance(value, int)
    return value
