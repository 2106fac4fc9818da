"""A stock py-libp2p node for the tests: it does what it is told, and patches nothing.

On standard input a line of JSON each, the answers on standard output; ``peer.mjs`` does the
same with js-libp2p.  Nothing of ours is loaded that touches py-libp2p.
"""

import hashlib
import json
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from meshnode.bench.beside.libp2p_hop import LISTEN, stock_host
from tests.contracts.conversations import pattern

if TYPE_CHECKING:
    from libp2p.network.stream.net_stream import NetStream

ECHO, SIZE, BREAK, MUTE = (
    TProtocol(f"/interop/{name}/1") for name in ("echo", "size", "break", "mute")
)
PIECE = 64 * 1024
STALL_S = 1.0


async def read_all(stream: INetStream) -> bytes:
    """Read to the end."""
    data = bytearray()
    with suppress(StreamEOF):
        while piece := await stream.read(PIECE):
            data += piece
    return bytes(data)


async def finish(stream: INetStream) -> None:
    """Say that nothing more comes, and go on reading."""
    await cast("NetStream", stream).close_write()


class Peer:
    """What is asked of it, by name."""

    def __init__(self, host: IHost, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._muted: list[tuple[INetStream, trio.Event]] = []
        handlers = {ECHO: self._echo, SIZE: self._size, BREAK: self._break, MUTE: self._mute}
        for protocol, handler in handlers.items():
            host.set_stream_handler(protocol, handler)

    # --- as the one who is dialled ---

    async def _echo(self, stream: INetStream) -> None:
        with suppress(StreamEOF):
            while piece := await stream.read(PIECE):
                await stream.write(piece)
        await finish(stream)

    async def _size(self, stream: INetStream) -> None:
        size = len(await read_all(stream))
        await stream.write(str(size).encode())
        await finish(stream)

    async def _break(self, stream: INetStream) -> None:
        await stream.read(1)
        await stream.reset()

    async def _mute(self, stream: INetStream) -> None:
        over = trio.Event()
        self._muted.append((stream, over))
        await over.wait()

    # --- as the one who dials ---

    async def _open(self, address: str, protocol: TProtocol) -> INetStream:
        return await self._host.new_stream(await self._connect(address), [protocol])

    async def _connect(self, address: str) -> ID:
        info = info_from_p2p_addr(Multiaddr(address))
        await self._host.connect(info)
        return info.peer_id

    async def echo(self, address: str, size: int, streams: int) -> dict[str, Any]:
        """Say as much on as many streams at once, and compare what comes back."""
        data = pattern(size)
        await self._connect(address)

        async def once() -> None:
            stream = await self._open(address, ECHO)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream, data)
                back = await read_all(stream)
            if back != data:
                raise ValueError(f"the echo of {len(data)} bytes has {len(back)}")

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(once)
        return {"echoed": streams}

    async def _send(self, stream: INetStream, data: bytes) -> None:
        await stream.write(data)
        await finish(stream)

    async def ping(self, address: str) -> dict[str, Any]:
        """Ping with the library's own service."""
        (took_us,) = await PingService(self._host).ping(await self._connect(address))
        return {"ms": took_us / 1000}

    async def flood(self, address: str, size: int) -> dict[str, Any]:
        """Send to one that doesn't read; tell how much went before nothing moved any more."""
        stream = await self._open(address, MUTE)
        data = pattern(size)
        sent, moved = 0, trio.Event()

        async def send() -> None:
            nonlocal sent
            for at in range(0, size, PIECE):
                await stream.write(data[at : at + PIECE])
                sent = min(size, at + PIECE)
                moved.set()
            await finish(stream)

        self._nursery.start_soon(send)
        stalled = False
        while sent < size and not stalled:
            moved = trio.Event()
            with trio.move_on_after(STALL_S) as scope:
                await moved.wait()
            stalled = scope.cancelled_caught
        return {"sent": sent}

    async def unmute(self) -> dict[str, Any]:
        """Read all of a stream that nobody has read yet."""
        stream, over = self._muted.pop(0)
        data = await read_all(stream)
        await finish(stream)
        over.set()
        return {"sha256": hashlib.sha256(data).hexdigest()}

    async def broken(self, address: str) -> dict[str, Any]:
        """Tell whether the other side broke the stream off, and did not end it.

        To one that reads, py-libp2p tells an end and a break alike; writing shows which.
        """
        stream = await self._open(address, BREAK)
        await stream.write(b"?")
        with suppress(StreamError):
            await stream.read(1)
        try:
            await stream.write(b"?")
        except StreamError:
            return {"broken": True}
        return {"broken": False}


def _report(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - how a child tells its parent


async def _main() -> None:
    logging.disable(logging.CRITICAL)
    assert not any(name.startswith("meshnode.adapters") for name in sys.modules), "patched"
    host = stock_host()
    async with host.run([LISTEN]), trio.open_nursery() as nursery:
        peer = Peer(host, nursery)
        _report({"address": str(host.get_addrs()[0])})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            given = json.loads(line)
            try:
                _report(await getattr(peer, given.pop("ask"))(**given))
            except Exception as error:  # noqa: BLE001 - told to the test that asked
                _report({"error": f"{type(error).__name__}: {error}"})
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main)
