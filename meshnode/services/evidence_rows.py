"""Evidence in the store: a row for each thing that was learned, in lists that only grow.

``capability/peer/name/number`` -> :class:`~meshnode.domain.trust.evidence.Evidence`.  Numbers
count up within one list, so that the order of the keys is the order in which it is folded.
A number may be missing: whose commit was refused is not used again.

Of a list that has grown long the beginning is kept as what it came to, kind by kind, in one
row: to go on from that gives the same bits, and takes no more room however long it was.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from meshnode.domain.trust.accounts import Carried, carry
from meshnode.domain.trust.evidence import Evidence
from meshnode.domain.trust.rules import RULES, Rules
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Store, Write

EVIDENCE: Final = "evidence"
#: ``capability/peer/name`` -> :class:`Begun`.
BEGUN: Final = "evidence_begun"
#: All rows: evidence is read at the start, 100,000 rows in less than a second.
ROWS_MAX: Final = 10_000_000

#: A list with more rows than the first is cut to the second.
LONG_ROWS: Final = 2_000
KEPT_ROWS: Final = 1_000


class Begun(msgspec.Struct, frozen=True):
    """The beginning of a list.

    Attributes:
        number: Rows with lower numbers are in it.
        carried: What they came to.
    """

    number: int
    carried: Carried


class Kept(NamedTuple):
    """An agent's list as the store has it.

    Attributes:
        begun: Its beginning, if that isn't kept row by row.
        rows: What follows, in their order.
    """

    begun: Begun | None
    rows: "list[Row]"

    @property
    def carried(self) -> Carried | None:
        """What came before the rows."""
        return self.begun.carried if self.begun else None


_EVIDENCE: Final = msgspec.msgpack.Decoder(Evidence)
_BEGUN: Final = msgspec.msgpack.Decoder(Begun)


class Row(NamedTuple):
    """One of them.

    Attributes:
        capability: Full name.
        agent: ``peer/name``.
        number: Its place in the list of that agent in that capability.
        event: What was learned.
    """

    capability: str
    agent: str
    number: int
    event: Evidence

    @property
    def write(self) -> Put:
        """What keeps it."""
        value = msgspec.msgpack.encode(self.event)
        return Put(EVIDENCE, evidence_key(self.capability, self.agent, self.number), value)


def evidence_key(capability: str, agent: str, number: int) -> str:
    """Return the key of a row."""
    return f"{list_key(capability, agent)}{number:012}"


def list_key(capability: str, agent: str) -> str:
    """Return what the keys of an agent's list begin with."""
    return f"{capability}/{agent}/"


def read_rows(found: Iterable[tuple[str, bytes]]) -> Iterator[Row]:
    """Return the rows of a scan.

    Raises:
        StoreError: One of them is none.
    """
    for key, raw in found:
        try:
            capability, peer, name, number = key.split("/")
            yield Row(capability, f"{peer}/{name}", int(number), _EVIDENCE.decode(raw))
        except (ValueError, msgspec.MsgspecError) as exc:
            raise StoreError(f"{EVIDENCE}/{key!r:.200} is no evidence: {exc}") from exc


async def read_begun(store: Store) -> dict[tuple[str, str], Begun]:
    """Return the beginning of every list of which there is one, by capability and agent.

    Raises:
        StoreError: It can't be read.
    """
    found: dict[tuple[str, str], Begun] = {}
    for key, raw in await store.scan(BEGUN, count_max=ROWS_MAX):
        capability, _, agent = key.partition("/")
        found[capability, agent] = _read_begun(key, raw)
    return found


async def read_list(store: Store, capability: str, agent: str) -> Kept:
    """Return an agent's list.

    Raises:
        StoreError: It can't be read.
    """
    prefix = list_key(capability, agent)
    while True:
        raw = await store.read(BEGUN, prefix[:-1])
        rows = list(read_rows(await store.scan(EVIDENCE, prefix, count_max=ROWS_MAX)))
        if raw == await store.read(BEGUN, prefix[:-1]):  # else it was cut in between
            return Kept(_read_begun(prefix, raw) if raw else None, rows)


def cut(kept: Kept, *, before: int | None, rules: Rules = RULES) -> list[Write]:
    """Return what cuts a long list to its newest rows; nothing if it isn't long.

    Args:
        kept: As the store has it.
        before: Rows from this number on stay, whatever their number; None for no such limit.
        rules: By which it is folded.
    """
    if len(kept.rows) <= LONG_ROWS:
        return []
    old = [r for r in kept.rows[:-KEPT_ROWS] if before is None or r.number < before]
    if not old:
        return []
    carried = carry((row.event for row in old), kept.carried, rules)
    begun = msgspec.msgpack.encode(Begun(old[-1].number + 1, carried))
    key = list_key(old[0].capability, old[0].agent)[:-1]
    return [Put(BEGUN, key, begun), *(Delete(EVIDENCE, row.write.key) for row in old)]


def _read_begun(key: str, raw: bytes) -> Begun:
    try:
        return _BEGUN.decode(raw)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"{BEGUN}/{key!r:.200} is no evidence: {exc}") from exc
