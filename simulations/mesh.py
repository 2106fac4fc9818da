"""Real nodes in a world: each :class:`~meshnode.node.Node` as it is, on simulated ports.

A node that crashes ends as a killed process does.  In one process that takes three
steps, in this order: its disk loses what was not durable, its connections break, and
its tasks are cancelled.  So whatever the tasks do on their way out reaches neither disk
nor peers.  What a restart finds is the disk.

Everything that a node tells of itself goes into the world's trace, and synchronously to
whoever watches (:mod:`simulations.checkers`), so that a claim about *when* can be checked.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol, TypeVar

import msgspec
import trio
from typing_extensions import override

from meshnode.config import (
    ANYONE,
    AccessConfig,
    DirectoryConfig,
    HostConfig,
    NodeConfig,
    TrustConfig,
)
from meshnode.errors import MeshError
from meshnode.node import Node, Ports
from meshnode.ports import Agent, Directory
from meshnode.services.crash_points import CrashPoint, MortalStore
from meshnode.services.directory import validate_record
from meshnode.services.events import Happening, Onlooker
from protocol.keys import Identity
from protocol.signing import hold_at_least
from simulations.clock import SimClock
from simulations.directory import Lossiness, SimDirectory
from simulations.store import MemoryDisk, MemoryStore
from simulations.weather import Weather
from simulations.world import World

NETWORK: Final = "sim"

#: What a group commit takes, seconds: from a good disk to a busy one.
_DISK_S: Final = (0.001, 0.008)
#: Quick reactions, so that a minute of virtual time holds a story.
CONFIG: Final = NodeConfig(
    network=NETWORK,
    host=HostConfig(lease_s=10.0),
    access=AccessConfig(callers=ANYONE),  # they join by address; membership has its own tests
    directory=DirectoryConfig(digest_interval_s=5.0, provide_interval_s=30.0),
    trust=TrustConfig(work_bits=0),  # nobody works for a name in a world that doesn't say so
)

_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")
_TEXT_MAX: Final = 200
#: Signatures that the process remembers to hold: each node alone would remember more.
_HELD_PER_NODE: Final = 256

#: Makes the agents of one life of a node: a killed process takes its own along.
Agents = Callable[[], Sequence[Agent]]
#: Makes the node of one life: an honest one, or what its owner made of it.
Maker = Callable[[NodeConfig, Ports, Sequence[Agent]], Node]
#: ``observer(name, happening)``: called as it happens; must not block.
Observer = Callable[[str, Happening], None]

T = TypeVar("T")


class Dht(Protocol):
    """The directory of a world, real lookups or not."""

    def port(self, peer: str, *, listens: bool) -> Directory:
        """Return the way of ``peer`` into it, from now on: it is up, and may answer others."""

    def gone(self, peer: str) -> None:
        """Note that ``peer`` has gone without a word."""


class Down(Exception):
    """The node that was asked is not running, or died before it had answered."""


@dataclass(slots=True)
class Life:
    """A node from its start to its crash.

    Attributes:
        node: The real thing.
        store: Its use of the disk.
        mortal: What the node has for that: there it can die while it writes.
        scope: What a crash cancels.
        askers: Calls from outside that a crash ends.
        crashed: It was killed on purpose: what its tasks raise is of no interest.
    """

    node: Node
    store: MemoryStore
    mortal: MortalStore
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    askers: dict[trio.CancelScope, None] = field(default_factory=dict)
    crashed: bool = False


@dataclass(slots=True)
class Member:
    """A place in the mesh, which outlives its node's lives.

    Attributes:
        name: For people.
        identity: Fixed by the world's seed and the name.
        clock: Wrong by a fixed amount.
        disk: What survives.
        agents: Makes the agents of each life.
        config: What each life is told.
        listens: Whether it can be dialled.
        lives: How many there were.
        life: The present one, or None.
        doom: Where it is to die next, in this life or another, and whom to tell then.
        retired: It has gone for good.
    """

    name: str
    identity: Identity
    clock: SimClock
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    agents: Agents = tuple
    config: NodeConfig = CONFIG
    listens: bool = True
    lives: int = 0
    life: Life | None = None
    doom: tuple[CrashPoint, Callable[[], None]] | None = None
    retired: bool = False

    @property
    def peer(self) -> str:
        """PeerId."""
        return self.identity.peer


class _Watcher(Onlooker):
    """Passes events on at once instead of keeping them."""

    def __init__(self, tell: Callable[[Happening], None]) -> None:
        super().__init__()
        self._pass = tell

    @override
    def tell(self, happening: Happening) -> None:
        """See :meth:`meshnode.services.events.Onlooker.tell`."""
        self._pass(happening)


class SimMesh:
    """Nodes of one world.

    Attributes:
        world: Where they live.
        directory: The one DHT.
        members: By name, in the order of their first start.
        observers: Told of every event of every node.
        failures: What escaped from a node that was not crashed on purpose.
        fair: The weather when nothing is wrong.
        makers: Name -> who makes the node of each of its lives; the honest are not in it.
    """

    def __init__(
        self,
        world: World,
        *,
        weather: Weather | None = None,
        lossiness: Lossiness | None = None,
        directory: Dht | None = None,
    ) -> None:
        """Make a mesh without nodes.

        Args:
            world: Where they will live.
            weather: See ``fair``.
            lossiness: How bad the directory is, if none is given.
            directory: The DHT, with chance and validator of its own.
        """
        self.world = world
        self.fair = weather or Weather()
        world.network.set_weather(self.fair)
        world.network.minds_silence = True
        self.directory: Dht = directory or SimDirectory(
            world.random("directory"),
            validate_record(NETWORK, world.clock()),
            lossiness=lossiness,
            trace=world.trace,
        )
        self.members: dict[str, Member] = {}
        self.makers: dict[str, Maker] = {}
        self._names: dict[str, str] = {}
        self.observers: list[Observer] = []
        self.failures: list[str] = []

    # --- who is there ---

    def node(self, name: str) -> Node:
        """Return the running node called ``name``.

        Raises:
            Down: It isn't running.
        """
        life = self.members[name].life
        if life is None:
            raise Down(name)
        return life.node

    async def ask(self, name: str, question: Callable[[Node], Awaitable[T]]) -> T:
        """Return what the node called ``name`` answers, as a program on it would ask.

        Raises:
            Down: It isn't running, or it crashed meanwhile.
        """
        life = self.members[name].life
        if life is None:
            raise Down(name)
        with trio.CancelScope() as scope:
            life.askers[scope] = None
            try:
                return await question(life.node)
            except MeshError as exc:
                if life.crashed:  # in the middle of the question: no answer is its own
                    raise Down(name) from exc
                raise
            finally:
                del life.askers[scope]
        raise Down(name)

    def up(self, name: str) -> bool:
        """Tell whether ``name`` runs."""
        return self.members[name].life is not None

    def peer(self, name: str) -> str:
        """Return the PeerId of ``name``, up or down."""
        return self.members[name].peer

    @property
    def network_id(self) -> str:
        """Which mesh it is."""
        return NETWORK

    def name(self, peer: str) -> str:
        """Return who has the PeerId ``peer``."""
        return self._names[peer]

    # --- living and dying ---

    async def start(
        self,
        name: str,
        *,
        agents: Agents = tuple,
        config: NodeConfig = CONFIG,
        skew_ms: int = 0,
        listens: bool = True,
        joins: bool = True,
    ) -> Node:
        """Start a new member with an empty disk.

        Args:
            name: For people.
            agents: Makes the agents of each of its lives.
            config: What it is told.
            skew_ms: How far its clock is ahead.
            listens: Whether it can be dialled; who is behind a NAT can't.
            joins: Whether it dials the first member, if its config names nobody; else it
                finds others by the DHT alone.
        """
        identity = self.identity(name)
        first = next(iter(self.members.values()), None)
        if joins and first is not None and not config.join:
            address = self.world.network.transport(first.peer).addresses()[0]
            config = msgspec.structs.replace(config, join=(f"{address}/p2p/{first.peer}",))
        clock = self.world.clock(skew_ms=skew_ms)
        member = Member(name, identity, clock, agents=agents, config=config, listens=listens)
        self.members[name] = member
        self._names[member.peer] = name
        hold_at_least(_HELD_PER_NODE * len(self.members))
        return await self._live(member)

    async def restart(self, name: str) -> Node:
        """Start ``name`` again from what its disk holds."""
        return await self._live(self.members[name])

    def crash(self, name: str, *, notice_s: float | None = 0.0) -> None:
        """Kill ``name``; others notice after ``notice_s``, or by its silence if None."""
        member = self.members[name]
        life, member.life = member.life, None
        if life is None:
            return
        life.crashed = True
        life.mortal.dies_at(None)  # the dead reach no crash point: the next life may
        life.store.crash()
        self.world.network.crash(member.peer, notice_s=notice_s)
        self.directory.gone(member.peer)
        life.scope.cancel()
        for asker in tuple(life.askers):
            asker.cancel()
        self.world.trace.note(f"crash {name}")

    def crash_at(self, name: str, point: CrashPoint, then: Callable[[], None]) -> None:
        """Kill ``name`` when it reaches ``point``, counted from now, and call ``then``.

        If it dies of something else before that, the next life reaches it.
        """
        member = self.members[name]
        member.doom = (point, then)
        if member.life is not None:
            member.life.mortal.dies_at(point)

    def spare(self, name: str) -> None:
        """Let ``name`` pass every crash point."""
        member = self.members[name]
        member.doom = None
        if member.life is not None:
            member.life.mortal.dies_at(None)

    def _die(self, member: Member, point: CrashPoint) -> None:
        """Crash ``member``, in the middle of one of its own commits."""
        then = member.doom[1] if member.doom is not None else None
        member.doom = None
        self.world.trace.note(f"{member.name} dies {point}")
        self.crash(member.name)
        if then is not None:
            then()

    async def leave(self, name: str) -> None:
        """Have ``name`` finish what it does and say goodbye, and stop it.

        Raises:
            Down: It isn't running, or it crashed meanwhile.
        """
        await self.ask(name, lambda node: node.drain())
        self.crash(name)

    async def retire(self, name: str) -> None:
        """Have ``name`` leave and never come back; what its disk holds is still looked at.

        Raises:
            Down: It isn't running, or it crashed meanwhile.
        """
        await self.leave(name)
        self.members[name].retired = True

    def fill_disk(self, name: str, *, count: int = 1) -> None:
        """Refuse the next ``count`` commits of ``name``."""
        life = self.members[name].life
        if life is not None:
            self.world.trace.note(f"disk full {name}")
            life.store.fail_next(count=count)

    def identity(self, name: str) -> Identity:
        """Return the keys that ``name`` has, or will have."""
        seed, sealing = (
            sha256(f"{self.world.seed}/{name}/{use}".encode()).digest() for use in "sx"
        )
        return Identity(seed, sealing)

    async def _live(self, member: Member) -> Node:
        if member.life is not None:
            raise RuntimeError(f"{member.name} is up already")
        member.lives += 1
        part = f"{member.name}/{member.lives}"
        store = MemoryStore(
            member.disk, chance=self.world.random(f"{part}/disk"), latency_s=_DISK_S
        )
        doom = member.doom and member.doom[0]
        mortal = MortalStore(store, lambda point: self._die(member, point), doom)
        ports = Ports(
            identity=member.identity,
            transport=self.world.network.transport(member.peer, listens=member.listens),
            directory=self.directory.port(member.peer, listens=member.listens),
            store=mortal,
            clock=member.clock,
            entropy=self.world.entropy(part),
            rng=self.world.random(f"{part}/rng"),
        )
        node = self.makers.get(member.name, Node)(member.config, ports, member.agents())
        life = member.life = Life(node, store, mortal)
        node.events.add(_Watcher(lambda happening: self._tell(member, life, happening)))
        started = trio.Event()
        self.world.nursery.start_soon(self._run, member, life, started)
        await started.wait()
        return node

    async def _run(self, member: Member, life: Life, started: trio.Event) -> None:
        """Run one life; what escapes is a failure, unless it was killed."""
        try:
            with life.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(life.node.run)
                    started.set()
        except Exception as exc:  # noqa: BLE001 - reported: the mesh supervises its nodes
            if not life.crashed:
                self._report(member, exc)
        finally:
            started.set()
            self.world.collector.node_ended()

    def _report(self, member: Member, exc: Exception) -> None:
        """Note that a node died of itself, and treat it as crashed from here on."""
        told = "; ".join(f"{type(one).__name__}: {one}" for one in _leaves(exc))
        self.failures.append(f"node {member.name} died: {told}")
        self.world.trace.note(f"died {member.name}: {_steady(told)}")
        if member.life is not None:
            member.life.mortal.dies_at(None)
            member.life.store.crash()
            self.world.network.crash(member.peer)
            self.directory.gone(member.peer)
        member.life = None

    def _tell(self, member: Member, life: Life, happening: Happening) -> None:
        if life.crashed:
            return  # the dead tell nothing
        self.world.trace.note(f"{member.name} {happening.name} {_fields(happening.fields)}")
        for observer in self.observers:
            observer(member.name, happening)


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]


def _fields(fields: Mapping[str, object]) -> str:
    """Return an event's fields as text that is the same in every process."""
    return " ".join(f"{key}={_value(value)}" for key, value in sorted(fields.items()))


def _value(value: object) -> str:
    match value:
        case bool() | int() | float() | str() | None:
            return _steady(str(value))
        case bytes():
            return value.hex()[:16]
        case msgspec.Struct():
            # A fact: its envelopes are in the journal, whose hash chain is in the trace's
            # messages; what is noted is what a reader looks for.
            parts = [getattr(value, key, "") for key in ("unit", "attempt", "peer", "code")]
            parts += [getattr(value, key, "") for key in ("verdict", "paid_mc", "state")]
            return "/".join(str(part) for part in parts if part != "")
        case _:
            return type(value).__name__


def _steady(text: str) -> str:
    """Return ``text`` without what differs between processes: memory addresses."""
    return _ADDRESS.sub("0x", text)[:_TEXT_MAX]
