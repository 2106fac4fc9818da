"""Golds that no task is waiting for: how an owner has known agents looked at now and then.

So many an hour as ``[trust] golds_per_hour`` says, at times that are no rhythm, and for no more
a day than ``golds_mc_per_day``.  Every other one goes to the agent that needs it most (one that
owes golds, or was taken alone as often as one may be; then one of whom little is known), the
rest to anybody: who is well known may have turned.
"""

from typing import Final

import trio

from meshnode.domain.circuits import CircuitState
from meshnode.domain.matching import Candidate
from meshnode.domain.trust.credibility import known_units
from meshnode.domain.trust.golds import must_clear
from meshnode.errors import StoreError
from meshnode.services.broker import Broker
from meshnode.services.brokering import Surroundings
from meshnode.services.context import Context
from meshnode.services.gold_lending import GoldLending
from meshnode.services.gold_store import MAPPED_MAX, GoldStore
from meshnode.services.golds import Golds
from meshnode.services.market import Market
from meshnode.services.reputation import Reputation
from meshnode.services.supervising import alone

_HOUR_S: Final = 3_600.0
_DAY_MS: Final = 86_400_000
#: Agents that are tried in one turn, until one takes a gold.
_TRIED_MAX: Final = 4


class GoldProbes:
    """See the module."""

    def __init__(
        self, context: Context, *, golds: Golds, market: Market, reputation: Reputation
    ) -> None:
        self._context = context
        self._trust = context.config.trust
        self._rng = context.rng
        self._golds = golds
        self._market = market
        self._reputation = reputation

    async def run(self) -> None:
        """Give golds at the pace that the owner said, until cancelled; none if he said none."""
        if not self._trust.golds_per_hour:
            return
        pause_s = _HOUR_S / self._trust.golds_per_hour
        while True:
            await trio.sleep(pause_s * 2 * self._rng.random())
            await alone(self._context.emit, self._probe)

    async def _probe(self) -> None:
        try:
            await self.probe()
        except StoreError as exc:
            self._context.emit("gold.held_up", job="", why=str(exc))

    async def probe(self) -> str:
        """Give a gold to an agent, if one may be given; return its job.

        Raises:
            StoreError: The disk refused.
        """
        left_mc = self._trust.golds_mc_per_day - await self._spent_mc()
        known = [
            one
            for capability in sorted(self._golds.kept.kinds)
            for one in self._market.candidates(capability)
            if one.capability == capability and self._may(one, left_mc)
        ]
        for one in self._ordered(known)[:_TRIED_MAX]:
            if job := await self._golds.give(one.capability, one.agent_id, unasked=True):
                return job
        return ""

    def _may(self, one: Candidate, left_mc: int) -> bool:
        own = one.peer == self._context.peer
        blocked = self._reputation.book(one.capability).is_blocked(one.agent_id)
        return (
            not own
            and not blocked
            and self._market.circuit(one.peer) is not CircuitState.OPEN
            and (one.price_mc * MAPPED_MAX <= left_mc)
        )

    def _ordered(self, known: list[Candidate]) -> list[Candidate]:
        """Return the candidates in the order in which they are tried."""
        self._rng.shuffle(known)
        if self._rng.random() < 0.5:  # noqa: PLR2004 - every other one
            known.sort(key=self._need)
        return known

    def _need(self, one: Candidate) -> tuple[bool, float]:
        book = self._reputation.book(one.capability)
        standing = book.standing(one.agent_id)
        is_due = bool(standing.owed) or must_clear(standing, book.rules)
        return not is_due, known_units(standing, book.imported(one.agent_id))

    async def _spent_mc(self) -> int:
        """Return what golds that nobody waited for cost in the last day, or still may."""
        since_ms = self._context.clock.now_ms() - _DAY_MS
        given = await self._golds.kept.given()
        return sum(row.cost_mc for _, row in given if row.unasked and row.at_ms > since_ms)


def open_golds(context: Context, broker: Broker, around: Surroundings) -> Golds:
    """Return a node's golds; its broker tells when tasks begin, and what becomes of jobs."""
    market, reputation = around.market, around.reputation
    lending = GoldLending(context, kept=GoldStore(context), artifacts=around.artifacts)
    broker.on_end.append(lending.ended)
    golds = Golds(context, broker=broker, market=market, reputation=reputation, lending=lending)
    probes = GoldProbes(context, golds=golds, market=market, reputation=reputation)
    golds.beside = [lending.run, probes.run]
    broker.judging.on_begin = golds.begin
    return golds
