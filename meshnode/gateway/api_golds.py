"""Gold tasks, under ``/api``: tasks whose answer this node knows, to see who else does.

GET    /api/golds?capability=C     those that are kept, with how often each was given and how
                                   it went
POST   /api/golds                  keep some: {capability, golds: [{inputs, output}], like:
                                   {kind, relative_ppm, absolute_ppm}} -> 201 {golds: [ID]}
POST   /api/golds/NAME/remove      forget one, or all of a capability -> {removed: [ID]}

NAME is the beginning of an id, or a capability.  None of it leaves this node but the inputs,
as those of a job, to the agent that is asked.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.domain.values import parse
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import read_golds, read_query
from meshnode.node import Gold, Node
from meshnode.ports import JsonValue


def golds_routes(node: Node) -> list[BaseRoute]:
    """Return the routes of ``node``'s golds."""
    api = _Golds(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/api/golds", api.golds),
        ("POST", "/api/golds", api.add),
        ("POST", "/api/golds/{name}/remove", api.remove),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


class _Golds:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._kept = node.golds.kept

    async def golds(self, request: Request) -> Response:
        """List them."""
        query = read_query(request.query_params.multi_items(), "capability")
        rows = await self._kept.rows(query.get("capability", ""))
        return answer({"golds": [_gold_view(gold) for gold in rows]})

    async def add(self, request: Request) -> Response:
        """Keep some; those before one that is refused are kept."""
        read_query(request.query_params.multi_items())
        wanted = read_golds(await request.body())
        made: list[JsonValue] = [
            await self._kept.add(wanted.capability, inputs, output, wanted.like)
            for inputs, output in wanted.pairs
        ]
        return answer({"golds": made}, 201)

    async def remove(self, request: Request) -> Response:
        """Forget some."""
        read_query(request.query_params.multi_items())
        gone: list[JsonValue] = [*await self._kept.remove(request.path_params["name"])]
        return answer({"removed": gone})


def _gold_view(gold: Gold) -> dict[str, JsonValue]:
    row = gold.row
    return {
        "gold": gold.name,
        "capability": gold.capability,
        "inputs": gold.inputs,
        "output": parse(gold.output),
        "like": gold.like.kind,
        "origin": row.origin,
        "added_ms": row.added_ms,
        "expires_ms": row.expires_ms or None,
        "given": row.given,
        "passed": row.passed,
        "failed": row.failed,
        "absent": row.absent,
    }
