"""Gold tasks: asking an agent what this node knows already, as it would ask anything.

A gold is a job of this node's own broker that only one agent may do (``Terms.only``), dressed
as the last usual task for that capability was (:mod:`meshnode.domain.gold_tasks`): nothing
that the contractor gets says which it is, before the answer or after a right one.  It is paid
like any other.

That a node saw a gold is on the disk before the gold leaves, so no crash gives it twice.  What
it teaches of the agent is learned with the charge, as of any task
(:mod:`meshnode.services.experience`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.domain.gold_tasks import Dress, answered, each_of, gold_graph
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.plan_parts import GoldPlan
from meshnode.domain.trust.golds import golds_due
from meshnode.errors import GraphError, InputInvalid, MeshError, StoreError
from meshnode.ports import Delete, JsonValue, Put, Write
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.gold_lending import GoldLending
from meshnode.services.gold_store import GIVEN, Came, GivenRow, Gold, GoldStore
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.job_terms import Terms
from meshnode.services.market import Market
from meshnode.services.reputation import Reputation
from meshnode.services.supervising import alone
from protocol.codec import encode
from protocol.errors import ProtocolError
from protocol.messages import read_message
from protocol.receipts import Receipt

#: Whose idempotency keys gold jobs have.
_CALLER: Final = "gold"
_KEY_BYTES: Final = 12
#: What is past its time is looked for this often, seconds.
_SWEEP_S: Final = 3_600.0
#: What the disk refused is tried again after this, seconds.
_AGAIN_S: Final = 5.0


class Golds:
    """See the module.

    Attributes:
        kept: The golds, and who has seen them.
        beside: What runs beside it.
    """

    def __init__(
        self,
        context: Context,
        *,
        broker: Broker,
        market: Market,
        reputation: Reputation,
        lending: GoldLending,
    ) -> None:
        self.kept: GoldStore = lending.kept
        self._context = context
        self._store = context.store
        self._emit = context.emit
        self._broker = broker
        self._market = market
        self._reputation = reputation
        self._lending = lending
        self.beside: Sequence[Callable[[], Awaitable[None]]] = [lending.run]
        self._turn = trio.Lock()  # one choice at a time, or two would take the same gold
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """See to golds that are out, and forget what is past its time, until cancelled."""
        async with trio.open_nursery() as nursery:
            await self.kept.load()
            await self._pick_up(nursery)
            self._nursery = nursery
            for service in self.beside:
                nursery.start_soon(service)
            while True:
                try:
                    await self.kept.forget_old()
                except StoreError as exc:
                    self._emit("gold.kept", why=str(exc))
                await trio.sleep(_SWEEP_S)

    async def _pick_up(self, nursery: trio.Nursery) -> None:
        """Go on with what a restart left: golds that are out, and such as never left."""
        out: dict[str, dict[str, GivenRow]] = {}
        for name, row in await self.kept.given():
            if not row.came:
                out.setdefault(row.key, {})[name] = row
        for key, rows in sorted(out.items()):
            raw = await self._store.read(KEYS, f"{_CALLER}/{key}")
            if raw is None:
                await self._take_back(rows)
            else:
                job = read_key(raw)[0]
                nursery.start_soon(alone, self._emit, self._follow, job, rows)

    # --- giving ---

    def begin(self, ranked: Sequence[Candidate], *, alarmed: bool = False) -> None:
        """Give the golds that are due now that a task is to be given to the first of these.

        Args:
            ranked: In the order of preference.
            alarmed: Believed agents were proven wrong lately.
        """
        capability = ranked[0].capability if ranked else ""
        if self._nursery is None or capability not in self.kept.kinds:
            return
        agents = [one.agent_id for one in ranked if one.capability == capability]
        book = self._reputation.book(capability)
        for agent in golds_due(book, agents, self._context.rng, alarmed=alarmed):
            self._nursery.start_soon(alone, self._emit, self._give, capability, agent)

    async def _give(self, capability: str, agent: str) -> None:
        try:
            await self.give(capability, agent)
        except StoreError as exc:  # the task goes on without
            self._emit("gold.not_given", agent=agent, why=str(exc))

    def dress(self, capability: str) -> Dress:
        """Return how the last usual task that ``capability`` could do looked."""
        return self._lending.dress(capability)

    def has_seen(self, capability: str) -> bool:
        """Tell whether a usual task for it was done lately, by which golds are dressed."""
        return self._lending.knows(capability)

    async def give(self, capability: str, agent: str, *, unasked: bool = False) -> str:
        """Give an agent a gold; return its job once it is durable, or nothing if none is given.

        None is given where there is none that its node hasn't seen, or it isn't there.

        Args:
            capability: Full name.
            agent: ``peer/name``.
            unasked: No task of this node's is waiting for it.

        Raises:
            StoreError: The disk refused.
        """
        if self._nursery is None:
            return ""
        async with self._turn:
            found = [c for c in self._market.candidates(capability) if c.agent_id == agent]
            if not found or found[0].capability != capability:
                return ""
            dress = self._lending.dress(capability)
            chosen = await self.kept.choose(capability, found[0].peer, dress)
            if not chosen:
                self._emit("gold.lacking", capability=capability, agent=agent)
                return ""
            key = self._context.entropy.token(_KEY_BYTES).hex()
            rows = self._rows(found[0], chosen, key, unasked=unasked)
            counted = [await self.kept.counted(capability, gold.name, "") for gold in chosen]
            await self._store.commit(
                *(Put(GIVEN, name, encode(row)) for name, row in rows.items()),
                *(write for writes in counted for write in writes),
            )
        return await self._send(found[0], chosen, dress, rows)

    def _rows(
        self, candidate: Candidate, chosen: Sequence[Gold], key: str, *, unasked: bool
    ) -> dict[str, GivenRow]:
        return {
            f"{candidate.peer}/{gold.name}": GivenRow(
                capability=gold.capability,
                agent=candidate.agent_id,
                key=key,
                place=place,
                at_ms=self._context.clock.now_ms(),
                cost_mc=candidate.price_mc,
                unasked=unasked,
            )
            for place, gold in enumerate(chosen)
        }

    async def _send(
        self,
        candidate: Candidate,
        chosen: Sequence[Gold],
        dress: Dress,
        rows: dict[str, GivenRow],
    ) -> str:
        """Make the job; if that can't be, its golds are as if never given."""
        first = chosen[0]
        each = each_of(dress, first.inputs)
        graph = gold_graph(dress, first.capability, list(first.inputs), first.like)
        inputs: dict[str, JsonValue] = {
            name: [gold.inputs[name] for gold in chosen] if name in each else value
            for name, value in first.inputs.items()
        }
        key = next(iter(rows.values())).key
        terms = self._terms(dress, key, chosen, candidate)
        try:
            job = await self._broker.submit(graph, inputs, terms, caller=_CALLER)
        except StoreError:
            raise  # it is looked up at the next start whether it is there
        except (MeshError, ProtocolError) as exc:
            unfit = isinstance(exc, GraphError | InputInvalid)
            await self._take_back(rows, came="unfit" if unfit else "")
            self._emit("gold.not_given", agent=candidate.agent_id, why=str(exc))
            return ""
        self._emit(
            "gold.given",
            capability=candidate.capability,
            agent=candidate.agent_id,
            job=job,
            count=len(chosen),
        )
        if self._nursery is not None:
            self._nursery.start_soon(alone, self._emit, self._follow, job, rows)
        return job

    def _terms(
        self, dress: Dress, key: str, chosen: Sequence[Gold], candidate: Candidate
    ) -> Terms:
        token = self._context.entropy.token
        trace = f"00-{token(16).hex()}-{token(8).hex()}-01" if dress.traced else ""
        return Terms(
            budget_mc=max(dress.budget_mc, candidate.price_mc * len(chosen)),
            deadline_s=dress.deadline_ms / 1000,
            idempotency_key=key,
            traceparent=trace,
            hedges_pct=0,
            replans_max=0,
            depth_max=dress.hops,
            fan_out_max=dress.fan_out,
            subtasks_max=dress.subtasks,
            tokens_max=dress.tokens,
            only=(candidate.agent_id,),
            gold=GoldPlan(
                expected=[gold.output for gold in chosen],
                numbered=dress.numbered,
                verdict=dress.verdict,
                check=dress.check,
                price_max_mc=candidate.price_mc,
            ),
        )

    async def _take_back(self, rows: dict[str, GivenRow], *, came: Came = "") -> None:
        """Note that golds never left; ``came`` keeps them from their nodes all the same."""
        writes: list[Write] = []
        for name, row in rows.items():
            gold = name.partition("/")[2]
            writes += await self.kept.counted(row.capability, gold, "", by=-1)
            kept = replace(row, came=came, cost_mc=0)
            writes.append(Put(GIVEN, name, encode(kept)) if came else Delete(GIVEN, name))
        await self._store.commit(*writes)

    # --- what comes of it ---

    async def _follow(self, job: str, rows: dict[str, GivenRow]) -> None:
        """Wait for the end of a gold's job, and note it."""
        while True:
            try:
                await self._note(await self._broker.wait(job), rows)
            except StoreError as exc:
                self._emit("gold.held_up", job=job, why=str(exc))
                await trio.sleep(_AGAIN_S)
            except (MeshError, ProtocolError) as exc:
                # Such as a job that is forgotten: it shows nothing.
                self._emit("gold.lost", job=job, why=str(exc))
                return
            else:
                return

    async def _note(self, state: JobState, rows: dict[str, GivenRow]) -> None:
        """Note what came of each gold of a job, and tell.

        What it teaches of the agent went into the commit of the charge, or of the failure
        (:mod:`meshnode.services.experience`).
        """
        units = answered(state)
        came_of = {
            place: unit.outcome
            for unit in units
            for place in range(unit.first, unit.first + unit.count)
        }
        writes: list[Write] = []
        each_mc, more_mc = divmod(state.spent_mc, len(rows))
        for name, row in rows.items():
            came: Came = came_of.get(row.place, "") or "nothing"
            cost_mc = each_mc if row.place else each_mc + more_mc
            kept = replace(row, came=came, cost_mc=cost_mc)
            writes.append(Put(GIVEN, name, encode(kept)))
            if came != "nothing":
                gold = name.partition("/")[2]
                writes += await self.kept.counted(row.capability, gold, came)
        writes += self._seen_below(state, rows)
        await self._store.commit(*writes)
        capability = next(iter(rows.values())).capability
        for unit in units:
            if unit.outcome:
                self._emit(
                    f"gold.{unit.outcome}",
                    capability=capability,
                    agent=unit.agent,
                    job=state.job,
                    credibility=round(self._reputation.credibility(capability, unit.agent), 3),
                )

    def _seen_below(self, state: JobState, rows: dict[str, GivenRow]) -> list[Write]:
        """Return what notes that those saw the golds to whom a contractor handed them on."""
        peers: set[str] = set()
        for unit in state.units.values():
            for attempt in unit.attempts:
                if attempt.delivered is not None and attempt.delivered.below:
                    envelope = attempt.delivered.receipt
                    receipt = read_message(envelope, Receipt, network=self._context.network)
                    peers.update(row.peer for row in receipt.below if row.peer)
        return [
            Put(
                GIVEN,
                f"{peer}/{name.partition('/')[2]}",
                encode(GivenRow(capability=row.capability, at_ms=row.at_ms, came="seen")),
            )
            for peer in sorted(peers)
            for name, row in rows.items()
            if f"{peer}/{name.partition('/')[2]}" not in rows
        ]
