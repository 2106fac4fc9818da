"""Keys that have ended, under ``/api``: what this node knows of them, and news for the mesh.

GET  /api/keys                     {peer, ended: [{peer, heir, from_ms, reason, stands}],
                                   withdrawn: {app key: since_ms}}
POST /api/keys                     tell the mesh that a key has ended: {statement}, base64
                                   of what its owner signed -> 201 {peer, heir}
POST /api/apps/APP/withdraw        let the program with that key in no more -> {app}
"""

from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import BadRequest, read_only_text, read_query
from meshnode.node import Node
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from meshnode.ports import JsonValue


def key_routes(node: Node) -> list[BaseRoute]:
    """Return the routes about keys that ``node`` knows to have ended."""
    api = _Keys(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/api/keys", api.ended),
        ("POST", "/api/keys", api.publish),
        ("POST", "/api/apps/{app}/withdraw", api.withdraw),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


class _Keys:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ended(self, request: Request) -> Response:
        """List them."""
        read_query(request.query_params.multi_items())
        fates = self._node.fates
        rows: list[JsonValue] = [
            {
                "peer": heard.said.peer,
                "heir": heard.said.heir,
                "from_ms": heard.from_ms,
                "reason": heard.said.reason,
                "stands": fates.heir(heard.said.peer),
            }
            for heard in fates.all()
        ]
        withdrawn: dict[str, JsonValue] = {**self._node.identities.apps.withdrawn()}
        return answer({"peer": self._node.peer, "ended": rows, "withdrawn": withdrawn})

    async def withdraw(self, request: Request) -> Response:
        """Let a program in no more."""
        read_query(request.query_params.multi_items())
        app: str = request.path_params["app"]
        await self._node.identities.apps.withdraw(app)
        return answer({"app": app})

    async def publish(self, request: Request) -> Response:
        """Learn a statement, and tell the mesh."""
        read_query(request.query_params.multi_items())
        text = read_only_text(await request.body(), "statement")
        try:
            said = await self._node.fates.publish(a2b_base64(text, strict_mode=True))
        except NotBase64 as exc:
            raise BadRequest("'statement' is not base64") from exc
        except RemoteProtocolError as exc:
            raise BadRequest(
                f"that ends no key of this mesh: {exc}",
                hint="take the file as `meshnode keys revoke --prepare` wrote it",
            ) from exc
        return answer({"peer": said.peer, "heir": said.heir}, 201)
