"""A handler at work on a stream that somebody opened, from its start to whatever ends it."""

from typing import TYPE_CHECKING

import trio

from meshnode.errors import StreamLost
from meshnode.ports import Handler
from simulations.links import SimStream

if TYPE_CHECKING:
    from simulations.network import SimNetwork, SimTransport


class Incoming:
    """A handler at work on one stream."""

    __slots__ = ("_handler", "_host", "_network", "_protocol", "_scope", "_stream")

    def __init__(
        self,
        network: "SimNetwork",
        host: "SimTransport",
        protocol: str,
        handler: Handler,
        stream: SimStream,
    ) -> None:
        self._network = network
        self._host = host
        self._protocol = protocol
        self._handler = handler
        self._stream = stream
        self._scope = trio.CancelScope()
        host.scopes[self._scope] = None  # from now on: a crash may come before the start

    async def serve(self) -> None:
        """Run the handler to its end, whatever that is."""
        key = (self._protocol, self._stream.peer)
        try:
            with self._scope:
                await self._handler(self._stream)
        except Exception as exc:  # noqa: BLE001 - reported to the network, which is the supervisor
            self._report(exc)
            self._stream.reset("its handler failed")
        finally:
            del self._host.scopes[self._scope]
            self._host.running[key] -= 1
            self._stream.close()

    def _report(self, exc: Exception) -> None:
        name = type(exc).__name__
        self._network.trace.note(f"{self._host.peer} handler {self._protocol}: {name}")
        rest = exc.split(StreamLost)[1] if isinstance(exc, ExceptionGroup) else exc
        if rest is not None and not isinstance(rest, StreamLost):
            self._network.handler_failures.append((self._host.peer, self._protocol, exc))
