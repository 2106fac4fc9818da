"""Nodes for the tests of the libp2p adapters: stock ones, and ones in processes of their own.

Run as a module it is such a process: ``echo`` serves :data:`ECHO`, ``provider``
publishes one record under :data:`NAME`; each prints a line when it is ready and ends
when its standard input does.
"""

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from meshnode.adapters import libp2p_patches
from meshnode.adapters.kad_directory import open_directory
from meshnode.adapters.libp2p_transport import Libp2pTransport, build_host, open_transport
from meshnode.adapters.libp2p_yamux import MeshMuxer
from meshnode.errors import Unreachable
from meshnode.ports import Emit, Stream
from tests.contracts.libp2p_ports import judge_record, make_record

ECHO = "/meshnode/test-echo/1"
NAME = "text.summarization@1"
ROOT = Path(__file__).parents[3]


def seed(name: str) -> bytes:
    """Return the key seed of the test node called ``name``."""
    return hashlib.sha256(name.encode()).digest()


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    while data := await stream.receive():
        await stream.send(data)
    await stream.finish()


class Events(list[tuple[str, dict[str, object]]]):
    """Collects what is emitted."""

    def emit(self, name: str, **fields: object) -> None:
        self.append((name, fields))

    def named(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self if event == name]


@asynccontextmanager
async def stock_transport(name: str) -> AsyncIterator[Libp2pTransport]:
    """Run a transport on py-libp2p's own TCP and yamux: what ours is compared with."""
    libp2p_patches.apply()
    events = Events()

    def stock_yamux(conn: ISecureConn, peer_id: ID, *, emit: Emit) -> IMuxedConn:
        return yamux.Yamux(conn, peer_id, is_initiator=conn.is_initiator)

    muxer = MeshMuxer(events.emit, make=stock_yamux)
    host, swarm = build_host(create_new_key_pair(seed(name)), TCP(), events.emit, muxer)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        transport = Libp2pTransport(host, swarm, events.emit)
        try:
            yield transport
        finally:
            await transport.close()


@asynccontextmanager
async def child(*args: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """Run this module in a process; yield it and the line it prints when it is ready."""
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "tests.meshnode.adapters.libp2p_nodes", *args]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdin=PIPE, stdout=PIPE, cwd=ROOT, check=False)
        )
        assert process.stdout is not None
        try:
            line = b""
            while not line.endswith(b"\n"):
                more = await process.stdout.receive_some()
                assert more, f"the child {args} died before it was ready"
                line += more
            yield process, line.decode().strip()
        finally:
            process.kill()
            nursery.cancel_scope.cancel()


async def _serve_echo(name: str) -> None:
    async with open_transport(seed(name)) as transport:
        transport.serve(ECHO, echo)
        await _say_ready_and_wait(f"{transport.addresses()[0]}/p2p/{transport.peer}")


async def _provide(name: str, bootstrap: str) -> None:
    async with (
        open_transport(seed(name)) as transport,
        open_directory(transport, "test", judge_record, bootstrap=[bootstrap]) as directory,
    ):
        for _ in range(5):  # each try takes its own jittered retries
            with suppress(Unreachable):
                await directory.publish(make_record(transport.peer, 1), [NAME])
                break
        await _say_ready_and_wait(transport.peer)


async def _say_ready_and_wait(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - how a child tells its parent
    await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        trio.run(_serve_echo, sys.argv[2])
    else:
        trio.run(_provide, sys.argv[2], sys.argv[3])
