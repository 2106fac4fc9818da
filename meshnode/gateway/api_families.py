"""Model families, under ``/api``: what agents declare, and how they answer.

POST /api/families/CAPABILITY    ask its agents -> {agents: [{agent, declared, family}]}; an
                                 empty family is unknown
"""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.errors import InputInvalid
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import read_query
from meshnode.node import Node
from meshnode.ports import JsonValue
from protocol.errors import Malformed
from protocol.records import CapabilityName


def family_routes(node: Node) -> list[BaseRoute]:
    """Return the routes of what ``node`` knows of model families."""

    async def probe(request: Request) -> Response:
        """Ask agents of a capability."""
        read_query(request.query_params.multi_items())
        name = request.path_params["capability"]
        try:
            full = CapabilityName.parse(name).major > 0
        except Malformed as exc:
            raise InputInvalid(str(exc)) from exc
        if not full:
            raise InputInvalid(f"{name} has no version", hint="write it like text.chat@1")
        told = await node.families.probe(name)
        return answer({"agents": _rows(node, told)})

    do: Handler = probe
    return [Route("/api/families/{capability}", blaming(do), methods=["POST"])]


def _rows(node: Node, agents: Iterable[str]) -> list[JsonValue]:
    return [
        {"agent": agent, "declared": row.declared, "family": row.family}
        for agent in sorted(agents)
        if (row := node.families.probed(agent)) is not None
    ]
