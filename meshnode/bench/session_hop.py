"""Our side of the contest: a request on a session of this node's, and the answer.

The product's own transport and sessions: encrypted, both sides authenticated, dispatched by
method to a handler in a task of its own.  See :mod:`meshnode.bench.beside.turns`.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from meshnode.adapters.libp2p_transport import open_transport
from meshnode.adapters.system import SystemClock, SystemEntropy
from meshnode.bench.beside.turns import BODY, arguments, check, take_turns
from meshnode.services.sessions import Incoming, Sessions

_ECHO: Final = "bench.echo"
_CALL_S: Final = 30.0


async def _echo(request: Incoming) -> bytes:
    return request.body


def silent(_: str, /, **__: object) -> None:
    """Report to nobody."""


@asynccontextmanager
async def open_sessions(known: dict[str, list[str]]) -> AsyncIterator[Sessions]:
    """Run the sessions of a node that finds peers at the addresses in ``known``.

    It adds its own addresses to ``known``.
    """
    async with open_transport(SystemEntropy().token(32), emit=silent) as transport:
        known[transport.peer] = list(transport.addresses())
        sessions = Sessions(
            transport,
            network="bench",
            clock=SystemClock(),
            emit=silent,
            addresses=lambda peer: known.get(peer, []),
        )
        sessions.handle(_ECHO, _echo)
        async with trio.open_nursery() as nursery:
            await nursery.start(sessions.run)
            yield sessions
            await sessions.aclose()
            nursery.cancel_scope.cancel()


async def _main() -> None:
    part, address = arguments()
    known: dict[str, list[str]] = {}
    async with open_sessions(known) as callee, open_sessions(known) as caller:
        if part == "callee":
            address = f"{known[callee.peer][0]}/p2p/{callee.peer}"
            await take_turns(_readline, address=address)
            return
        peer = callee.peer
        if part == "caller":
            where, _, peer = address.partition("/p2p/")
            known[peer] = [where]
        await caller.connect(peer)
        await take_turns(_readline, partial(_call, caller, peer))


async def _call(sessions: Sessions, peer: str) -> None:
    check(await sessions.request(peer, _ECHO, BODY, timeout_s=_CALL_S), BODY)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
