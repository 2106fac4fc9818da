"""The one place that joins a node with the real world, from a config."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from meshnode.adapters.agents.function import load_function
from meshnode.adapters.agents.registry import create
from meshnode.adapters.kad_directory import open_directory
from meshnode.adapters.key_file import load_or_create
from meshnode.adapters.libp2p_transport import Libp2pTransport, open_transport
from meshnode.adapters.sqlite_store import open_store
from meshnode.adapters.system import SystemClock, SystemEntropy
from meshnode.config import NodeConfig
from meshnode.node import Node, Ports
from meshnode.ports import Agent, Directory, Emit
from meshnode.services.directory import validate_record
from protocol.keys import Identity

KEY_FILE = "keys"
STORE_FILE = "node.db"


def agents_of(config: NodeConfig) -> list[Agent]:
    """Return the agents that ``config`` names.

    Raises:
        ConfigError: There is no such specialist or function; lists those there are.
    """
    named = [create(name) for name in config.specialists]
    return named + [load_function(where) for where in config.functions]


@asynccontextmanager
async def open_node(
    config: NodeConfig, *, agents: Sequence[Agent] = (), server: bool = True
) -> AsyncIterator[Node]:
    """Run a node for as long as the context lasts.

    Args:
        config: What it is told.
        agents: To host beside those that ``config`` names.
        server: Hold DHT entries for others; only a node that can be dialled should.

    Raises:
        ConfigError: A setting, a key file or an agent can't be used; names it.
        StoreError: The home is in use by another node, or its store can't be used.
        MeshError: A port is taken; names the address.
    """
    home = config.home_path
    clock, entropy = SystemClock(), SystemEntropy()
    hosted = [*agents_of(config), *agents]
    keys = await trio.to_thread.run_sync(load_or_create, home / KEY_FILE, entropy)
    identity = Identity(keys.seed, keys.exchange_secret)
    rng = Random(entropy.token(16))
    late: list[Emit] = []

    def emit(name: str, **fields: object) -> None:
        for tell in late:  # the transport is there before the node that it reports to
            tell(name, **fields)

    async with (
        open_store(home / STORE_FILE) as store,
        open_transport(keys.seed, listen=config.listen, emit=emit) as transport,
        _directory(config, transport, clock, server=server) as directory,
    ):
        ports = Ports(identity, transport, directory, store, clock, entropy, rng)
        node = Node(config, ports, hosted)
        late.append(node.events.emit)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            yield node
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _directory(
    config: NodeConfig, transport: Libp2pTransport, clock: SystemClock, *, server: bool
) -> AsyncIterator[Directory | None]:
    """Take part in the DHT, if ``config`` wants that."""
    if not config.directory.dht:
        yield None
        return
    validate = validate_record(config.network, clock)
    async with open_directory(
        transport, config.network, validate, bootstrap=config.join, server=server
    ) as directory:
        yield directory
