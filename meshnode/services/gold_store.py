"""Tasks whose answer this node knows, kept: what is asked, what is right, who has seen it.

They come from this node's owner, or from jobs whose owner lends them, and from nowhere else.
A gold that somebody answered wrongly isn't given again: who was caught knows it now, and so do
his accomplices; and if the answer that stands here is the wrong one, it hurts nobody else.
Of the others the least given goes first, since any number of names may share what they saw.

Who saw a gold is remembered by node: agents of one node share what they see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from meshnode.domain.gold_tasks import Dress, each_of
from meshnode.domain.values import canonical, parse
from meshnode.errors import InputInvalid, NotFound
from meshnode.ports import Delete, JsonValue, Put, Write
from meshnode.services.context import Context
from protocol.codec import decode_as, encode
from protocol.errors import Malformed
from protocol.graph import EXACT, Likeness
from protocol.keys import digest
from protocol.records import CapabilityName

#: ``capability/id`` -> :class:`GoldRow`.
GOLDS: Final = "gold"
#: ``id`` -> :class:`GoldBody`.
BODIES: Final = "gold_body"
#: ``peer/id`` -> :class:`GivenRow`.
GIVEN: Final = "gold_given"

#: Origin of what this node's owner gave; else it is the id of a job.
OWNER: Final = "owner"
#: Golds of one capability; lent ones make room for others, the owner's don't.
GOLDS_MAX: Final = 500
INPUTS_BYTES_MAX: Final = 64 * 1024
OUTPUT_BYTES_MAX: Final = 16 * 1024
#: Nodes that one gold is given to.
USES_MAX: Final = 32
#: Golds in one job.
MAPPED_MAX: Final = 4
#: Who has seen a gold that is kept no longer is remembered for a year.
SEEN_MS: Final = 365 * 86_400_000
_ROWS_MAX: Final = 1_000_000
_ID_HEX: Final = 16

Came = Literal["", "passed", "failed", "absent", "nothing", "unfit", "seen"]


class GoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """A gold in the list of them.

    Attributes:
        origin: :data:`OWNER`, or the job that lent it.
        added_ms: Unix time.
        expires_ms: Until when it is kept; 0 for as long as nobody removes it.
        given: To so many nodes.
        passed: So often.
        failed: So often since its answer was last said.
        absent: So often there was no answer.
    """

    origin: str
    added_ms: int
    expires_ms: int = 0
    given: int = 0
    passed: int = 0
    failed: int = 0
    absent: int = 0


class GoldBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and what is right: RFC 8785 JSON."""

    inputs: bytes
    output: bytes
    like: Likeness = EXACT


class GivenRow(msgspec.Struct, frozen=True, kw_only=True):
    """That a node has seen a gold.

    Attributes:
        capability: Full name.
        agent: ``peer/name`` that was asked; empty if it saw it otherwise.
        key: Of the job, the same for all golds in it; empty likewise.
        place: Among those.
        at_ms: Unix time.
        cost_mc: Most that it may cost, while it is out; then what it came to.
        unasked: No task of this node's was waiting for it.
        came: What came of it; empty while it is out, ``seen`` where nobody was asked.
    """

    capability: str
    agent: str = ""
    key: str = ""
    place: int = 0
    at_ms: int = 0
    cost_mc: int = 0
    unasked: bool = False
    came: Came = ""


GOLD_ROW: Final = msgspec.msgpack.Decoder(GoldRow)
_BODY: Final = msgspec.msgpack.Decoder(GoldBody)
GIVEN_ROW: Final = msgspec.msgpack.Decoder(GivenRow)


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold, with all there is of it.

    Attributes:
        capability: Full name.
        name: Its id.
        row: In the list.
        inputs: Of one call.
        output: The right one, as RFC 8785 JSON.
        like: When another answer says the same.
    """

    capability: str
    name: str
    row: GoldRow
    inputs: dict[str, JsonValue]
    output: bytes
    like: Likeness

    @property
    def key(self) -> str:
        """Where its row stands."""
        return f"{self.capability}/{self.name}"


class GoldStore:
    """See the module.

    Attributes:
        kinds: The capabilities that there are golds for.
    """

    def __init__(self, context: Context) -> None:
        self.kinds: frozenset[str] = frozenset()
        self._store = context.store
        self._clock = context.clock
        self._rng = context.rng
        self._history_ms = round(context.config.host.history_s * 1000)

    # --- what is kept ---

    async def add(
        self,
        capability: str,
        inputs: JsonValue,
        output: JsonValue,
        like: Likeness = EXACT,
        *,
        origin: str = OWNER,
        seen: Sequence[str] = (),
    ) -> str:
        """Keep a gold and return its id.  The same inputs again replace the answer.

        Args:
            capability: Full name.
            inputs: Of one call.
            output: The right one.
            like: When another answer says the same.
            origin: See :class:`GoldRow`.
            seen: PeerIds that aren't to get it.

        Raises:
            InputInvalid: It is none; says why.
            StoreError: The disk refused.
        """
        body = _body(capability, inputs, output, like)
        name = digest(f"{capability}\0".encode() + body.inputs).hex()[:_ID_HEX]
        now_ms = self._clock.now_ms()
        lent = origin != OWNER
        known = await self._store.read(GOLDS, f"{capability}/{name}")
        row = GoldRow(
            origin=origin, added_ms=now_ms, expires_ms=now_ms + self._history_ms if lent else 0
        )
        writes: list[Write] = []
        if known is None:
            writes += await self._room(capability)
        elif lent:
            return name  # what is there was there before
        else:
            was = decode_as(known, GOLD_ROW)
            row = msgspec.structs.replace(was, origin=OWNER, expires_ms=0, failed=0)
        writes += [
            Put(GOLDS, f"{capability}/{name}", encode(row)),
            Put(BODIES, name, encode(body)),
        ]
        writes += [
            Put(
                GIVEN,
                f"{peer}/{name}",
                encode(GivenRow(capability=capability, at_ms=now_ms, came="seen")),
            )
            for peer in seen
        ]
        await self._store.commit(*writes)
        self.kinds |= {capability}
        return name

    async def _room(self, capability: str) -> list[Write]:
        """Return what makes room for one more.

        Raises:
            InputInvalid: There is none.
        """
        rows = await self._scan(capability)
        if len(rows) < GOLDS_MAX:
            return []
        old = [(row.added_ms, key) for key, row in rows if row.origin != OWNER]
        if not old:
            raise InputInvalid(
                f"{GOLDS_MAX} golds for {capability} are kept already",
                hint="remove some: `meshnode gold remove`",
            )
        return _removed(min(old)[1])

    async def remove(self, named: str) -> list[str]:
        """Forget a gold by the beginning of its id, or all of a capability; return their ids.

        Who has seen them is remembered.

        Raises:
            NotFound: There is none, or more than one begins so.
            StoreError: The disk refused.
        """
        rows = [key for key, _ in await self._scan("")]
        found = [key for key in rows if key.partition("/")[0] == named]
        if not found:
            found = [key for key in rows if named and key.partition("/")[2].startswith(named)]
            if len(found) != 1:
                raise NotFound(
                    f"{len(found) or 'no'} golds begin with {named[:60]!r}",
                    hint="see `meshnode gold list`",
                )
        await self._store.commit(*(write for key in found for write in _removed(key)))
        await self.load()
        return [key.partition("/")[2] for key in found]

    async def rows(self, capability: str = "") -> list[Gold]:
        """Return what is kept, of one capability or all, in the order of their names."""
        return [await self._whole(key, row) for key, row in await self._scan(capability)]

    async def load(self) -> None:
        """Look what there is.

        Raises:
            StoreError: It can't be read.
        """
        self.kinds = frozenset(key.partition("/")[0] for key, _ in await self._scan(""))

    async def _scan(self, capability: str) -> list[tuple[str, GoldRow]]:
        begins = f"{capability}/" if capability else ""
        rows = await self._store.scan(GOLDS, begins, count_max=_ROWS_MAX)
        return [(key, decode_as(raw, GOLD_ROW)) for key, raw in rows]

    async def _whole(self, key: str, row: GoldRow) -> Gold:
        capability, _, name = key.partition("/")
        raw = await self._store.read(BODIES, name)
        if raw is None:
            raise NotFound(f"gold {name} has gone meanwhile")
        body = decode_as(raw, _BODY)
        inputs = parse(body.inputs)
        assert isinstance(inputs, dict)
        return Gold(capability, name, row, inputs, body.output, body.like)

    # --- who sees it ---

    async def choose(self, capability: str, peer: str, dress: Dress) -> list[Gold]:
        """Return golds that ``peer`` hasn't seen, for one job: one, or several of a map.

        Those of a map differ in what it maps over alone.
        """
        now_ms = self._clock.now_ms()
        seen = {
            key.partition("/")[2]
            for key, _ in await self._store.scan(GIVEN, f"{peer}/", count_max=_ROWS_MAX)
        }
        fit = [
            (row.given, self._rng.random(), key, row)
            for key, row in await self._scan(capability)
            if key.partition("/")[2] not in seen
            and row.given < USES_MAX
            and not row.failed
            and not 0 < row.expires_ms <= now_ms
        ]
        fit.sort()
        found: list[Gold] = []
        for _, _, key, row in fit[: 4 * MAPPED_MAX]:
            gold = await self._whole(key, row)
            each = each_of(dress, gold.inputs)
            if not found or _goes_with(gold, found[0], each):
                found.append(gold)
            if len(found) >= min(MAPPED_MAX, dress.items) or not each_of(
                dress, found[0].inputs
            ):
                break
        return found

    async def given(self) -> list[tuple[str, GivenRow]]:
        """Return who has seen what: ``peer/id`` and row."""
        rows = await self._store.scan(GIVEN, count_max=_ROWS_MAX)
        return [(key, decode_as(raw, GIVEN_ROW)) for key, raw in rows]

    async def counted(self, capability: str, name: str, came: Came, by: int = 1) -> list[Write]:
        """Return what counts that something came of a gold; nothing if it is kept no longer."""
        key = f"{capability}/{name}"
        raw = await self._store.read(GOLDS, key)
        if raw is None:
            return []
        row = decode_as(raw, GOLD_ROW)
        field = came if came in {"passed", "failed", "absent"} else "given"
        row = msgspec.structs.replace(row, **{field: getattr(row, field) + by})
        return [Put(GOLDS, key, encode(row))]

    async def forget_old(self) -> int:
        """Forget lent golds past their time, and who saw what is long gone; return how many.

        Raises:
            StoreError: The disk refused.
        """
        now_ms = self._clock.now_ms()
        rows = await self._scan("")
        old = [key for key, row in rows if 0 < row.expires_ms <= now_ms]
        kept = {key.partition("/")[2] for key, _ in rows} - {
            key.partition("/")[2] for key in old
        }
        writes: list[Write] = [write for key in old for write in _removed(key)]
        for key, row in await self.given():
            if key.partition("/")[2] not in kept and row.at_ms + SEEN_MS <= now_ms:
                writes.append(Delete(GIVEN, key))
        if writes:
            await self._store.commit(*writes)
            await self.load()
        return len(old)


def _removed(key: str) -> list[Write]:
    return [Delete(GOLDS, key), Delete(BODIES, key.partition("/")[2])]


def _goes_with(gold: Gold, first: Gold, each: Sequence[str]) -> bool:
    """Tell whether two golds can be items of one map over ``each``."""
    if gold.inputs.keys() != first.inputs.keys() or gold.like != first.like:
        return False
    return all(gold.inputs[name] == first.inputs[name] for name in gold.inputs.keys() - {*each})


def _body(capability: str, inputs: JsonValue, output: JsonValue, like: Likeness) -> GoldBody:
    """Return a gold's body.

    Raises:
        InputInvalid: It is none; says why.
    """
    try:
        name = CapabilityName.parse(capability)
    except Malformed as exc:
        raise InputInvalid(str(exc)) from exc
    if not name.major:
        raise InputInvalid(
            f"{capability} has no version", hint=f"say which, such as {capability}@1"
        )
    if not isinstance(inputs, dict) or not inputs:
        raise InputInvalid("the inputs of a gold are an object", hint='{"text": "so"}, say')
    if like.kind == "embedding":
        raise InputInvalid("that texts mean the same shows nothing", hint="compare otherwise")
    asked, right = canonical(inputs), canonical(output)
    for what, data, size_max in (
        ("inputs", asked, INPUTS_BYTES_MAX),
        ("output", right, OUTPUT_BYTES_MAX),
    ):
        if len(data) > size_max:
            raise InputInvalid(
                f"the {what} of a gold are {len(data)} bytes", hint=f"{size_max} at most"
            )
    return GoldBody(inputs=asked, output=right, like=like)
