"""Nodes whose owners have changed the code: real ones, in which one service is another.

::

    stage.add([UPPER], n=2, conduct=Dropper())

A :class:`Conduct` makes the node of each of a member's lives.  Nothing of the node is
copied: a rogue answers a method itself, has another service put in, or is given a port
that isn't what it seems.  So whatever else it does, it does as the honest do.

Each says what it does, what it gains by it, and what the mesh should do about it.  Those
that trouble others without any contract are in :mod:`simulations.nuisances`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
import trio
from typing_extensions import override

from meshnode.config import NodeConfig
from meshnode.node import Node, Ports
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output, Started
from meshnode.services.bodies import (
    AWARD,
    AWARD_BODY,
    CFP,
    OFFERS,
    OFFERS_BODY,
    OffersBody,
    ResultBody,
)
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.receipts import Receipts
from meshnode.services.sessions import Handler, Incoming, Sessions
from meshnode.services.signer import Topic
from protocol.codec import decode_as, encode
from protocol.keys import digest
from protocol.messages import Award, Proposal, Refuse, StandingOffer, read_message
from protocol.receipts import Acceptance
from protocol.signing import peek
from simulations.ruses import Seconds
from simulations.tampering import TamperingTransport

#: As long as an honest broker's half of a receipt holds, milliseconds.
_ACCEPTANCE_MS: Final = 7 * 24 * 3_600_000


class Rogue(Node):
    """A node with something else in it; this one has nothing else.

    Attributes:
        context: What its services share.
        agents: As it was given them.
    """

    context: Context

    def __init__(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> None:
        """Be a node."""
        self.agents = tuple(agents)
        super().__init__(config, ports, agents)

    @override
    def _broker(self, context: Context) -> Broker:
        self.context = context
        return super()._broker(context)

    @override
    async def run(self, *, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(super().run)
            nursery.start_soon(self.mischief)
            task_status.started()

    async def mischief(self) -> None:
        """Do what it does beside answering, once it runs."""
        await trio.lowlevel.checkpoint()


class Conduct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What has been done to a node; to this one nothing."""

    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        """Return the node of one life."""
        return Node(config, ports, agents)


# --- brokers -----------------------------------------------------------------------------


class Welsher(Conduct, frozen=True, kw_only=True):
    """Takes results and never sends its half of the receipt.

    It gains the work for nothing: between strangers somebody has to go first (there is no
    fair exchange without a third party, Pagnia and Gärtner 1999).  A contractor should cap
    what it does for an unknown buyer before the first receipt, count what stayed unpaid, and
    work on for those who pay (docs/buyers.md).
    """

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        return _Welshing(config, ports, agents)


class _Welshing(Rogue):
    @override
    def _broker(self, context: Context) -> Broker:
        self.receipts = _Withheld(context, sessions=self.sessions)
        return super()._broker(context)


class _Withheld(Receipts):
    @override
    def deliver(self, award: bytes, peer: str, acceptance: bytes) -> None:
        pass

    @override
    async def run(self) -> None:
        await trio.sleep_forever()


class Repudiator(Conduct, frozen=True, kw_only=True):
    """Never pays: tells each contractor that its output was rejected, and uses it.

    It gains the work for nothing, and a bad name for others.  A rejection should carry its
    evidence, and a pattern of unsupported ones count against the buyer.  Its own journal
    says that it accepted: the two signatures contradict each other and prove it, to whoever
    sees both.
    """

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        return _Repudiating(config, ports, agents)


class _Repudiating(Rogue):
    @override
    def _broker(self, context: Context) -> Broker:
        self.receipts = _Repudiated(context, sessions=self.sessions)
        return super()._broker(context)


class _Repudiated(Receipts):
    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        super().__init__(context, sessions=sessions)
        self._signer = context.signer

    @override
    def deliver(self, award: bytes, peer: str, acceptance: bytes) -> None:
        told = read_message(acceptance, Acceptance, network=self._signer.network)
        header = self._signer.header(peer, Topic.of(told.h), lifetime_ms=_ACCEPTANCE_MS)
        lie = msgspec.structs.replace(
            told, h=header, verdict="rejected", check="schema", paid_mc=0
        )
        super().deliver(award, peer, self._signer.sign(lie))


# --- contractors -------------------------------------------------------------------------


class Dropper(Conduct, frozen=True, kw_only=True):
    """Takes awards and does nothing with them, without a word.

    It gains nothing, and costs its broker the time of the award and what it might have
    done with it.  A broker should hear a sign of life from who works, give up early where
    there is none, and hold it against availability.  An omission fault, on purpose.
    """

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        node = Rogue(config, ports, agents)
        node.sessions.handle(AWARD, _drop)
        return node


async def _drop(incoming: Incoming) -> bytes:
    del incoming
    await trio.sleep_forever()
    raise AssertionError("for ever is over")


class Baiter(Conduct, frozen=True, kw_only=True):
    """Proposes, and keeps no proposal: each award is refused.

    It gains nothing, and costs each broker that it baits (a low price does it) a round
    trip and a pause; many of them starve a job.  A broker should remember refused awards
    against the proposals that were made.

    Attributes:
        reason: What it refuses with: ``busy`` counts as nobody's failure.
    """

    reason: Literal["busy", "offer_expired", "terms"] = "busy"

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        node = Rogue(config, ports, agents)
        node.sessions.handle(AWARD, _Refusal(node, self.reason).on_award)
        return node


@dataclass(frozen=True, slots=True)
class _Refusal:
    node: Rogue
    reason: str

    async def on_award(self, incoming: Incoming) -> bytes:
        """Refuse, signed as it should be."""
        signer = self.node.context.signer
        body = decode_as(incoming.body, AWARD_BODY)
        award = read_message(body.award, Award, network=signer.network)
        refuse = Refuse(
            h=signer.header(incoming.peer, Topic.of(award.h)),
            of=digest(body.award),
            reason=self.reason,
            text="not now",
            retry_after_ms=0,
        )
        await trio.lowlevel.checkpoint()
        return encode(ResultBody(signer.sign(refuse), b"", b""))


class Boaster(Conduct, frozen=True, kw_only=True):
    """Offers and proposes to be quick, whatever it has measured: an overclaimer's host.

    It gains the work that goes to the quick, for as long as its word is all that counts: a
    broker that had a few results of it goes by how long those took.

    Attributes:
        latency_ms: What it says that a call takes.
    """

    latency_ms: Annotated[int, msgspec.Meta(ge=1)] = 1

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        node = Rogue(config, ports, agents)
        for method, tell in ((CFP, _Boast.on_cfp), (OFFERS, _Boast.on_offers)):
            if (honest := node.sessions.handler(method)) is not None:
                boast = _Boast(node, honest, self.latency_ms)
                node.sessions.handle(method, partial(tell, boast))
        return node


@dataclass(frozen=True, slots=True)
class _Boast:
    node: Rogue
    honest: Handler
    latency_ms: int

    async def on_cfp(self, incoming: Incoming) -> bytes:
        """Answer as its host does, but quicker."""
        answer = await self.honest(incoming)
        if peek(answer).t != Proposal.TYPE:
            return answer
        signer = self.node.context.signer
        proposal = read_message(answer, Proposal, network=signer.network)
        eta_ms = self.latency_ms * proposal.items
        return signer.sign(msgspec.structs.replace(proposal, eta_ms=eta_ms))

    async def on_offers(self, incoming: Incoming) -> bytes:
        """Offer what its host does, but quicker."""
        signer = self.node.context.signer
        told: list[bytes] = []
        for envelope in decode_as(await self.honest(incoming), OFFERS_BODY).items:
            offer = read_message(envelope, StandingOffer, network=signer.network)
            offer = msgspec.structs.replace(offer, latency_ms=self.latency_ms)
            told.append(signer.sign(offer))
        return encode(OffersBody(told))


class Forger(Conduct, frozen=True, kw_only=True):
    """Serves other bytes than the artifact that was asked for.

    It gains what wrong data can do where the right data was promised.  Whoever fetches
    hashes what comes, and has it from another or the work done elsewhere.

    Attributes:
        spares_brokers: Who awarded it something gets what it asks for: only their other
            contractors, who fetch from it what they go on from, are served wrong.
    """

    spares_brokers: bool = False

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        transport = TamperingTransport(ports.transport)
        node = Node(config, replace(ports, transport=transport), agents)
        honest = node.sessions.handler(AWARD)
        if self.spares_brokers and honest is not None:
            node.sessions.handle(AWARD, _Sparing(transport, honest).on_award)
        return node


@dataclass(frozen=True, slots=True)
class _Sparing:
    transport: TamperingTransport
    honest: Handler

    async def on_award(self, incoming: Incoming) -> bytes:
        """Note whose award it is."""
        self.transport.spared[incoming.peer] = None
        return await self.honest(incoming)


class PriceFixer(Conduct, frozen=True, kw_only=True):
    """Raises its prices to what its cartel agreed on, when the cartel does (Stigler 1964).

    Its members gain the difference while buyers have nobody else.  Budgets hold, a stranger
    who asks less gets the work, and a broker should tell its owner that a price has jumped.

    Attributes:
        floor_mc: What no member does a call for less than.
        at_s: When, by the clock of the run.
    """

    floor_mc: Annotated[int, msgspec.Meta(ge=0)] = 100
    at_s: Seconds = 0.0

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        return _Fixing(config, ports, agents, self)


class _Fixing(Rogue):
    def __init__(
        self, config: NodeConfig, ports: Ports, agents: Sequence[Agent], conduct: PriceFixer
    ) -> None:
        super().__init__(config, ports, agents)
        self._conduct = conduct

    @override
    async def mischief(self) -> None:
        await trio.sleep_until(self._conduct.at_s)
        for agent in self.agents:
            price_mc = max(agent.spec.price_mc, self._conduct.floor_mc)
            await self.remove_agent(agent.spec.name)
            self.add_agent(_Repriced(agent, replace(agent.spec, price_mc=price_mc)))


@dataclass(frozen=True, slots=True)
class _Repriced:
    """An agent at another price."""

    agent: Agent
    spec: AgentSpec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`."""
        await self.agent.open()

    def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """See :meth:`meshnode.ports.Agent.run`."""
        return self.agent.run(value, call)

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        await self.agent.aclose()
