"""How the node's API answers: JSON, and failures with a status that says whose they are."""

from collections.abc import Awaitable, Callable
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshnode.errors import MeshError
from meshnode.gateway.auth import Refused
from meshnode.ports import JsonValue
from protocol.errors import RemoteProtocolError

Handler = Callable[[Request], Awaitable[Response]]


class Conflict(Refused):
    """The job is not in a state that allows it."""

    code = "job.state"
    status: ClassVar[int] = 409


class Unavailable(Refused):
    """The node can't do it now: it is starting or closing."""

    code = "node.unavailable"
    status: ClassVar[int] = 503


class Broken(Refused):
    """What is stored, or was sent by a peer, breaks the protocol."""

    code = "protocol.broken"
    status: ClassVar[int] = 502


def answer(
    value: JsonValue | dict[str, JsonValue],
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """Answer ``value``, not to be kept by anyone on the way."""
    return JSONResponse(value, status, {"cache-control": "no-store", **(headers or {})})


def blaming(handler: Handler) -> Handler:
    """Turn what the node raises into what a client can act on."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except RemoteProtocolError as exc:
            raise Broken(str(exc), hint="the node's log says more") from exc
        except MeshError as exc:
            if type(exc) is MeshError:  # the node itself: not running, or closing
                raise Unavailable(str(exc), hint=exc.hint or "ask another node") from exc
            raise
        except BaseExceptionGroup as group:
            # Several tasks worked on it; what one of them found out is the answer.
            known = group.subgroup(MeshError)
            if known is None:
                raise
            raise _first(known) from group

    return handle


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, MeshError)
    return error
