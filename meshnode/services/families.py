"""Agents' model families, probed: what is declared is held against how they answer.

A probe puts the same dozen questions to some agents of one capability, each as a task like any
other, and keeps for a week what the answers tell (:mod:`meshnode.domain.families`).  Own agents
that can be asked take part: what they declare this node knows.

How a question is asked is handed in, since only a broker can ask one agent and no other.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import msgspec
import trio

from meshnode.domain.families import UNKNOWN, Look, recognised
from meshnode.domain.fingerprints import answer_of, asked, can_be_asked, questions
from meshnode.domain.values import parse
from meshnode.errors import MeshError, StoreError
from meshnode.ports import Delete, JsonValue, Put, Write
from meshnode.services.context import Context
from protocol.errors import ProtocolError
from protocol.records import Capability

FAMILIES: Final = "family"
#: What was probed counts for so long.
FAMILY_LIFETIME_MS: Final = 7 * 24 * 3_600_000
#: Agents that are asked in one probe, and those of which something is kept.
AGENTS_MAX: Final = 8
KEPT_MAX: Final = 1_024
#: Questions that are out at once.
_AT_ONCE: Final = 4


class Reply(NamedTuple):
    """What came of a question.

    Attributes:
        answer: The agent's; None if there is none.
        spent_mc: What was paid for it.
        why: There is no answer.
    """

    answer: JsonValue
    spent_mc: int = 0
    why: str = ""


#: ``ask(agent, capability, input, price_max_mc)``: what one agent, and no other, makes of an
#: input, unless it asks for more than that.
Ask = Callable[[str, str, dict[str, JsonValue], int], Awaitable[Reply]]
#: ``paid(agent, mc)``: told what each question came to.
Paid = Callable[[str, int], None]
#: Who offers a capability: by agent id, what it declares.
Declared = Callable[[str], Mapping[str, Capability]]


class Probed(msgspec.Struct, frozen=True):
    """What a probe told of an agent.

    Attributes:
        declared: Its family by its record.
        family: By its answers; empty if it wasn't recognised.
        at_ms: When, Unix time.
    """

    declared: str
    family: str
    at_ms: int


_PROBED: Final = msgspec.msgpack.Decoder(Probed)


class Families:
    """See the module.  :meth:`load` first."""

    def __init__(self, context: Context, *, declared: Declared, ask: Ask) -> None:
        self._own = context.peer
        self._store = context.store
        self._clock = context.clock
        self._rng = context.rng
        self._emit = context.emit
        self._declared = declared
        self._ask = ask
        self._rows: dict[str, Probed] = {}  # the longest unprobed first

    async def load(self) -> None:
        """Take up what was probed before.

        Raises:
            StoreError: What is there can't be read.
        """
        found: dict[str, Probed] = {}
        for agent, raw in await self._store.scan(FAMILIES, count_max=2 * KEPT_MAX):
            try:
                found[agent] = _PROBED.decode(raw)
            except msgspec.MsgspecError as exc:
                raise StoreError(f"{FAMILIES}/{agent:.200} is no probe: {exc}") from exc
        self._rows = dict(sorted(found.items(), key=lambda row: row[1].at_ms))

    def family(self, agent: str) -> str:
        """Return the model family of an agent, as probed; empty if it isn't known.

        What is empty is one unknown for all: nobody is different for being unknown.
        """
        row = self.probed(agent)
        return row.family if row is not None else ""

    def voice(self, capability: str, agent: str) -> str:
        """Return the family whose voice an agent's answers count as.

        One that could be asked and isn't recognised has a family in common with all others of
        that kind: :data:`UNKNOWN`.  What takes no questions, such as plain code, has none.

        Args:
            capability: Full name.
            agent: Its id.
        """
        if known := self.family(agent):
            return known
        offer = self._declared(capability).get(agent)
        if offer is None or not (offer.model_family or can_be_asked(parse(offer.input_schema))):
            return ""
        return UNKNOWN

    def probed(self, agent: str) -> Probed | None:
        """Return what the last probe told of an agent, if that still counts."""
        row = self._rows.get(agent)
        lapsed = row is None or self._clock.now_ms() >= row.at_ms + FAMILY_LIFETIME_MS
        return None if lapsed else row

    async def probe(
        self,
        capability: str,
        chosen: Mapping[str, Capability] | None = None,
        *,
        prices_mc: Mapping[str, int] | None = None,
        paid: Paid = lambda _, __: None,
    ) -> dict[str, str]:
        """Ask some agents of ``capability`` the same; return the families that were told.

        Args:
            capability: Full name.
            chosen: Whom, by id, of those that are able; else as many as may be.
            prices_mc: By agent, what one call may cost; else what its record says.
            paid: Told what each question came to, as it ends.

        Raises:
            StoreError: The disk refused; what was told counts until a restart.
        """
        if chosen is None:
            chosen = self._chosen(capability)
        caps_mc = {agent: one.price_mc for agent, one in chosen.items()} | {**(prices_mc or {})}
        looks = await self._looks(capability, chosen, caps_mc, paid)
        own = [agent for agent in chosen if agent.startswith(f"{self._own}/")]
        told = recognised(looks, own=own)
        now_ms = self._clock.now_ms()
        for agent, family in sorted(told.items()):
            declared = chosen[agent].model_family
            self._rows.pop(agent, None)
            self._rows[agent] = Probed(declared, family, now_ms)
            if declared != family:
                self._emit("families.unlike", agent=agent, declared=declared, family=family)
        self._emit("families.probed", capability=capability, asked=len(chosen), told=len(told))
        gone = [*self._rows][: max(0, len(self._rows) - KEPT_MAX)]
        writes: list[Write] = [
            Put(FAMILIES, agent, msgspec.msgpack.encode(self._rows[agent])) for agent in told
        ]
        for agent in gone:
            del self._rows[agent]
            writes.append(Delete(FAMILIES, agent))
        if writes:
            await self._store.commit(*writes)
        return told

    def able(self, capability: str) -> dict[str, Capability]:
        """Return who can be asked, by agent id: this node's own agents too."""
        return {
            agent: offer
            for agent, offer in sorted(self._declared(capability).items())
            if offer.name == capability and can_be_asked(parse(offer.input_schema))
        }

    def _chosen(self, capability: str) -> dict[str, Capability]:
        """Return who is asked: own agents, then any others, in no order that tells anything."""
        able = self.able(capability)
        own = [agent for agent in able if agent.startswith(f"{self._own}/")]
        others = [agent for agent in able if agent not in own]
        self._rng.shuffle(others)
        return {agent: able[agent] for agent in [*own, *others][:AGENTS_MAX]}

    async def _looks(
        self,
        capability: str,
        chosen: Mapping[str, Capability],
        caps_mc: Mapping[str, int],
        paid: Paid,
    ) -> list[Look]:
        answers: dict[str, dict[str, str]] = {agent: {} for agent in chosen}
        limiter = trio.CapacityLimiter(_AT_ONCE)

        async def one(agent: str, question: str) -> None:
            value = asked(question, parse(chosen[agent].input_schema))
            async with limiter:
                try:
                    reply = await self._ask(agent, capability, value, caps_mc[agent])
                except (MeshError, ProtocolError) as exc:
                    reply = Reply(None, why=str(exc))
            paid(agent, reply.spent_mc)
            if reply.why:
                self._emit("families.no_answer", agent=agent, why=reply.why)
            if text := answer_of(reply.answer):
                answers[agent][question] = text

        pairs = [(agent, question) for question in questions(self._rng) for agent in chosen]
        self._rng.shuffle(pairs)
        async with trio.open_nursery() as nursery:
            for agent, question in pairs:
                nursery.start_soon(one, agent, question)
        return [
            Look(agent, chosen[agent].model_family, answers[agent]) for agent in sorted(chosen)
        ]
