"""What buyers have of this node's work and haven't signed for, under ``/api``.

GET  /api/buyers                       who had work here that costs something: what it may
                                       have before it signs for it, what it has, and how it
                                       stood by what it had

What each number means stands in ``docs/buyers.md``.  Numbers are whole millicredits.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.gateway.api_answers import answer, blaming
from meshnode.gateway.api_requests import read_query
from meshnode.node import Node
from meshnode.ports import JsonValue


def buyer_routes(node: Node) -> list[BaseRoute]:
    """Return the routes of what ``node`` knows of buyers."""

    async def buyers(request: Request) -> Response:
        """Tell how every buyer stands, who has most out first."""
        read_query(request.query_params.multi_items())
        # One that has changed its key is told of once, by the key of now.
        heirs = {node.fates.heir(peer) for peer in node.ledger.buyers.known()}
        rows = [_row(node, peer) for peer in sorted(heirs)]
        rows.sort(key=lambda row: -_whole(row["out_mc"]))
        return answer({"buyers": [*rows]})

    return [Route("/api/buyers", blaming(buyers), methods=["GET"])]


def _row(node: Node, peer: str) -> dict[str, JsonValue]:
    purchaser = node.door.purchaser(peer)
    buyer = node.ledger.buyers.buyer(purchaser.keys)
    in_work_mc = node.contractor.in_work_mc(purchaser.keys)
    first_mc = purchaser.first_mc
    return {
        "peer": peer,
        "name": node.members.name_of(peer),
        "peer_is": node.members.standing(peer),
        "first_mc": first_mc or None,
        "cap_mc": buyer.exposure_max_mc(first_mc) if first_mc else None,
        "out_mc": buyer.open_mc + in_work_mc,
        "in_work_mc": in_work_mc,
        "lost_mc": buyer.lost_mc,
        "settled_mc": buyer.settled_mc,
        "accepted": buyer.accepted,
        "unsupported": buyer.unsupported,
        "fairness": buyer.fairness,
    }


def _whole(value: JsonValue) -> int:
    assert isinstance(value, int)
    return value
