"""What usual jobs leave for gold tasks: how they look, and what their owners lend.

A job becomes a gold only if its owner said so (``Terms.lends_golds``), it is this node's own,
nobody stands by for it, no reader is named in its graph, and a check proved its output to be
*the* right one (:func:`meshnode.domain.gold_tasks.lent`).  Whoever was awarded anything of it
has seen it, and is never asked for it.

Told by the broker when a job has ended; what a crash takes there is a gold less.
"""

from typing import Final

import msgspec
import trio

from meshnode.domain.bindings import artifacts, assemble
from meshnode.domain.gold_tasks import Dress, Lent, dresses, lent, plain_dress, seen_by
from meshnode.domain.job import JobState
from meshnode.domain.matching import matches
from meshnode.domain.values import parse
from meshnode.errors import InputInvalid, MeshError
from meshnode.ports import JsonValue, Put
from meshnode.services.artifacts import Artifacts
from meshnode.services.context import Context
from meshnode.services.gold_store import GoldStore
from meshnode.services.supervising import alone
from protocol.codec import decode_as, encode
from protocol.errors import ProtocolError
from protocol.messages import Award, read_message

#: Capability that was asked for -> :class:`Dress`.
DRESSES: Final = "gold_dress"
#: Looks that are remembered.
_DRESSES_MAX: Final = 256
#: Golds that one job lends.
LENT_MAX: Final = 8
#: Jobs that may wait to be looked through; one that comes then is not.
_WAITING_MAX: Final = 64

_DRESS: Final = msgspec.msgpack.Decoder(Dress)


class GoldLending:
    """See the module.

    Attributes:
        kept: Where what is lent goes.
    """

    def __init__(self, context: Context, *, kept: GoldStore, artifacts: Artifacts) -> None:
        self.kept = kept
        self._context = context
        self._store = context.store
        self._artifacts = artifacts
        self._dresses: dict[str, Dress] = {}  # the one of the latest job last
        self._send, self._ended = trio.open_memory_channel[JobState](_WAITING_MAX)

    async def run(self) -> None:
        """Look through jobs that have ended, until cancelled."""
        for query, raw in await self._store.scan(DRESSES):
            self._dresses.setdefault(query, decode_as(raw, _DRESS))
        async for state in self._ended:
            await alone(self._context.emit, self._look_through, state)

    def ended(self, state: JobState) -> None:
        """Note that a job has ended."""
        try:
            self._send.send_nowait(state)
        except trio.WouldBlock:
            self._context.emit("gold.not_lent", job=state.job, why="too many jobs at once")

    def dress(self, capability: str) -> Dress:
        """Return how the last usual task that ``capability`` could do looked."""
        looks = reversed(self._dresses.items())
        last = next((dress for query, dress in looks if matches(query, capability)), None)
        return last or plain_dress(capability)

    def knows(self, capability: str) -> bool:
        """Tell whether there was such a task."""
        return any(matches(query, capability) for query in self._dresses)

    async def _look_through(self, state: JobState) -> None:
        try:
            await self._take(state)
        except (MeshError, ProtocolError) as exc:
            self._context.emit("gold.not_lent", job=state.job, why=str(exc))

    async def _take(self, state: JobState) -> None:
        plan = state.plan
        if plan is None or plan.gold is not None:
            return
        if not plan.under and not plan.only:  # what is under an award looks otherwise
            await self._look(state)
        name = 0
        for one in lent(state, self._context.peer):
            for inputs, output in await self._pairs(one):
                if name >= LENT_MAX:
                    return
                name += await self._lend(state, one, inputs, output)

    async def _look(self, state: JobState) -> None:
        """Remember how a job's sub-tasks look, if that is another look than the last one's."""
        for query, dress in dresses(state):
            known = self._dresses.pop(query, None)
            self._dresses[query] = dress
            if len(self._dresses) > _DRESSES_MAX:
                del self._dresses[next(iter(self._dresses))]
            if known != dress:
                await self._store.commit(Put(DRESSES, query, encode(dress)))

    async def _pairs(self, one: Lent) -> list[tuple[dict[str, JsonValue], JsonValue]]:
        """Return what went into a unit's calls and what came out, as far as it is kept here."""
        award = read_message(one.award, Award, network=self._context.network)
        held: dict[bytes, bytes] = {}
        for name in (*artifacts(award.inputs), one.output):
            data = await self._artifacts.local(name)
            if data is None:
                return []
            held[name] = data
        asked = assemble(award.inputs, award.each, award.items, held)
        output = parse(held[one.output])
        outputs = output if one.mapped and isinstance(output, list) else [output]
        return list(zip(asked, outputs, strict=True))

    async def _lend(
        self, state: JobState, one: Lent, inputs: dict[str, JsonValue], output: JsonValue
    ) -> bool:
        award = read_message(one.award, Award, network=self._context.network)
        try:
            name = await self.kept.add(
                award.capability,
                inputs,
                output,
                one.like,
                origin=state.job,
                seen=seen_by(state),
            )
        except InputInvalid as exc:  # too large, or there is no room
            self._context.emit("gold.not_lent", job=state.job, why=str(exc))
            return False
        self._context.emit("gold.lent", job=state.job, capability=award.capability, gold=name)
        return True
