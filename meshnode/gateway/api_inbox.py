"""Letters of this node's owner, under ``/api``: those that came, and those that he wrote.

GET  /api/inbox                    those that came, the newest first
GET  /api/inbox/ID                 one of them, with its body
POST /api/inbox/ID/read            note that it was read
POST /api/inbox/ID/delete          delete it; also one of the outbox
GET  /api/outbox                   those that he wrote, and how each stands
POST /api/outbox                   write one: {to, text or base64, subject, kind,
                                   expires_s} -> 201 {id, to, state}; ``to`` is a PeerId,
                                   the end of one, or a name

ID is a letter's name, or enough of its beginning.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_peers import who_is_meant
from meshnode.gateway.api_requests import read_new_letter, read_query
from meshnode.node import InboxRow, Node, OutboxRow
from meshnode.ports import JsonValue

_ID: Final = re.compile(r"[0-9a-f]{1,64}")


def inbox_routes(node: Node) -> list[BaseRoute]:
    """Return the routes about letters of ``node``."""
    api = _Letters(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/api/inbox", api.inbox),
        ("GET", "/api/inbox/{letter}", api.letter),
        ("POST", "/api/inbox/{letter}/read", api.read),
        ("POST", "/api/inbox/{letter}/delete", api.delete),
        ("GET", "/api/outbox", api.outbox),
        ("POST", "/api/outbox", api.write),
    )
    return [Route(path, blaming(do), methods=[method]) for method, path, do in table]


class _Letters:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def inbox(self, request: Request) -> Response:
        """List what came."""
        read_query(request.query_params.multi_items())
        rows = await self._node.inbox.rows()
        listed: list[JsonValue] = [self._came(name, row) for name, row in rows]
        unread = sum(not row.read_ms for _, row in rows)
        return answer({"letters": listed, "unread": unread})

    async def letter(self, request: Request) -> Response:
        """Show one that came."""
        read_query(request.query_params.multi_items())
        rows = await self._node.inbox.rows()
        name = _only(request.path_params["letter"], [name for name, _ in rows])
        row, letter = await self._node.inbox.letter(name)
        return answer({**self._came(name, row), **_body(letter.body)})

    async def read(self, request: Request) -> Response:
        """Note that one was read."""
        read_query(request.query_params.multi_items())
        rows = await self._node.inbox.rows()
        name = _only(request.path_params["letter"], [name for name, _ in rows])
        return answer(self._came(name, await self._node.inbox.mark_read(name)))

    async def delete(self, request: Request) -> Response:
        """Delete one that came, or one that was written here."""
        read_query(request.query_params.multi_items())
        came = {name for name, _ in await self._node.inbox.rows()}
        sent = {name for name, _ in await self._node.outbox.rows()}
        name = _only(request.path_params["letter"], sorted(came | sent))
        if name in came:
            await self._node.inbox.delete(name)
        if name in sent:
            await self._node.outbox.delete(name)
        return answer({"id": name, "deleted": True})

    async def outbox(self, request: Request) -> Response:
        """List what was written here."""
        read_query(request.query_params.multi_items())
        rows = await self._node.outbox.rows()
        return answer({"letters": [self._sent(name, row) for name, row in rows]})

    async def write(self, request: Request) -> Response:
        """Take a letter."""
        read_query(request.query_params.multi_items())
        wanted = read_new_letter(await request.body())
        peer = await who_is_meant(self._node, wanted.to, or_anybody=True)
        name = await self._node.outbox.write(
            peer,
            wanted.body,
            subject=wanted.subject,
            kind=wanted.kind,
            lifetime_s=wanted.expires_s,
        )
        return answer(self._sent(name, await self._node.outbox.row(name)), 201)

    def _came(self, name: str, row: InboxRow) -> dict[str, JsonValue]:
        return {
            "id": name,
            "from": row.sender,
            "name": self._node.members.name_of(row.sender),
            "kind": row.kind,
            "subject": row.subject,
            "bytes": row.size,
            "sent_ms": row.sent_ms,
            "received_ms": row.received_ms,
            "read_ms": row.read_ms or None,
            "by": row.by or None,
        }

    def _sent(self, name: str, row: OutboxRow) -> dict[str, JsonValue]:
        return {
            "id": name,
            "to": row.peer,
            "name": self._node.members.name_of(row.peer),
            "kind": row.kind,
            "subject": row.subject,
            "bytes": row.size,
            "sent_ms": row.sent_ms,
            "expires_ms": row.expires_ms,
            "state": row.state,
            "ended_ms": row.ended_ms or None,
            "code": row.code or None,
            "text": row.text or None,
            "mailboxes": [*row.mailboxes],
        }


def _only(text: str, names: Iterable[str]) -> str:
    """Return the one of ``names`` that begins with ``text``.

    Raises:
        NotFound: None does, or several do.
    """
    found = [name for name in names if name.startswith(text)] if _ID.fullmatch(text) else []
    if len(found) != 1:
        told = f"{len(found)} letters begin with" if found else "there is no letter"
        raise NotFound(f"{told} {text[:64]!r}", hint="see `meshnode inbox`")
    return found[0]


def _body(body: bytes) -> dict[str, JsonValue]:
    """Return a body as JSON can hold it: as text where it is text."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}
