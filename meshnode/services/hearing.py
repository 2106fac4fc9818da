"""What others' receipts say of agents: asked for now and then, weighed, and taken in.

Asked are those that this node would believe: whose own work it has seen to be right, whom it
invited or was invited by, the most trusted first, :data:`RATERS_MAX` of them, about the
capabilities in which it has evidence itself.  Nobody is asked in the course of a job.  What
those told that are no longer asked is forgotten.

A contract counts as its buyer's testimony, if it tells it itself: of what a contractor tells
it is only looked whether it contradicts what the buyer told.  Of each rater the newest
:data:`KEPT_MAX` in each capability are kept, with what proves them, and how much of it counts
is reckoned anew after each round (:mod:`meshnode.domain.trust.hearsay`).  That is written
down: a node that starts again believes what it believed.

Specified in protocol/spec/95-reputation.md.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from meshnode.domain.trust.credibility import credibility
from meshnode.domain.trust.graph import Flows, TrustGraph, edge_units, flows
from meshnode.domain.trust.hearsay import (
    Deal,
    Tally,
    agreement,
    imported,
    rater_weights,
    shares,
    told_deal,
    witnessed,
)
from meshnode.errors import MeshError, StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.bodies import RECEIPT_ROW, RECEIPTS
from meshnode.services.context import Context
from meshnode.services.equivocations import Equivocations
from meshnode.services.evidence_rows import ROWS_MAX
from meshnode.services.hearsay_rows import (
    CURSORS,
    DEALS,
    HALVES,
    Heard,
    deal_forgets,
    deal_writes,
    read_deal,
    read_halves,
)
from meshnode.services.reputation import Reputation
from meshnode.services.sessions import Sessions
from protocol.codec import decode_as, encode
from protocol.errors import Expired, RemoteProtocolError
from protocol.keys import digest
from protocol.limits import SKEW_MS_MAX
from protocol.receipts import Receipt
from protocol.reputation import ASK, Halves, Question, Told, check_told, read_body

#: Peers that are asked in one round, and capabilities that each is asked about.
RATERS_MAX: Final = 32
_CAPABILITIES_MAX: Final = 32
#: Answers of one peer about one capability in one round.
_ANSWERS_MAX: Final = 8
#: Deals that are kept of one rater in one capability.
KEPT_MAX: Final = 256
_REQUEST_S: Final = 10.0
#: The first round is so long after the start, and later by up to as much again, so that nodes
#: that start together don't ask together; seconds.
_FIRST_S: Final = 60.0
_ROUND_S: Final = 600.0


#: Rater -> agent -> what it testifies, of one capability.
_Told = dict[str, dict[str, Tally]]


class Hearing:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        reputation: Reputation,
        equivocations: Equivocations,
    ) -> None:
        self._context = context
        self._store = context.store
        self._sessions = sessions
        self._reputation = reputation
        self._equivocations = equivocations
        #: Capability -> rater -> award hash -> what it told.
        self._deals: dict[str, dict[str, dict[str, Deal]]] = {}

    async def load(self) -> None:
        """Take up what was told before.

        Raises:
            StoreError: It can't be read.
        """
        for key, raw in await self._store.scan(DEALS, count_max=ROWS_MAX):
            capability, award, deal = read_deal(key, raw)
            self._told_by(capability, deal.buyer)[award] = deal

    async def run(self) -> None:
        """Ask and weigh, now and then, until cancelled."""
        late = digest(self._context.peer.encode())[0] / 256
        await trio.sleep(_FIRST_S * (1 + late))
        while True:
            try:
                await self.round()
            except StoreError as exc:
                self._context.emit("hearsay.unsaved", why=str(exc))
            await trio.sleep(_ROUND_S)

    async def round(self) -> None:
        """Ask whoever would be believed, and weigh what is known.

        Raises:
            StoreError: The disk refused.
        """
        capabilities = self._reputation.capabilities()[:_CAPABILITIES_MAX]
        raters = self.raters()
        await self._forget_others(raters)
        for rater in raters:
            for capability in capabilities:
                if not await self._ask(rater, capability):
                    break
        await self.weigh()

    async def _forget_others(self, raters: Sequence[str]) -> None:
        """Forget what was told by those who are no longer asked: it has no weight.

        Raises:
            StoreError: The disk refused.
        """
        for capability, by_rater in self._deals.items():
            for rater in [rater for rater in by_rater if rater not in raters]:
                writes: list[Write] = [Delete(CURSORS, f"{capability}/{rater}")]
                for award, deal in by_rater[rater].items():
                    writes += deal_forgets(capability, award, deal)
                await self._store.commit(*writes)
                del by_rater[rater]

    # --- asking ---

    def raters(self) -> list[str]:
        """Return whom to ask, the most trusted first."""
        rules, peers = self._reputation.rules, self._reputation.peers()
        edges = self._edges()
        asked = [
            peer
            for peer, standing in peers.items()
            if edges.get(peer, 0.0) > 0.0
            and credibility(standing, rules=rules) >= rules.rater_credible
            and not self._equivocations.is_banned(peer)
        ]
        return sorted(asked, key=lambda peer: (-edges[peer], peer))[:RATERS_MAX]

    def _edges(self) -> dict[str, float]:
        """Return what this node's own evidence makes of each peer's work, units."""
        rules = self._reputation.rules
        return {
            peer: edge_units(standing.for_mu, standing.bad_mu, rules)
            for peer, standing in self._reputation.peers().items()
            if peer != self._context.peer
        }

    async def _ask(self, rater: str, capability: str) -> bool:
        """Have a rater tell what is new; return whether it is worth asking more."""
        key = f"{capability}/{rater}"
        raw = await self._store.read(CURSORS, key)
        after = "" if raw is None else raw.decode()
        try:
            for _ in range(_ANSWERS_MAX):
                body = encode(Question(capability, after))
                answer = await self._sessions.request(rater, ASK, body, timeout_s=_REQUEST_S)
                told = read_body(answer, Told)
                await self._take(capability, rater, told)
                after = told.next
                if not told.more:
                    return True
        except (MeshError, RemoteProtocolError) as exc:
            if isinstance(exc, StoreError):
                raise
            self._context.emit("hearsay.untold", peer=rater, why=str(exc))
            return False
        return True

    async def _take(self, capability: str, rater: str, told: Told) -> None:
        """Keep what a rater tells: checked, with where it goes on, in one commit.

        Raises:
            RemoteProtocolError: A contract in it proves nothing.
            StoreError: The disk refused.
        """
        known = self._told_by(capability, rater)
        writes: list[Write] = [Put(CURSORS, f"{capability}/{rater}", told.next.encode())]
        taken: dict[str, Deal] = {}
        for halves in told.contracts:
            await trio.lowlevel.checkpoint()  # each takes two signatures to check
            half, deal = self._checked(capability, rater, halves)
            award = half.award.hex()
            await self._compare(award, halves)
            if deal.buyer == rater and deal.settled and not (award in known or award in taken):
                taken[award] = deal
                writes += deal_writes(capability, award, deal, halves)
        after = {**known, **taken}
        oldest = sorted(after, key=lambda award: (after[award].at_ms, award))
        for award in oldest[: max(0, len(oldest) - KEPT_MAX)]:
            writes += deal_forgets(capability, award, after.pop(award))
        await self._store.commit(*writes)
        self._deals[capability][rater] = after

    def _checked(self, capability: str, rater: str, halves: Halves) -> tuple[Receipt, Deal]:
        half, accepted = check_told(
            halves, by=rater, capability=capability, network=self._context.network
        )
        now_ms = self._context.clock.now_ms() + self._sessions.offset_ms(rater)
        if accepted.h.issued_ms > now_ms + SKEW_MS_MAX:
            raise Expired("a contract that was accepted in the future")
        return half, told_deal(half, accepted)

    async def _compare(self, award: str, halves: Halves) -> None:
        """Look whether it contradicts what is known of that award."""
        others: list[Halves] = []
        if (raw := await self._store.read(HALVES, award)) is not None:
            others.append(read_halves(raw))
        if (raw := await self._store.read(RECEIPTS, award)) is not None:
            row = decode_as(raw, RECEIPT_ROW)
            others.append(Halves(row.receipt, row.acceptance))
        for other in others:
            await self._equivocations.compare("receipt", other.receipt, halves.receipt)
            await self._equivocations.compare("acceptance", other.acceptance, halves.acceptance)

    def _told_by(self, capability: str, rater: str) -> dict[str, Deal]:
        return self._deals.setdefault(capability, {}).setdefault(rater, {})

    # --- weighing ---

    async def weigh(self) -> None:
        """Reckon anew what others say of agents, and take it in.

        Raises:
            StoreError: It can't be written down; the rest stays as it was.
        """
        rules = self._reputation.rules
        told: dict[str, _Told] = {}
        for capability in sorted(self._deals):
            await trio.lowlevel.checkpoint()  # of many deals each takes a while
            told[capability] = self._testimonies(capability)
        walked = flows(self._graph(told), self._context.peer, rules)
        credible = {
            peer: credibility(standing, rules=rules)
            for peer, standing in self._reputation.peers().items()
        }
        for capability in sorted({*told, *self._reputation.heard_in()}):
            heard = self._heard(capability, told.get(capability, {}), walked, credible)
            await self._reputation.hear(capability, heard)

    def _heard(
        self, capability: str, told: _Told, walked: Flows, credible: Mapping[str, float]
    ) -> dict[str, Heard]:
        """Return what counts of what is told of the agents of a capability."""
        rules, own = self._reputation.rules, self._reputation.book(capability).standings
        believed = [rater for rater in told if not self._equivocations.is_banned(rater)]
        weights = rater_weights(
            walked,
            credible,
            {r: agreement(told[r], own, rules) for r in believed},
            rules,
        )
        inviter, before = self._reputation.inviter, walked.before
        sums = imported(told, weights, before=before, inviter=inviter, rules=rules)
        return {
            agent: Heard(
                total,
                shares(agent, told, weights, before=before, inviter=inviter, rules=rules),
            )
            for agent, total in sums.items()
        }

    def _testimonies(self, capability: str) -> _Told:
        """Return what each rater's receipts come to."""
        by_rater = self._deals.get(capability, {})
        deals = [deal for rater in sorted(by_rater) for deal in _in_order(by_rater[rater])]
        return witnessed(deals, self._reputation.rules)

    def _graph(self, told: Mapping[str, _Told]) -> TrustGraph:
        """Return who trusts whom, in all capabilities: an edge is to a node, for its agents."""
        graph, rules = TrustGraph(), self._reputation.rules
        sums: dict[str, dict[str, tuple[int, int]]] = {}
        for by_rater in told.values():
            for rater, tallies in by_rater.items():
                mine = sums.setdefault(rater, {})
                for agent, tally in tallies.items():
                    peer = agent.partition("/")[0]
                    good_mu, bad_mu = mine.get(peer, (0, 0))
                    mine[peer] = good_mu + tally.good_mu, bad_mu + tally.bad_mu
        for rater, peers in sums.items():
            if not self._equivocations.is_banned(rater):
                graph.put(rater, {p: edge_units(*mu, rules) for p, mu in peers.items()})
        graph.put(self._context.peer, self._edges())
        return graph


def _in_order(told: Mapping[str, Deal]) -> Sequence[Deal]:
    return [told[award] for award in sorted(told, key=lambda one: (told[one].at_ms, one))]
