"""A transport over which artifacts go out with one byte changed; all else as it was."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshnode.ports import Handler, Stream, Transport
from protocol.artifacts import PROTOCOL


@dataclass(slots=True)
class _TamperedStream:
    """A stream whose first message passes, and what follows it doesn't as it is."""

    stream: Stream
    begun: bool = False

    @property
    def peer(self) -> str:
        return self.stream.peer

    async def send(self, data: bytes) -> None:
        if self.begun:
            middle = len(data) // 2  # of a text: still one, but another
            data = (
                data[:middle]
                + bytes(byte ^ 1 for byte in data[middle:][:1])
                + data[middle + 1 :]
            )
        self.begun = True
        await self.stream.send(data)

    def send_nowait(self, data: bytes) -> bool:
        del data
        return False

    async def receive(self, size_max: int = 65_536) -> bytes:
        return await self.stream.receive(size_max)

    def deliver_to(self, take: Callable[[bytes], None], /) -> bool:
        return self.stream.deliver_to(take)

    def mind_silence(self, limit_s: float, on_silence: Callable[[], None], /) -> bool:
        return self.stream.mind_silence(limit_s, on_silence)

    async def finish(self) -> None:
        await self.stream.finish()

    async def aclose(self) -> None:
        await self.stream.aclose()


@dataclass(frozen=True, slots=True)
class TamperingTransport:
    """See the module; :class:`meshnode.ports.Transport`.

    Attributes:
        transport: What it is around.
        spared: PeerIds that get all as it is.
    """

    transport: Transport
    spared: dict[str, None] = field(default_factory=dict)

    @property
    def peer(self) -> str:
        """See there."""
        return self.transport.peer

    def addresses(self) -> Sequence[str]:
        """See there."""
        return self.transport.addresses()

    async def open(self, peer: str, protocol: str, *, addresses: Sequence[str] = ()) -> Stream:
        """See there."""
        return await self.transport.open(peer, protocol, addresses=addresses)

    def serve(self, protocol: str, handler: Handler, *, per_peer_max: int = 32) -> None:
        """Serve, artifacts through a stream that tampers with them."""

        async def tampered(stream: Stream) -> None:
            await handler(stream if stream.peer in self.spared else _TamperedStream(stream))

        chosen = tampered if protocol == PROTOCOL else handler
        self.transport.serve(protocol, chosen, per_peer_max=per_peer_max)

    async def disconnect(self, peer: str) -> None:
        """See there."""
        await self.transport.disconnect(peer)
