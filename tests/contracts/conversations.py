"""What the claims about transports are told with."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from meshnode.errors import StreamLost
from meshnode.ports import Stream, Transport

ECHO: Final = "/meshnode/test-echo/1"
OTHER: Final = "/meshnode/test-other/1"
MIB: Final = 1024 * 1024


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    while data := await stream.receive():
        await stream.send(data)
    await stream.finish()


async def dial(here: Transport, there: Transport, protocol: str = ECHO) -> Stream:
    """Open a stream from ``here`` to ``there``."""
    return await here.open(there.peer, protocol, addresses=there.addresses())


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Receive ``size`` bytes; less is a failure."""
    parts = bytearray()
    while len(parts) < size:
        part = await stream.receive(size - len(parts))
        assert part, f"ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


async def receive_all(stream: Stream) -> bytes:
    """Receive until the peer has finished."""
    parts = bytearray()
    while part := await stream.receive():
        parts += part
    return bytes(parts)


async def ping(stream: Stream, text: bytes = b"ping") -> None:
    """Show that an echo stream works."""
    await stream.send(text)
    assert await receive_exactly(stream, len(text)) == text


async def is_over(stream: Stream) -> bool:
    """Read to the end; tell whether it was an end (True) or a break (False)."""
    try:
        await receive_all(stream)
    except StreamLost:
        return False
    return True


async def cancel_after(steps: int, work: Callable[[], Awaitable[object]]) -> None:
    """Run ``work`` and cancel it when the scheduler has gone round ``steps`` times."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await work()

        nursery.start_soon(run)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


def pattern(size: int) -> bytes:
    """Bytes in which a missing, doubled or swapped piece shows."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]
