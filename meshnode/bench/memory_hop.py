"""A node at rest, and peers that connect to it: what one more of them weighs.

``callee`` is a node as ``meshnode up`` runs it, without its HTTP interface.  Each call of
``connection`` lets a transport connect to it and say no more; each call of ``session`` lets
a whole node join it, which opens a session and exchanges records.  They stay.
See :mod:`meshnode.bench.beside.turns`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from meshnode.adapters.libp2p_transport import open_transport
from meshnode.adapters.system import SystemEntropy
from meshnode.app import open_node
from meshnode.bench.beside.turns import arguments, take_turns
from meshnode.config import DirectoryConfig, NodeConfig
from meshnode.node import Node
from meshnode.ports import Started

_PING: Final = "/ipfs/ping/1.0.0"
_NETWORK: Final = "bench"


class _Peers:
    """Peers of the node at ``address``, each a task that a call starts."""

    def __init__(self, nursery: trio.Nursery, homes: Path, address: str) -> None:
        self._nursery = nursery
        self._homes = homes
        self._address = address
        self._where, _, self._peer = address.partition("/p2p/")
        self._count = 0

    async def connect(self) -> None:
        """Add one that has a connection and nothing else."""
        await self._nursery.start(self._connected)

    async def join(self) -> None:
        """Add a whole node with its session."""
        self._count += 1
        await self._nursery.start(self._joined, str(self._homes / str(self._count)))

    async def _connected(self, *, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        async with open_transport(SystemEntropy().token(32), listen=()) as transport:
            stream = await transport.open(self._peer, _PING, addresses=[self._where])
            await stream.aclose()
            task_status.started()
            await trio.sleep_forever()

    async def _joined(
        self, home: str, *, task_status: Started = trio.TASK_STATUS_IGNORED
    ) -> None:
        # Not in the DHT: as many nodes of one process would do little else than look around.
        config = NodeConfig(
            network=_NETWORK,
            home=home,
            join=(self._address,),
            directory=DirectoryConfig(dht=False),
        )
        async with open_node(config) as node:
            await node.sessions.connect(self._peer)
            task_status.started()
            await trio.sleep_forever()


def _sessions(node: Node) -> Callable[[], int]:
    return lambda: len(node.sessions.connected())


async def _main() -> None:
    part, address = arguments()
    with TemporaryDirectory(prefix="meshnode-bench-") as folder:
        if part == "callee":
            async with open_node(NodeConfig(network=_NETWORK, home=folder)) as node:
                address = node.addresses[0]
                await take_turns(_readline, address=address, sessions=_sessions(node))
            return
        async with trio.open_nursery() as nursery:
            peers = _Peers(nursery, Path(folder), address)
            await take_turns(_readline, peers.connect if part == "connection" else peers.join)
            nursery.cancel_scope.cancel()  # all at once: each takes a moment to close


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
