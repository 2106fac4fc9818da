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
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_requests import read_new_letter, read_query
from meshnode.node import InboxRow, Node, OutboxRow
from meshnode.ports import JsonValue
from protocol.errors import Malformed
from protocol.keys import public_key

_ID: Final = re.compile(r"[0-9a-f]{1,64}")
#: As much of the end of a PeerId as tells who is meant.
_END_MIN: Final = 6


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
        peer = await self._whom(wanted.to)
        name = await self._node.outbox.write(
            peer,
            wanted.body,
            subject=wanted.subject,
            kind=wanted.kind,
            lifetime_s=wanted.expires_s,
        )
        return answer(self._sent(name, await self._node.outbox.row(name)), 201)

    async def _whom(self, text: str) -> str:
        """Return the PeerId of who is meant: said in full, by its end, or by a name.

        Raises:
            NotFound: Nobody is, or several are.
        """
        try:
            public_key(text)
        except Malformed:
            pass
        else:
            return text
        known = await self._known()
        node = self._node
        found = [peer for peer in known if text and node.members.name_of(peer) == text]
        if not found and len(text) >= _END_MIN:
            found = [peer for peer in known if peer.endswith(text)]
        if len(found) != 1:
            told = f"{len(found)} peers are called" if found else "there is no peer"
            raise NotFound(
                f"{told} {text[:60]!r}",
                hint="give a whole PeerId, or see `meshnode peers`",
            )
        return found[0]

    async def _known(self) -> Sequence[str]:
        """Return everyone of whom this node knows, and itself."""
        node = self._node
        known = {node.peer, *node.sessions.connected()}
        known |= {record.peer for record in node.known()}
        known |= {edge.peer for edge in node.members.edges()}
        known |= {*node.acquaintances.met}
        known |= {row.sender for _, row in await node.inbox.rows()}
        known |= {row.peer for _, row in await node.outbox.rows()}
        return sorted(known)

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
