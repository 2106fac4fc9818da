"""Who could do what, as this broker knows it now: the view that decisions are made from.

Candidates come from the directory, standing offers from the candidates themselves,
fetched ahead of need and kept while they hold; what failed lately is remembered.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.domain.attempts import NOT_BELIEVED, Barred
from meshnode.domain.circuits import Circuits, CircuitState
from meshnode.domain.crowding import SUBSET, Need, place, subset
from meshnode.domain.hedges import Paces
from meshnode.domain.matching import Candidate, matches, rank
from meshnode.domain.queues import Queues
from meshnode.domain.step_kinds import View
from meshnode.domain.watching import Run, Watched, per_call
from meshnode.domain.windows import BATCH_MC
from meshnode.errors import MeshError
from meshnode.services.agents import AgentHost
from meshnode.services.bodies import OFFERS, OFFERS_BODY, TERMS_BYTES_MAX, OffersBody
from meshnode.services.context import Context
from meshnode.services.later import Later
from meshnode.services.looking import Finder, Looking, Provider
from meshnode.services.refusals import Refusals
from meshnode.services.sessions import Sessions
from meshnode.services.watching import Watching
from protocol.codec import decode_as, encode
from protocol.errors import RemoteProtocolError, TooLarge
from protocol.limits import CAPABILITIES_MAX
from protocol.messages import Award, StandingOffer, read_message
from protocol.records import Capability, NodeRecord
from protocol.timely import check_timely

#: A peer is asked for offers again after this, seconds.
_OFFERS_S: Final = 5.0
#: Offers are renewed when they hold for less than this, milliseconds.
_RENEW_MS: Final = 120_000
_OFFERS_TIMEOUT_S: Final = 5.0
#: So long units wait for an offer instead of calling for proposals, seconds: as a rule a
#: dial and a round trip.
_OFFERS_WORTH_S: Final = 1.0
#: Peers that are approached ahead of need for one capability: so many as have work waiting
#: for them, and a few to choose from.
APPROACHED_MIN: Final = 4
APPROACHED_MAX: Final = 16
_NEAREST_MAX: Final = 5
_SALT_BYTES: Final = 16
_NOT_BELIEVED: Final = "was wrong too often (see `meshnode reputation`)"

ProvidersOf = Callable[[str], Sequence[Provider]]
#: Takes a full capability name and an agent's id; tells whether it gets no work.
IsBlocked = Callable[[str, str], bool]
#: Takes a peer; tells whether its name has cost less than this node asks for.
IsUnpaid = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Offer:
    envelope: bytes
    offer: StandingOffer
    expires_ms: int  # by this node's clock


class Market:
    """Candidates, offers and load.

    Attributes:
        refusals: Who doesn't want this broker, and how much others let it have.
    """

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        finder: Finder,
        host: AgentHost,
        blocked: IsBlocked = lambda _, __: False,
        unpaid: IsUnpaid = lambda _: False,
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._finder = finder
        self._host = host
        self._queues = Queues()
        self._paces = Paces()
        self._watching = Watching(context)
        self._offers: dict[tuple[str, str], _Offer] = {}  # (peer, agent)
        self._asked_s: dict[str, float] = {}
        self._asking_s: dict[str, float] = {}  # until when an answer is worth waiting for
        self._circuits = Circuits()
        self._looking = Looking(context, finder, self._tell)
        self.refusals = Refusals(context, known=finder.known, tell=self._tell)
        # Where anybody may come, whoever does the work may take this node for a stranger.
        self._batch_mc = BATCH_MC if context.config.is_public else 0
        self._loads: dict[str, Mapping[str, int]] = {}
        self._salt = b""  # of its order of others
        self._nursery: trio.Nursery | None = None
        self._news = trio.Event()
        self._since_ms = 0
        self._book: ProvidersOf = lambda _: ()
        self._is_blocked, self._is_unpaid = blocked, unpaid

    def write_to(self, book: ProvidersOf) -> None:
        """Know from ``book`` who does work that is ordered by letter, there or not."""
        self._book = book

    async def run(self) -> None:
        """Fetch offers and search in the background, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._since_ms = self._context.clock.now_ms()
            try:
                await self._watching.run()
            finally:  # a job may look on while all of the node is ending
                self._nursery = None

    # --- the view ---

    def view(self, queries: Iterable[str], needs: Mapping[str, Need] | None = None) -> View:
        """Return the view of now; what it lacks is looked for behind it.

        Args:
            queries: Capability queries.
            needs: Query -> what there is to do; where nothing is said, all are shown.
        """
        wanted, told = sorted(set(queries)), needs or {}
        seen = Later(wanted, self._offering)
        return View(
            candidates=Later(
                wanted, lambda q: self._candidates(q, seen[q][0], told.get(q, Need()))
            ),
            load=self.load(),
            since_ms=self._since_ms,
            barred=Later(wanted, lambda q: seen[q][1]),
            slow_ms={query: ms for query in wanted if (ms := self._paces.slow_ms(query))},
        )

    def candidates(self, query: str) -> list[Candidate]:
        """Return who offers ``query`` as far as is known here, this node included.

        Those who are the likeliest to be chosen are asked for offers.
        """
        return self._candidates(query, self._offering(query)[0], Need())

    def _candidates(
        self, query: str, offering: Sequence[Provider], need: Need
    ) -> list[Candidate]:
        own, others = self._context.peer, self._ordered(offering)
        alive = frozenset((own, *self._sessions.connected()))
        now = self._context.clock.now_ms(), trio.current_time()
        known = (
            self._candidate(record.peer, capability, alive, now)
            for record, capability in others
        )
        found = list(known) if need.whole else self._subset(known, need)
        ours = [
            self._candidate(own, capability, alive, now)
            for capability in self._host.capabilities()
            if matches(query, capability.name)
            and not self._is_blocked(capability.name, f"{own}/{capability.agent}")
        ]
        # Of a map that isn't cut yet all are seen, and those asked whom its units will see.
        uncut = need.whole and need.units is not None
        near = self._subset(found, need) if uncut else found
        asked = self._prepare(query, near + ours, need.units)
        found += ours
        if not asked:
            return found
        return [replace(one, asked=True) if one.peer in asked else one for one in found]

    def _ordered(self, offering: Sequence[Provider]) -> Sequence[Provider]:
        """Return who offers something, in the order in which this broker looks at them."""
        if len(offering) <= SUBSET:
            return offering
        salt = self._salt = self._salt or self._context.entropy.token(_SALT_BYTES)
        return sorted(offering, key=lambda provider: place(salt, provider[0].peer))

    def _subset(self, found: Iterable[Candidate], need: Need) -> list[Candidate]:
        count = max(SUBSET, need.units or 0)
        return subset(found, load=self.load(), count=count, fits=need.is_met_by)

    def _offering(self, query: str) -> tuple[list[Provider], list[Barred]]:
        """Return which others may get work, and who gets none of it now, by whose wish."""
        own, fit, blocked, bars = self._context.peer, [], set(), {}
        for record, capability in self._finder.providers(query):
            peer = record.peer
            if self._is_blocked(capability.name, f"{peer}/{capability.agent}"):
                blocked.add(peer)
            elif bar := self.refusals.bar(record):
                bars[peer] = bar
            elif peer != own:
                fit.append((record, capability))
        barred = [bars[peer] for peer in sorted(bars) if peer not in blocked]
        barred += [Barred(peer, NOT_BELIEVED, _NOT_BELIEVED) for peer in sorted(blocked)]
        return fit, barred

    def away(self, query: str) -> list[Candidate]:
        """Return who does ``query`` if it is ordered by letter, and isn't there now."""
        there = {self._context.peer, *self._sessions.connected()}
        now = self._context.clock.now_ms(), trio.current_time()
        return [
            self._candidate(record.peer, capability, frozenset(), now)
            for record, capability in self._book(query)
            if record.peer not in there and self.refusals.bar(record) is None
        ]

    def record(self, peer: str, capability: str) -> NodeRecord | None:
        """Return the record by which ``peer`` takes orders for ``capability``."""
        found = (record for record, _ in self._book(capability) if record.peer == peer)
        return next(found, None)

    def providers(self, query: str) -> list[Capability]:
        """Return the capabilities on offer for ``query``, this node's included."""
        found = [c for r, c in self._finder.providers(query) if r.peer != self._context.peer]
        return found + [c for c in self._host.capabilities() if matches(query, c.name)]

    def declared(self, query: str) -> dict[str, Capability]:
        """Return what is declared by who offers ``query``, by agent id; this node included."""
        own = self._context.peer
        found = {f"{own}/{c.agent}": c for c in self._host.capabilities()}
        offers = {f"{r.peer}/{c.agent}": c for r, c in self._finder.providers(query)}
        found = {agent: c for agent, c in found.items() if matches(query, c.name)}
        return {agent: c for agent, c in offers.items() if not agent.startswith(own)} | found

    def capability(self, peer: str, agent: str, name: str) -> Capability | None:
        """Return what ``peer``'s record says of its ``agent``."""
        if peer == self._context.peer:
            own = [c for c in self._host.capabilities() if c.agent == agent]
            return own[0] if own else None
        for record, capability in (*self._finder.providers(name), *self._book(name)):
            if record.peer == peer and capability.agent == agent:
                return capability
        return None

    async def search(
        self, query: str, *, timeout_s: float, away: bool = False
    ) -> list[Capability]:
        """Return the capabilities on offer for ``query``, looking further if none is known.

        With ``away``, else those that were on offer by nodes that take orders by letter.
        """
        if not self.providers(query):
            await self._looking.find(query, timeout_s=timeout_s)
        kept = self._book(query) if away else ()
        return self.providers(query) or [capability for _, capability in kept]

    def nearest(self, query: str) -> list[str]:
        """Return up to five capability names on offer, the most alike first."""
        names = {c.name for record in self._finder.known() for c in record.capabilities}
        names |= {c.name for c in self._host.capabilities()}
        return list(get_close_matches(query, sorted(names), n=_NEAREST_MAX, cutoff=0.0))

    def _candidate(
        self, peer: str, capability: Capability, alive: frozenset[str], now: tuple[int, float]
    ) -> Candidate:
        """Return what is known of one agent ``now``: Unix milliseconds, and on Trio's clock."""
        now_ms, now_s = now
        offer = self._offers.get((peer, capability.agent))
        if offer is not None and offer.expires_ms <= now_ms:
            offer = None
        seen_ms = self._watching.expected_ms(f"{peer}/{capability.agent}")
        circuit = self._circuits.state(peer, now_s=now_s)
        return Candidate(
            peer=peer,
            agent=capability.agent,
            capability=capability.name,
            price_mc=offer.offer.price_mc if offer else capability.price_mc,
            latency_ms=seen_ms or _claimed_ms(capability, offer, now_ms),
            concurrency=capability.limits.concurrency,
            offer=offer.envelope if offer else b"",
            offer_expires_ms=offer.expires_ms if offer else 0,
            items_max=offer.offer.items_max if offer else 1_000,
            alive=peer in alive,
            troubled=circuit is CircuitState.OPEN or self._is_unpaid(peer),
            failing=circuit is CircuitState.OPEN,
            probe=circuit is CircuitState.HALF_OPEN,
            asked=now_s < self._asking_s.get(peer, 0.0),
            queue_ms=self._queues.wait_ms(f"{peer}/{capability.agent}", now_s=now_s),
            units_max=self.refusals.units_max(peer),
            batch_mc=self._batch_mc if peer != self._context.peer else 0,
            watched=seen_ms > 0,
        )

    def watched(self, peer: str, capability: Capability) -> Watched:
        """Return how long an agent took for this broker, beside what it claims now."""
        offer, now_ms = self._offers.get((peer, capability.agent)), self._context.clock.now_ms()
        claimed_ms = _claimed_ms(capability, offer, now_ms)
        return self._watching.of(f"{peer}/{capability.agent}", claimed_ms)

    # --- load and trouble ---

    def publish_load(self, job: str, load: Mapping[str, int]) -> None:
        """Say how many units of ``job`` are out, by agent id; empty when it has ended."""
        if load:
            self._loads[job] = dict(load)
        else:
            self._loads.pop(job, None)

    def load(self) -> Mapping[str, int]:
        """Return the units out at each agent, all jobs together."""
        total: Counter[str] = Counter()
        for load in self._loads.values():
            total.update(load)
        return total

    def circuit(self, peer: str) -> CircuitState:
        """Return whether ``peer`` is trusted with work, after what came of it lately."""
        return self._circuits.state(peer, now_s=trio.current_time())

    def failed(self, peer: str, *, unreachable: bool, grave: bool = True) -> None:
        """Remember that ``peer`` failed; its offers are forgotten when it is gone.

        Args:
            peer: Who.
            unreachable: It is gone.
            grave: It is no matter of one unit: the peer is gone, deaf, late or a liar.
        """
        opened = self._circuits.failed(
            peer,
            grave=grave,
            now_s=trio.current_time(),
            share=self._context.rng.random(),
        )
        if opened:
            self._context.emit("market.circuit", peer=peer, state=CircuitState.OPEN.value)
        if unreachable:
            self._finder.failed(peer)
            for key in [key for key in self._offers if key[0] == peer]:
                del self._offers[key]

    def worked(self, peer: str) -> None:
        """Remember that what ``peer`` made was good."""
        if self._circuits.worked(peer):
            self._context.emit("market.circuit", peer=peer, state=CircuitState.CLOSED.value)

    def finished(
        self, award: Award, *, sent_s: float, run_ms: int, ahead: int, calls: int
    ) -> None:
        """Learn from a result how long its agent takes, and how long work waits there.

        Args:
            award: What was done.
            sent_s: When it was awarded, on Trio's clock.
            run_ms: How long the run took, as its contractor says.
            ahead: Units of this broker that were there before it.
            calls: Of the award.
        """
        now_s = trio.current_time()
        peer, agent = award.h.audience, f"{award.h.audience}/{award.agent}"
        took_ms = round((now_s - sent_s) * 1000)
        self._queues.saw(
            agent, took_ms=took_ms, run_ms=run_ms, ahead_ms=ahead * run_ms, now_s=now_s
        )
        offered = self.capability(peer, award.agent, award.capability)
        if offered is None:  # it offers that no more
            return
        now_ms = self._context.clock.now_ms()
        at_once = offered.limits.concurrency
        run = Run(
            # Its own word at least: part of what was ahead may have been done by then.
            took_ms=per_call(
                max(run_ms, took_ms - ahead * run_ms), calls=calls, at_once=at_once
            ),
            run_ms=per_call(run_ms, calls=calls, at_once=at_once),
            trip_ms=self._sessions.round_trip_ms(peer) or 0,
            at_ms=now_ms,
        )
        offer = self._offers.get((peer, award.agent))
        self._watching.saw(agent, run, _claimed_ms(offered, offer, now_ms))

    def was_up_at(self, at_ms: int) -> bool:
        """Tell whether this life of the node made what it did at that Unix time."""
        return at_ms >= self._since_ms

    def took(self, query: str, *, took_ms: int, calls: int) -> None:
        """Learn from a result how long work for ``query`` takes, from its award."""
        self._paces.saw(query, took_ms=took_ms, calls=calls)

    def crowded(self, agent: str, *, wait_ms: int) -> None:
        """Remember that ``agent`` had no time, and how long an award would have waited."""
        self._queues.told(agent, wait_ms=wait_ms, now_s=trio.current_time())

    def wait_ms(self, agent: str) -> int:
        """Return how long an award to ``agent`` would wait behind those of others."""
        return self._queues.wait_ms(agent, now_s=trio.current_time())

    def spent(self, peer: str, agent: str) -> None:
        """Forget an offer that its maker no longer stands by."""
        self._offers.pop((peer, agent), None)
        self._asked_s.pop(peer, None)

    # --- looking ahead ---

    async def news(self) -> None:
        """Wait until the view may have changed."""
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _prepare(self, query: str, found: Sequence[Candidate], units: int | None) -> set[str]:
        """Search, and fetch offers, for what the next decisions will want; return from whom."""
        if self._nursery is None:
            return set()
        if self._looking.try_begin(query, found, units or 1):
            self._nursery.start_soon(self._looking.search, query)
        count = APPROACHED_MAX if units is None else max(units, APPROACHED_MIN)
        count = min(count, APPROACHED_MAX, len(found))
        now_ms = self._context.clock.now_ms()
        lasting = [o for o in found if o.asked or o.offer_expires_ms > now_ms + _RENEW_MS]
        # Where others' work waits, an offer serves nobody now.
        if sum(not one.queue_ms for one in lasting) >= count:
            return set()
        # By what they say, and where that is the same others than another broker's.
        ranked = rank(found, key=self._context.peer, calls=1, load={})
        return self.approach(query, [one for one, _ in ranked[:count]])

    def approach(self, query: str, candidates: Sequence[Candidate]) -> set[str]:
        """Fetch offers of those who have none that holds for long; return from whom."""
        asked: set[str] = set()
        if self._nursery is None:
            return asked
        now_ms, now_s = self._context.clock.now_ms(), trio.current_time()
        for candidate in candidates:
            fresh = candidate.offer_expires_ms > now_ms + _RENEW_MS
            asked_s = self._asked_s.get(candidate.peer, -_OFFERS_S)
            fails = self._circuits.state(candidate.peer, now_s=now_s) is CircuitState.OPEN
            if not fresh and not fails and now_s >= asked_s + _OFFERS_S:
                self._asked_s[candidate.peer] = now_s
                self._asking_s[candidate.peer] = now_s + _OFFERS_WORTH_S
                self._nursery.start_soon(self._ask_offers, candidate.peer, query)
                asked.add(candidate.peer)
        return asked

    async def _ask_offers(self, peer: str, query: str) -> None:
        """Ask for offers of all that ``peer`` can do: the next sub-task may want another."""
        names = {query}
        for record, _ in self._finder.providers(query):
            if record.peer == peer:
                names.update(capability.name for capability in record.capabilities)
        asked = [query, *sorted(names - {query})][:CAPABILITIES_MAX]
        body = encode(OffersBody([name.encode() for name in asked]))
        try:
            raw = await self._sessions.request(peer, OFFERS, body, timeout_s=_OFFERS_TIMEOUT_S)
            self._forget_lapsed()
            for envelope in decode_as(raw, OFFERS_BODY).items:
                self._keep_offer(peer, envelope)
        except (MeshError, RemoteProtocolError) as exc:
            self._context.emit("market.no_offers", peer=peer, why=str(exc))
        finally:
            self._asking_s.pop(peer, None)
        self._tell()

    def _forget_lapsed(self) -> None:
        now_ms = self._context.clock.now_ms()
        for key in [key for key, kept in self._offers.items() if kept.expires_ms <= now_ms]:
            del self._offers[key]

    def _keep_offer(self, peer: str, envelope: bytes) -> None:
        if len(envelope) > TERMS_BYTES_MAX:
            raise TooLarge(len(envelope), TERMS_BYTES_MAX)
        offer = read_message(envelope, StandingOffer, network=self._context.network)
        if offer.h.issuer != peer:
            raise MeshError(f"{peer} passed on another's offer")
        offset_ms = self._sessions.offset_ms(peer)
        now_ms = self._context.clock.now_ms()
        check_timely(offer, audience=self._context.peer, now_ms=now_ms + offset_ms)
        held = sum(1 for key in self._offers if key[0] == peer)
        if held >= CAPABILITIES_MAX and (peer, offer.agent) not in self._offers:
            raise TooLarge(held + 1, CAPABILITIES_MAX)
        expires_ms = offer.h.expires_ms - offset_ms
        self._offers[peer, offer.agent] = _Offer(envelope, offer, expires_ms)


def _claimed_ms(capability: Capability, offer: _Offer | None, now_ms: int) -> int:
    """Return how long a call takes by what its node says; 0 if it says nothing that counts."""
    if offer is not None:
        return offer.offer.latency_ms
    return capability.measured.latency_ms if capability.measured.holds(now_ms=now_ms) else 0
