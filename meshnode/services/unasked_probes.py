"""Model families, probed without anybody's asking: rarely, and within a share of the work.

Diversity counts where it was probed, so an agent that declares a family, and whose answers
are compared with others', is worth a probe once a week.  Jobs with an assurance that such
agents worked in save up for it (:mod:`meshnode.services.spot_checks`); it begins once all its
questions are saved up, and only where it can tell something: beside an own agent that declares
the family, or where agents of two peers do.

Not in a private mesh, unless its owner says so: who is a member there is known otherwise, and a
probe is a few dozen calls.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.domain.fingerprints import QUESTIONS
from meshnode.domain.spot_checks import Purse
from meshnode.errors import MeshError
from meshnode.services.context import Context
from meshnode.services.families import Families
from meshnode.services.market import Market
from protocol.records import Capability

#: Agents of others that are asked in one.
OTHERS_MAX: Final = 4
#: Who gave too few answers is worth another probe after this, milliseconds.
_AGAIN_MS: Final = 24 * 3_600_000
#: Capabilities and agents that are remembered: those of the latest jobs.
_WANTED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Taken:
    """A probe that is paid for ahead.

    Attributes:
        chosen: Who is asked, by agent id.
        prices_mc: What a call of each may cost: what was looked at when it was decided.
        costs_mc: All calls of others together, at those prices.
    """

    chosen: dict[str, Capability]
    prices_mc: dict[str, int]
    costs_mc: int


class UnaskedProbes:
    """See the module."""

    def __init__(self, context: Context, *, families: Families, market: Market) -> None:
        trust = context.config.trust
        self._own = context.peer
        self._clock = context.clock
        self._emit = context.emit
        self._families = families
        self._market = market
        self._allowed = trust.family_probes == "always" or (
            trust.family_probes == "public" and context.config.is_public
        )
        self._purses: dict[str, Purse] = {}
        self._wanted: dict[tuple[str, str], None] = {}  # capability and agent
        self._asked_ms: dict[str, int] = {}

    def wants(self, capability: str, agents: Iterable[str]) -> bool:
        """Note who worked in a job with an assurance; tell whether a probe is worth it.

        Args:
            capability: Full name.
            agents: Ids.
        """
        if not self._allowed:
            return False
        offers = self._market.declared(capability)
        for agent in agents:
            offer = offers.get(agent)
            if offer is not None and offer.model_family and self._is_due(agent):
                self._wanted[capability, agent] = None
        while len(self._wanted) > _WANTED_MAX:
            del self._wanted[next(iter(self._wanted))]
        return any(name == capability for name, _ in self._wanted) and bool(
            self._chosen(capability, self._families.able(capability))
        )

    def earn(self, capability: str, calls: float, mc: float) -> None:
        """Save up."""
        calls_max = float(OTHERS_MAX * QUESTIONS)
        self._purses.setdefault(capability, Purse()).earn(calls, mc, calls_max=calls_max)

    def take(self, capability: str) -> Taken | None:
        """Return who is to be probed now, and spend what that may cost; None for nobody."""
        chosen = self._chosen(capability, self._families.able(capability))
        purse = self._purses.get(capability)
        if purse is None or not chosen:
            return None
        known_mc = {one.agent_id: one.price_mc for one in self._market.candidates(capability)}
        prices_mc = {agent: known_mc.get(agent, one.price_mc) for agent, one in chosen.items()}
        others = [agent for agent in chosen if not self._is_own(agent)]
        calls = QUESTIONS * len(others)
        costs_mc = QUESTIONS * sum(prices_mc[agent] for agent in others)
        if not purse.affords(calls, costs_mc):
            return None
        purse.pay(calls, costs_mc)
        now_ms = self._clock.now_ms()
        for agent in others:
            self._wanted.pop((capability, agent), None)
            self._asked_ms[agent] = now_ms
        while len(self._asked_ms) > _WANTED_MAX:
            del self._asked_ms[next(iter(self._asked_ms))]
        return Taken(chosen, prices_mc, costs_mc)

    async def probe(self, capability: str, taken: Taken) -> None:
        """Probe, settle what that came to, and tell what can't be kept."""
        spent_mc = 0

        def paid(agent: str, mc: int) -> None:
            nonlocal spent_mc
            spent_mc += 0 if self._is_own(agent) else mc

        try:
            await self._families.probe(
                capability, taken.chosen, prices_mc=taken.prices_mc, paid=paid
            )
        except MeshError as exc:
            self._emit("families.unprobed", capability=capability, why=exc.line())
        self._purses[capability].pay(0, spent_mc - taken.costs_mc)

    def _chosen(self, capability: str, able: dict[str, Capability]) -> dict[str, Capability]:
        """Return who would be asked: own agents, who is wanted, and others of its family."""
        wanted = [agent for name, agent in self._wanted if name == capability and agent in able]
        own = [agent for agent in able if self._is_own(agent)]
        anchored = {able[agent].model_family for agent in own}
        for first in wanted:
            kin = _kin(first, [agent for agent in able if agent not in own], able)
            far = kin[:1] and _peer(kin[0]) != _peer(first)
            if far or able[first].model_family in anchored:
                rest = [agent for agent in wanted if agent != first and agent not in kin]
                others = [first, *kin[:1], *rest, *kin[1:]][:OTHERS_MAX]
                return {agent: able[agent] for agent in [*own[:OTHERS_MAX], *others]}
        return {}

    def _is_due(self, agent: str) -> bool:
        if self._is_own(agent) or self._families.probed(agent) is not None:
            return False
        return self._clock.now_ms() >= self._asked_ms.get(agent, -_AGAIN_MS) + _AGAIN_MS

    def _is_own(self, agent: str) -> bool:
        return _peer(agent) == self._own


def _kin(first: str, others: Iterable[str], able: Mapping[str, Capability]) -> list[str]:
    """Return who declares the family that ``first`` does: those of other peers first."""
    family = able[first].model_family
    kin = [one for one in others if one != first and able[one].model_family == family]
    return sorted(kin, key=lambda one: (_peer(one) == _peer(first), one))


def _peer(agent: str) -> str:
    return agent.partition("/")[0]
