"""The contractor before the award: calls are answered with proposals, or refused with why.

A proposal or a standing offer binds this node to its price for minutes; whether the
caller may have the work is decided again when the award comes.
"""

from typing import Final

import trio

from meshnode.domain.admission import No
from meshnode.domain.matching import matches
from meshnode.ports import AgentSpec
from meshnode.services.admission import Admission
from meshnode.services.agents import AgentHost
from meshnode.services.bodies import CFP, DECLINE, OFFERS, OFFERS_BODY, OffersBody
from meshnode.services.context import Context
from meshnode.services.letters import Letters
from meshnode.services.served import OTHERS, Served
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.signer import Topic
from meshnode.services.workbench import FULL, Workbench
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.declines import Decline
from protocol.errors import Malformed, RemoteProtocolError
from protocol.keys import digest
from protocol.messages import Cfp, Proposal, StandingOffer

#: Items of one award under a standing offer.
_OFFER_ITEMS_MAX: Final = 1_000
#: Reasons of a decline that are counted by their names.
_DECLINED: Final = frozenset({"price", "latency", "tie", "budget"})
#: What a call is expected to take before any was measured.
_LATENCY_GUESS_MS: Final = 500


class Proposing:
    """Answers calls for proposals, and hands out standing offers."""

    def __init__(
        self,
        context: Context,
        *,
        door: Admission,
        letters: Letters,
        host: AgentHost,
        bench: Workbench,
        served: Served,
    ) -> None:
        self._signer = context.signer
        self._emit = context.emit
        self._per_peer_max = context.config.host.per_peer_max
        self._door = door
        self._letters = letters
        self._host = host
        self._bench = bench
        self._served = served

    def listen(self, sessions: Sessions) -> None:
        """Answer what comes over ``sessions``."""
        sessions.handle(CFP, self._door.limited(self._on_cfp, CFP))
        sessions.handle(DECLINE, self._door.limited(self._on_decline, DECLINE))
        sessions.handle(OFFERS, self._door.limited(self._on_offers, OFFERS))

    async def _on_cfp(self, incoming: Incoming) -> bytes:
        cfp = self._letters.read(incoming, Cfp)
        self._letters.refuse_replay(cfp)
        peer = incoming.peer
        if (no := await self._door.stranger(peer)) is not None:
            self._served.refused(OTHERS, "", no.reason)
            return self._letters.refuse(cfp, incoming.body, no)
        spec = self._agent_for(cfp)
        capability = spec.capability if spec is not None else ""
        self._served.count(peer, capability, asked=1)
        no = self._unwilling(cfp, peer, spec)
        if spec is None or no is not None:
            no = no or No("not_offered", "no such capability here")
            self._served.refused(peer, capability, no.reason)
            return self._letters.refuse(cfp, incoming.body, no)
        return self._propose(cfp, incoming, spec)

    def _unwilling(self, cfp: Cfp, peer: str, spec: AgentSpec | None) -> No | None:
        """Return why there is no proposal for ``cfp``, if that is so."""
        if spec is None:
            return No("not_offered", "no such capability here")
        if (no := self._door.refusal(peer, cfp.items)) is not None:
            return no
        if (no := self._bench.unpaid(peer, spec.price_mc * cfp.items)) is not None:
            return no
        if (no := self._lost_on(peer, spec, cfp.items)) is not None:
            return no
        if self._bench.is_full(peer):
            return FULL
        return _unsuitable(cfp, spec)

    def _lost_on(self, peer: str, spec: AgentSpec, calls: int) -> No | None:
        """Return why ``peer`` may not have so many calls, if no receipt helps any more.

        One that is on its way may be here before the award.
        """
        no = self._bench.unsettled(self._door.purchaser(peer), spec.price_mc, calls)
        return None if no is not None and no.retry_ms else no

    def _propose(self, cfp: Cfp, incoming: Incoming, spec: AgentSpec) -> bytes:
        latency_ms = self._host.latency_ms(spec.name) or _LATENCY_GUESS_MS
        proposal = Proposal(
            h=self._signer.header(incoming.peer, Topic.of(cfp.h)),
            cfp=digest(incoming.body),
            agent=spec.name,
            capability=spec.capability,
            price_mc=spec.price_mc,
            eta_ms=self._bench.wait_ms(spec.name) + latency_ms * cfp.items,
            free=self._host.free(spec.name),
            items=cfp.items,
        )
        self._emit("contract.proposed", peer=incoming.peer, capability=spec.capability)
        envelope = self._signer.sign(proposal)
        self._served.proposed(
            incoming.peer, spec.capability, digest(envelope), proposal.h.expires_ms
        )
        return envelope

    async def _on_decline(self, incoming: Incoming) -> bytes:
        """Count a proposal as lost, for the owner to see; it stands until it lapses."""
        decline = self._letters.read(incoming, Decline)
        reason = decline.reason if decline.reason in _DECLINED else "other"
        if self._served.lost(incoming.peer, decline.proposal, reason):
            self._emit("contract.lost", peer=incoming.peer, reason=reason)
        await trio.lowlevel.checkpoint()
        return b""

    async def _on_offers(self, incoming: Incoming) -> bytes:
        """Answer with standing offers for the capabilities asked for."""
        asked = decode_as(incoming.body, OFFERS_BODY).items
        if len(asked) > limits.CAPABILITIES_MAX:
            raise Malformed("too many capabilities asked for")
        offers: list[bytes] = []
        peer = incoming.peer
        if await self._door.stranger(peer) is not None:
            return encode(OffersBody(offers))  # it is told why when it calls
        if self._bench.draining or self._door.refusal(peer, 1) is not None:
            return encode(OffersBody(offers))  # likewise
        for spec in sorted(self._host.specs().values(), key=lambda spec: spec.name):
            if self._bench.unpaid(peer, spec.price_mc) is not None:
                continue  # likewise
            if self._lost_on(peer, spec, 1) is not None:
                continue  # likewise
            if any(_covers(query, spec.capability) for query in asked):
                offers.append(self._offer(peer, spec))
                self._served.count(peer, spec.capability, offered=1)
        await trio.lowlevel.checkpoint()
        return encode(OffersBody(offers))

    def _offer(self, peer: str, spec: AgentSpec) -> bytes:
        offer = StandingOffer(
            h=self._signer.header(peer, Topic(), lifetime_ms=limits.LIFETIME_MS_MAX),
            agent=spec.name,
            capability=spec.capability,
            price_mc=spec.price_mc,
            items_max=_OFFER_ITEMS_MAX,
            awards_max=self._per_peer_max,
            latency_ms=self._host.latency_ms(spec.name),
        )
        return self._signer.sign(offer)

    def _agent_for(self, cfp: Cfp) -> AgentSpec | None:
        """Return the agent that does best by ``cfp``, if one has its capability.

        That is one which suits; of those, one that is free, then the cheapest.
        """

        def rank(spec: AgentSpec) -> tuple[bool, bool, int, str]:
            suits = _unsuitable(cfp, spec) is None
            return not suits, not self._host.free(spec.name), spec.price_mc, spec.name

        able = (s for s in self._host.specs().values() if matches(cfp.capability, s.capability))
        return min(able, key=rank, default=None)


def _unsuitable(cfp: Cfp, spec: AgentSpec) -> No | None:
    """Return why an agent is not what ``cfp`` calls for, if that is so."""
    if spec.price_mc * cfp.items > cfp.price_max_mc:
        return No("price", f"the price is {spec.price_mc} mc")
    if cfp.input_bytes > spec.input_bytes_max * cfp.items:
        size_max = spec.input_bytes_max
        return No("size", f"the input is too large: {size_max} bytes a call are the most")
    return None


def _covers(query: bytes, capability: str) -> bool:
    try:
        return matches(query.decode(), capability)
    except (UnicodeDecodeError, RemoteProtocolError):
        return False
