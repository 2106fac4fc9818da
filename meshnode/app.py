"""The one place that joins a node with the real world, from a config."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import trio

from meshnode.adapters.agents.agent_files import load_agents
from meshnode.adapters.agents.function import load_function
from meshnode.adapters.agents.registry import create
from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.adapters.embedder import ChildEmbedder
from meshnode.adapters.kad_directory import open_directory
from meshnode.adapters.key_file import load_or_create
from meshnode.adapters.libp2p_transport import Libp2pTransport, open_transport
from meshnode.adapters.mdns import open_mdns
from meshnode.adapters.passphrase import find_passphrase
from meshnode.adapters.running_file import HTTP_FILE, SEED_FILE, running_file
from meshnode.adapters.scrypt_labour import ScryptLabour
from meshnode.adapters.service_notify import keep_watchdog, notify
from meshnode.adapters.sqlite_store import open_store
from meshnode.adapters.system import SystemClock, SystemEntropy
from meshnode.config import NodeConfig
from meshnode.gateway.api import api_routes
from meshnode.gateway.api_families import family_routes
from meshnode.gateway.api_golds import golds_routes
from meshnode.gateway.api_inbox import inbox_routes
from meshnode.gateway.api_keys import key_routes
from meshnode.gateway.api_ledger import ledger_routes
from meshnode.gateway.api_members import member_routes
from meshnode.gateway.api_owner import owner_routes
from meshnode.gateway.api_reputation import reputation_routes
from meshnode.gateway.app_passes import passes
from meshnode.gateway.auth import LOOPBACK_HOSTS, GateRules, bare_app, build_app
from meshnode.gateway.http import serve_http
from meshnode.gateway.mcp import McpDoor
from meshnode.gateway.openai import openai_routes
from meshnode.gateway.token_files import load_or_create_token
from meshnode.node import Node, Ports, is_local
from meshnode.ports import Agent, Directory, Emit, JsonValue, Sighting, Store
from meshnode.services import crash_points
from meshnode.services.crash_points import CrashPoint, MortalStore, read_crash_point
from meshnode.services.directory import validate_record
from protocol.keys import Identity

KEY_FILE: Final = "keys"
STORE_FILE: Final = "node.db"
TOKEN_FILE: Final = "token"  # noqa: S105 - the file's name

#: A job's inputs travel in one request.
HTTP_BODY_BYTES_MAX: Final = 32 * 1024 * 1024


def agents_of(config: NodeConfig) -> list[Agent]:
    """Return the agents that ``config`` names, and those in the home's files.

    Raises:
        ConfigError: There is no such specialist or function; lists those there are.
    """
    named = [create(name) for name in config.specialists]
    functions = [load_function(where) for where in config.functions]
    return [*named, *functions, *load_agents(config.home_path)]


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
    home, doom = config.home_path, _doom()
    clock, entropy = SystemClock(), SystemEntropy()
    hosted = [*agents_of(config), *agents]
    passphrase = find_passphrase(config.keys.passphrase_file)
    keys = await trio.to_thread.run_sync(load_or_create, home / KEY_FILE, entropy, passphrase)
    del passphrase
    identity = Identity(keys.seed, keys.exchange_secret)
    rng = Random(entropy.token(16))  # noqa: S311 - jitter and draws, no secrets
    late: list[Emit] = []

    def emit(name: str, /, **fields: object) -> None:
        for tell in late:  # the transport is there before the node that it reports to
            tell(name, **fields)

    async with (
        open_store(home / STORE_FILE) as store,
        open_transport(keys.seed, listen=config.listen, emit=emit) as transport,
        _directory(config, transport, clock, server=server) as directory,
        aclosing(ChildEmbedder()) as embedder,
    ):
        kept: Store = store if doom is None else MortalStore(store, _die, doom)
        ports = Ports(
            identity,
            transport,
            directory,
            kept,
            clock,
            entropy,
            rng,
            embedder,
            sandbox=Bubblewrap(),
            labour=ScryptLabour(entropy),
        )
        node = Node(config, ports, hosted)
        late.append(node.events.emit)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            if config.directory.mdns:
                nursery.start_soon(_look_around, node, config)
            yield node
            nursery.cancel_scope.cancel()


def _doom() -> CrashPoint | None:
    """Return where this process is to die, if somebody wants to see what that does."""
    said = os.environ.get(crash_points.VARIABLE, "")
    return read_crash_point(said, where=f"${crash_points.VARIABLE}") if said else None


def _die(point: CrashPoint) -> None:
    """End at once, as a loss of power would have it."""
    sys.stderr.write(f"meshnode: dies {point}, as ${crash_points.VARIABLE} says\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


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
        transport, config.network, validate, bootstrap=config.join_addresses, server=server
    ) as directory:
        yield directory


async def _look_around(node: Node, config: NodeConfig) -> None:
    """Be seen on the local network, and meet whom is seen there, until cancelled."""
    emit, where = node.events.emit, config.directory.mdns_interfaces
    if not where and all(is_local(address) for address in node.dialled):
        emit("mdns.local_only", why="it listens on this machine only: set listen")
    me = Sighting(node.peer, tuple(node.dialled))
    async with open_mdns(config.network, me, interfaces=where, emit=emit) as heard:
        async for sighting in heard:
            emit("mdns.seen", peer=sighting.peer)
            node.joining.seen(sighting)


# --- for a program of its own -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """A node that can be reached.

    Attributes:
        node: It.
        http: Where its HTTP interface is, or empty.
        token_file: What to send it as a bearer token is in this file; None without HTTP.
        invite: Token by which nodes become members through it, or empty.
        note: What is wrong with where it has come to, for its owner, or empty.
    """

    node: Node
    http: str = ""
    token_file: Path | None = None
    invite: str = ""
    note: str = ""


#: A node that was told whom to join is ready once it knows what came of that, or after
#: this, seconds.
_ARRIVE_S: Final = 2.0
#: In the environment: end when standard input does.
WITH_STDIN: Final = "MESHNODE_WITH_STDIN"

#: Is told when everything runs.
Ready = Callable[[Served], None]


async def serve_node(config: NodeConfig, *, agents: Sequence[Agent] = (), ready: Ready) -> None:
    """Run a node and its HTTP interface until a signal ends them.

    SIGTERM or SIGINT lets it finish what it does for others (see
    :meth:`~meshnode.node.Node.drain`); a second one stops it at once.

    Args:
        config: What it is told.
        agents: To host beside those that ``config`` names.
        ready: Called once everything runs.

    Raises:
        MeshError: As :func:`open_node`, or the HTTP port is taken.
    """
    with _unwrapped():
        async with open_node(config, agents=agents) as node:
            await _serve(node, config, ready)


async def _serve(node: Node, config: NodeConfig, ready: Ready) -> None:
    http, home = config.http, await _absolute(config.home_path)
    token = await trio.to_thread.run_sync(
        load_or_create_token, home / TOKEN_FILE, SystemEntropy()
    )
    rules = GateRules(
        token=token,
        hosts=LOOPBACK_HOSTS | {f"[{http.host}]" if ":" in http.host else http.host},
        body_bytes_max=HTTP_BODY_BYTES_MAX,
        judge_pass=passes(node),
    )
    clock = SystemClock()
    api = api_routes(node, clock, wrapped=partial(load_agents, home))
    mcp = McpDoor(bare_app(api, node.events.emit))
    api += [*member_routes(node, clock), *owner_routes(node)]
    api += [*ledger_routes(node), *inbox_routes(node), *reputation_routes(node)]
    api += [*golds_routes(node), *family_routes(node), *key_routes(node)]
    routes = [*api, *openai_routes(node, clock), *mcp.routes()]
    app = build_app(routes, rules, node.events.emit, lifespan=mcp.lifespan)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(
            partial(
                serve_http,
                app,
                host=http.host,
                port=http.port,
                exposed=http.allow_remote,
                emit=node.events.emit,
            )
        )
        host = f"[{http.host}]" if ":" in http.host else http.host
        served = Served(node, f"http://{host}:{port}", home / TOKEN_FILE)
        note: dict[str, JsonValue] = {"url": served.http, **_who(node)}
        with running_file(home / HTTP_FILE, note):
            await _until_signalled(served, ready)
        nursery.cancel_scope.cancel()


async def serve_seed(config: NodeConfig, *, ready: Ready, inviting: bool = True) -> None:
    """Run a node without agents or HTTP, for others to find the mesh by, until signalled.

    Args:
        config: What it is told.
        ready: Called once it runs.
        inviting: Make an invite for many.

    Raises:
        MeshError: As :func:`open_node`.
    """
    with _unwrapped():
        async with open_node(config) as node:
            invite = await node.invites.renew_open(node.dialled) if inviting else ""
            with running_file(config.home_path / SEED_FILE, _who(node)):
                await _until_signalled(Served(node, invite=invite), ready)


async def _absolute(path: Path) -> Path:
    """Return where ``path`` is, whoever reads it wherever."""
    return Path(await trio.Path(path).absolute())


def _who(node: Node) -> dict[str, JsonValue]:
    return {"peer_id": node.peer, "pid": os.getpid(), "drain_s": node.config.drain_s}


async def _until_signalled(served: Served, ready: Ready) -> None:
    """Wait for a signal, then drain; a second signal ends the draining.

    With :data:`WITH_STDIN` in the environment, the end of standard input ends the node
    at once: whoever started it has gone, however it went.
    """
    async with trio.open_nursery() as nursery:
        if os.environ.get(WITH_STDIN):
            nursery.start_soon(_until_stdin_ends, nursery.cancel_scope)
        nursery.start_soon(keep_watchdog)
        await _until_told(served, ready)
        nursery.cancel_scope.cancel()


async def _until_stdin_ends(scope: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while await stdin.receive_some():
            pass
    scope.cancel()


async def _until_told(served: Served, ready: Ready) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        note = await served.node.arrival.text(within_s=_ARRIVE_S)
        ready(replace(served, note=note))
        notify(f"READY=1\nSTATUS=node {served.node.peer}")
        await anext(signals)
        notify("STOPPING=1\nSTATUS=finishing what it does for others")
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await anext(signals)
                served.node.events.emit("node.stopped_at_once")
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await served.node.drain()
            nursery.cancel_scope.cancel()


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Let a single exception leave as itself, not in the groups of nurseries."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        if isinstance(inner, BaseExceptionGroup):
            raise
        raise inner from inner.__cause__
