"""Who belongs to the mesh, under ``/api``: invites of this node, and its peers.

POST /api/invites                  make one: {name, uses, expires_s} -> 201 {token, …};
                                   the token is told this once
GET  /api/invites                  those of this node, the newest first
POST /api/invites/ID/revoke        nobody joins by it any more
GET  /api/peers                    who is known or connected, and what they are to us
"""

import re
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import read_new_invite, read_query
from meshnode.gateway.api_views import seen_view
from meshnode.node import InviteRow, Node, is_local
from meshnode.ports import JsonValue, WallClock

_ID: Final = re.compile(r"[0-9a-f]{1,64}")
#: Peers that are asked who they are for one listing, seconds in all.
_MEET_S: Final = 3.0


def member_routes(node: Node, clock: WallClock) -> list[BaseRoute]:
    """Return the routes about members of the mesh of ``node``."""
    api = _Members(node, clock)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("POST", "/api/invites", api.invite),
        ("GET", "/api/invites", api.invites),
        ("POST", "/api/invites/{invite}/revoke", api.revoke),
        ("GET", "/api/peers", api.peers),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


class _Members:
    """One method for each route."""

    def __init__(self, node: Node, clock: WallClock) -> None:
        self._node = node
        self._clock = clock

    async def invite(self, request: Request) -> Response:
        """Make an invite."""
        read_query(request.query_params.multi_items())
        wanted = read_new_invite(await request.body())
        node = self._node
        key, token, row = await node.invites.create(
            node.dialled,
            name=wanted.name,
            uses=wanted.uses,
            lifetime_s=wanted.expires_s,
        )
        local_only = all(is_local(address) for address in node.dialled)
        view = self._view(key, row)
        return answer({"token": token, **view, "local_only": local_only}, 201)

    async def invites(self, request: Request) -> Response:
        """List invites."""
        read_query(request.query_params.multi_items())
        rows = await self._node.invites.rows()
        joined: dict[str, list[JsonValue]] = {}
        for edge in self._node.members.edges():
            if edge.relation == "invited":
                joined.setdefault(edge.invite.hex(), []).append(edge.peer)
        listed: list[JsonValue] = [
            {**self._view(key, row), "members": joined.get(key, [])} for key, row in rows
        ]
        return answer({"invites": listed})

    async def revoke(self, request: Request) -> Response:
        """End an invite."""
        read_query(request.query_params.multi_items())
        key: str = request.path_params["invite"]
        if not _ID.fullmatch(key):
            raise NotFound(f"there is no invite {key[:40]!r} here", hint="see GET /api/invites")
        return answer(self._view(key, await self._node.invites.revoke(key)))

    def _view(self, key: str, row: InviteRow) -> dict[str, JsonValue]:
        now_ms = self._clock.now_ms()
        state = "open"
        if row.revoked:
            state = "revoked"
        elif row.used >= row.uses:
            state = "used"
        elif row.expires_ms <= now_ms:
            state = "expired"
        return {
            "invite": key,
            "name": row.name,
            "uses": row.uses,
            "used": row.used,
            "issued_ms": row.issued_ms,
            "expires_ms": row.expires_ms,
            "state": state,
        }

    async def peers(self, request: Request) -> Response:
        """List peers."""
        read_query(request.query_params.multi_items())
        node = self._node
        connected = set(node.sessions.connected())
        with trio.move_on_after(_MEET_S):
            async with trio.open_nursery() as nursery:
                for peer in sorted(connected):
                    nursery.start_soon(node.members.meet, peer)
        records = {record.peer: record for record in node.known()}
        others = (connected | records.keys()) - {node.peer}
        rows: list[JsonValue] = []
        for peer in sorted(others, key=lambda p: (p not in connected, p)):
            up = peer in connected
            offers = records[peer].capabilities if peer in records else []
            rows.append(
                {
                    "peer": peer,
                    "name": node.members.name_of(peer),
                    "standing": node.members.standing(peer),
                    "name_cost": node.identities.cost.cost(peer),
                    "connected": up,
                    "circuit": node.market.circuit(peer).value,
                    "addresses": [*node.addresses_of(peer)],
                    "round_trip_ms": node.sessions.round_trip_ms(peer) if up else None,
                    "clock_ms": node.sessions.offset_ms(peer) if up else None,
                    "capabilities": len(offers),
                    "claims": [
                        {"agent": offer.agent, **seen}
                        for offer in offers
                        if (seen := seen_view(node, peer, offer))["text"]
                    ],
                }
            )
        lineage = node.members.lineage
        return answer(
            {
                "peers": rows,
                "founder": lineage.root,
                "inviter": lineage.inviter,
                "advice": node.advice.text(),
            }
        )
