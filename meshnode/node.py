"""A node: services wired to the ports it is given, and what programs do with it.

The node never finds its ports: :mod:`meshnode.app` hands it the real ones,
``simulations`` the simulated ones, and the same code runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

import trio

from meshnode.config import NodeConfig
from meshnode.domain.job import JobState
from meshnode.errors import StoreError, Unreachable
from meshnode.ports import (
    Agent,
    JsonValue,
    Started,
    WallClock,
)
from meshnode.services.acquaintances import Acquaintances
from meshnode.services.admission import Admission, Pause
from meshnode.services.advice import Advice
from meshnode.services.arrival import Arrival
from meshnode.services.artifacts import Artifacts
from meshnode.services.awards import PROGRESS
from meshnode.services.bodies import ReceiptRow
from meshnode.services.broker import Broker
from meshnode.services.brokering import Surroundings, open_broker
from meshnode.services.context import Context
from meshnode.services.contractor import Contractor
from meshnode.services.directory import DirectoryService, open_directory
from meshnode.services.events import Events, Happening, Onlooker
from meshnode.services.executor import Executor
from meshnode.services.family_probes import open_families
from meshnode.services.gold_probes import open_golds
from meshnode.services.gold_store import Gold
from meshnode.services.gossip import Gossip, open_gossip
from meshnode.services.identities import open_identities
from meshnode.services.invites import InviteRow, Invites, is_local
from meshnode.services.job_terms import Terms
from meshnode.services.joining import Joining, places
from meshnode.services.journals import JobJournal
from meshnode.services.ledger import Books, Ledger
from meshnode.services.mail import InboxRow, OutboxRow
from meshnode.services.mailroom import Mailroom, open_mailroom
from meshnode.services.market import Market
from meshnode.services.measuring import open_host
from meshnode.services.ordering import Ordering, open_ordering, use_letters
from meshnode.services.payment_methods import settlement_of
from meshnode.services.planner import Plan, Planner
from meshnode.services.receipts import Receipts
from meshnode.services.retention import Retention
from meshnode.services.served import Served
from meshnode.services.sessions import Sessions
from meshnode.services.settlements import Settled, Settlements
from meshnode.services.signer import Signer
from meshnode.services.successions import open_successions
from meshnode.services.world import Ports
from protocol.graph import TaskGraph
from protocol.records import NodeRecord

#: What the gateway needs of the services: it reaches them through the node only.
__all__ = [
    "Events",
    "Gold",
    "Happening",
    "InboxRow",
    "InviteRow",
    "JobJournal",
    "Node",
    "Onlooker",
    "OutboxRow",
    "Pause",
    "Plan",
    "Ports",
    "Settled",
    "Terms",
    "is_local",
]

#: A peer that hasn't answered a dial within this is not there, seconds.
REACH_S: Final = 5.0
#: Leaving in order is told to others within this, seconds.
_LEAVE_S: Final = 2.0
#: While draining, what is waited for is told this often, seconds.
_WAITING_S: Final = 5.0


class Node:
    """One node of a mesh.

    Raises:
        InputInvalid: An agent can't be hosted; names it.
    """

    def __init__(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent] = ()) -> None:
        self.config = config
        self._ports = ports
        self.events = Events(ports.clock)
        emit, embedder = self.events.emit, ports.embedder
        context = self._context()
        #: What a drain waits for, for a person; empty unless the node is closing.
        self.draining = ""
        self.host, self.measuring = open_host(context, agents)
        self.sessions = self._sessions()
        self.joining = Joining(
            self.sessions, config, met=lambda: self.acquaintances.met, emit=emit
        )
        self.advice = Advice(self.sessions, config, emit=emit)
        self.directory = self._directory(context)
        self.artifacts = Artifacts(context)
        self.artifacts.dial_with(self.addresses_of)
        self.artifacts.judge_with(self.sessions.offset_ms)
        self.tallies = Served(context)
        self.ledger = Ledger(context)
        self.identities = open_identities(context, self.sessions, self.directory, ports.labour)
        self.fates, self.members = self.identities.fates, self.identities.members
        self.arrival = self._arrival()
        self.acquaintances = self._acquaintances(context)
        self.door = Admission(
            context, members=self.members, served=self.tallies, artifacts=self.artifacts
        )
        self.invites = Invites(context, sessions=self.sessions, members=self.members)
        self.mailroom = self._mailroom(context)
        self.inbox, self.outbox, self.depositing, self.collecting, self.mailbox = self.mailroom
        self.contractor = self._contractor(context)
        self.gossip = self._gossip(context)
        self.reputation = self.gossip.reputation
        self.ordering = self._ordering(context)
        self.market = Market(
            context,
            sessions=self.sessions,
            finder=self.directory,
            host=self.host,
            blocked=self.reputation.is_blocked,
            unpaid=self.identities.cost.is_unpaid,
        )
        self.planner = Planner(self.directory, embedder=embedder, emit=emit, clock=ports.clock)
        self.receipts = Receipts(context, sessions=self.sessions)
        self.successions = open_successions(
            context,
            sessions=self.sessions,
            door=self.door,
            directory=self.directory,
            artifacts=self.artifacts,
            ledger=self.ledger,
        )
        self.receipts.proof = self.successions.proof
        self.broker = self._broker(context)
        self.contractor.hand_on_to(self.broker)
        self.golds = open_golds(context, self.broker, self._around())
        self.families, self.spots = open_families(
            context, self.broker, self._around(), self.golds
        )
        self.retention = Retention(context, broker=self.broker)
        self.settlements = self._settlements(context)

    def _context(self) -> Context:
        ports = self._ports
        return Context(
            signer=Signer(ports.identity, self.config.network, ports.clock, ports.entropy),
            transport=ports.transport,
            store=ports.store,
            clock=ports.clock,
            entropy=ports.entropy,
            rng=ports.rng,
            config=self.config,
            emit=self.events.emit,
        )

    def _sessions(self) -> Sessions:
        return Sessions(
            self._ports.transport,
            network=self.config.network,
            clock=self._ports.clock,
            emit=self.events.emit,
            addresses=self.addresses_of,
        )

    def _contractor(self, context: Context) -> Contractor:
        return Contractor(
            context,
            sessions=self.sessions,
            door=self.door,
            host=self.host,
            executor=Executor(
                context, artifacts=self.artifacts, host=self.host, served=self.tallies
            ),
            books=Books(self.tallies, self.ledger),
        )

    def _arrival(self) -> Arrival:
        return Arrival(
            self.joining,
            members=self.members,
            sessions=self.sessions,
            config=self.config,
            emit=self.events.emit,
        )

    def _acquaintances(self, context: Context) -> Acquaintances:
        return Acquaintances(
            context,
            sessions=self.sessions,
            is_member=self.members.is_member,
            addresses=self.directory.addresses_of,
        )

    def _mailroom(self, context: Context) -> Mailroom:
        return open_mailroom(
            context,
            sessions=self.sessions,
            door=self.door,
            directory=self.directory,
            members=self.members,
        )

    def _directory(self, context: Context) -> DirectoryService:
        return open_directory(
            context,
            sessions=self.sessions,
            directory=self._ports.directory,
            capabilities=self.host.capabilities,
        )

    def _broker(self, context: Context) -> Broker:
        use_letters(self.ordering, market=self.market, receipts=self.receipts)
        return open_broker(context, self._around())

    def _around(self) -> Surroundings:
        return Surroundings(
            sessions=self.sessions,
            market=self.market,
            orders=self.ordering.orders,
            artifacts=self.artifacts,
            host=self.host,
            ledger=self.ledger,
            receipts=self.receipts,
            successions=self.successions,
            reputation=self.reputation,
            sandbox=self._ports.sandbox,
            embedder=self._ports.embedder,
        )

    def _gossip(self, context: Context) -> Gossip:
        return open_gossip(
            context,
            sessions=self.sessions,
            door=self.door,
            members=self.members,
            contractor=self.contractor,
        )

    def _ordering(self, context: Context) -> Ordering:
        return open_ordering(
            context,
            self.mailroom,
            artifacts=self.artifacts,
            contractor=self.contractor,
            on_news=self.directory.on_news,
        )

    def _settlements(self, context: Context) -> Settlements:
        return Settlements(
            context,
            sessions=self.sessions,
            door=self.door,
            ledger=self.ledger,
            port=self._ports.settlement or settlement_of(self.config),
            paid=self.market.refusals.paid,
        )

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self._ports.transport.peer

    @property
    def clock(self) -> WallClock:
        """Its wall time."""
        return self._ports.clock

    @property
    def dialled(self) -> Sequence[str]:
        """Where it can be dialled, without its PeerId."""
        return self._ports.transport.addresses()

    @property
    def addresses(self) -> Sequence[str]:
        """Where it can be dialled, with its PeerId."""
        return [f"{address}/p2p/{self.peer}" for address in self.dialled]

    def addresses_of(self, peer: str) -> Sequence[str]:
        """Return where ``peer`` can be dialled: its record's addresses, and what was told."""
        known = [*self.directory.addresses_of(peer), *self.joining.addresses_of(peer)]
        return list(dict.fromkeys(known))

    async def run(self, *, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        """Run every service until cancelled; started once the node can be reached."""
        try:
            async with trio.open_nursery() as nursery:
                await self.identities.load()  # before anybody can be here
                await self.tallies.load()
                await self.ledger.load()
                await self.measuring.load()
                await self.ordering.book.load()
                await self.settlements.load()
                await self.door.load()  # before anybody can ask
                await self.successions.load()
                await nursery.start(self.sessions.run)
                await self.members.load()
                await self.acquaintances.load()
                await self.gossip.load()
                for service in (
                    *self.identities.services(),
                    self.acquaintances.run,
                    self.tallies.run,
                    self.advice.run,
                    self.arrival.run,
                    self.artifacts.run,
                    self.contractor.run,
                    self.market.run,
                    self.measuring.run,
                    self.receipts.run,
                    self.gossip.run,
                    *self.mailroom.services(),
                    self.ordering.run,
                    self.successions.run,
                    self.broker.run,
                    self.golds.run,
                    self.retention.run,
                    self.settlements.run,
                ):
                    nursery.start_soon(service)
                await nursery.start(self.directory.run)
                await nursery.start(self.invites.enter, self.config.invites)
                self._remember_inviter()
                nursery.start_soon(self.joining.run)
                self.events.emit("node.started", peer=self.peer)
                task_status.started()
                await trio.sleep_forever()
        finally:
            await self.host.aclose()

    def _remember_inviter(self) -> None:
        """Join through who let this node in, if it isn't told through whom."""
        if not self.joining.told:
            edges = [edge for edge in self.members.edges() if edge.relation == "invited_by"]
            known = [place for edge in edges[-1:] for place in edge.addresses]
            self.joining.told = places(known)

    async def drain(self) -> None:
        """Take nothing new, finish what is being done for others, and say goodbye.

        What isn't finished within ``drain_s`` is handed back: its brokers see the session
        end and have it done elsewhere.  Jobs of this node go on when it starts again.
        """
        self.contractor.drain()
        self.broker.drain()
        self.draining = self._waiting_for()
        self.events.emit("node.draining", waiting_for=self.draining)
        with trio.move_on_after(self.config.drain_s) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_waiting)
                await self.contractor.drained()
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            self.events.emit("node.handed_back", calls=self._waiting_for())
        with trio.move_on_after(_LEAVE_S):
            try:
                await self.tallies.flush()
            except StoreError as exc:
                self.events.emit("served.unsaved", why=str(exc))
        with trio.move_on_after(2.0):
            try:
                await self.directory.leave()
            except StoreError as exc:  # what it signed last lapses by itself
                self.events.emit("node.left_unsaid", why=str(exc))
        await self.sessions.aclose()

    async def _tell_waiting(self) -> None:
        """Say what a drain waits for, now and then, until cancelled."""
        while True:
            await trio.sleep(_WAITING_S)
            self.draining = self._waiting_for()
            self.events.emit("node.waiting", waiting_for=self.draining)

    def _waiting_for(self) -> str:
        """Say what is still being done."""
        calls = self.contractor.active
        others = f"{calls} award{'s' * (calls != 1)} in work" if calls else "nothing"
        jobs = self.broker.carried
        own = f"; {jobs} job{'s' * (jobs != 1)} of its own will go on at the next start"
        return others + (own if jobs else "")

    def add_agent(self, agent: Agent) -> None:
        """Host one more agent; the mesh is told at once.

        Raises:
            InputInvalid: It can't be hosted; names it.
        """
        self.host.add(agent)
        self.directory.changed()

    async def remove_agent(self, name: str) -> None:
        """Host an agent no longer; the mesh is told at once.

        Raises:
            NotFound: There is no such agent here.
        """
        await self.host.remove(name)
        self.directory.changed()

    async def reach(self, peers: Iterable[str], *, timeout_s: float = REACH_S) -> set[str]:
        """Return those of ``peers`` that answer now; this node itself always does."""
        answering = {self.peer}

        async def dial(peer: str) -> None:
            with trio.move_on_after(timeout_s):
                try:
                    await self.sessions.connect(peer)
                except Unreachable:
                    self.directory.failed(peer)
                else:
                    answering.add(peer)

        wanted = set(peers)
        async with trio.open_nursery() as nursery:
            for peer in sorted(wanted - answering):
                nursery.start_soon(dial, peer)
        return answering & wanted

    # --- what its owner says ---

    async def pause(self, for_s: float | None = None) -> Pause:
        """Take on nothing more for others, for so long or until :meth:`resume`.

        What was taken on is finished; this node's own jobs go on.

        Raises:
            StoreError: It can't be written down; nothing changed.
        """
        until_ms = 0 if for_s is None else self.clock.now_ms() + round(for_s * 1000)
        return await self.door.pause(until_ms)

    async def resume(self) -> bool:
        """Work for others again; return whether it was paused.

        A new record goes out: who was refused asks again once it has that.

        Raises:
            StoreError: It can't be written down; nothing changed.
        """
        was = await self.door.resume()
        if was:
            self.directory.changed()
        return was

    # --- jobs ---

    async def submit(
        self, graph: TaskGraph, inputs: Mapping[str, JsonValue], terms: Terms | None = None
    ) -> str:
        """Take a job; see :meth:`meshnode.services.broker.Broker.submit`."""
        with self.advice.given():
            return await self.broker.submit(graph, inputs, terms or Terms())

    async def wait(self, job: str) -> JobState:
        """Return the job's state once it has ended."""
        return await self.broker.wait(job)

    async def outputs(self, job: str) -> dict[str, JsonValue]:
        """Return the outputs of a completed job."""
        return await self.broker.outputs(job)

    async def cancel(self, job: str) -> None:
        """End a job early."""
        await self.broker.cancel(job)

    async def journal(self, job: str) -> JobJournal:
        """Return a job's journal: its events, its state, its export."""
        return await self.broker.journal(job)

    def streamed(self, job: str) -> list[Happening]:
        """Return what the agents at work on ``job`` have streamed, as telemetry told it."""
        return [
            self.events.note(PROGRESS, job=job, **asdict(piece))
            for piece in self.broker.streamed(job)
        ]

    async def served(self) -> Sequence[ReceiptRow]:
        """Return the finished contracts that this node keeps."""
        return await self.receipts.rows()

    def known(self) -> Sequence[NodeRecord]:
        """Return the records of the nodes that it knows."""
        return self.directory.known()
