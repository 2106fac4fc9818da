"""What spot checks have shown of agents, kept: by capability and agent, a row each.

Rows of agents that were not asked for long make room for others; what they taught stays in the
evidence (:mod:`meshnode.services.evidence_rows`).
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshnode.domain.spot_checks import Outcome
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Store, Write

#: ``capability/peer/name`` -> :class:`SpotRow`.
SPOTS: Final = "spot"
#: Agents of which something is kept; the longest untouched are forgotten first.
AGENTS_MAX: Final = 1_024

#: Capability and agent.
Key = tuple[str, str]


class Out(msgspec.Struct, frozen=True):
    """A check that is under way.

    Attributes:
        key: Of its job.
        owner: Agent in whose record the example stands.
        example: Its name.
    """

    key: str
    owner: str
    example: bytes


class SpotRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen of an agent, and of its examples.

    Attributes:
        own: How it did its own examples, the oldest first.
        others: How often it was asked for another's.
        unlike: Of those it lost against the other.
        alike: How often another answered one of its examples as it says.
        gainsaid: How often otherwise.
        seen: Names of others' examples that it was asked for.
        out: What it is asked now.
        at_ms: When something was last asked, Unix time.
    """

    own: list[Outcome] = []
    others: int = 0
    unlike: int = 0
    alike: int = 0
    gainsaid: int = 0
    seen: list[bytes] = []
    out: Out | None = None
    at_ms: int = 0


_ROW: Final = msgspec.msgpack.Decoder(SpotRow)
_UNSEEN: Final = SpotRow()


class SpotRows:
    """See the module.  :meth:`load` first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[Key, SpotRow] = {}  # the longest untouched first

    async def load(self) -> None:
        """Take up what is kept.

        Raises:
            StoreError: It can't be read.
        """
        found: list[tuple[int, Key, SpotRow]] = []
        for key, raw in await self._store.scan(SPOTS, count_max=2 * AGENTS_MAX):
            capability, _, agent = key.partition("/")
            try:
                row = _ROW.decode(raw)
            except msgspec.MsgspecError as exc:
                raise StoreError(f"{SPOTS}/{key:.200} holds no checks: {exc}") from exc
            found.append((row.at_ms, (capability, agent), row))
        self._rows = {key: row for _, key, row in sorted(found, key=lambda one: one[:2])}

    def of(self, capability: str, agent: str) -> SpotRow:
        """Return what is kept of an agent; an empty row where that is nothing."""
        return self._rows.get((capability, agent), _UNSEEN)

    def under_way(self) -> Iterator[tuple[str, str, Out]]:
        """Yield capability and agent of the checks that are out."""
        for (capability, agent), row in self._rows.items():
            if row.out is not None:
                yield capability, agent, row.out

    async def keep(self, rows: Mapping[Key, SpotRow], *writes: Write) -> None:
        """Write rows down, with what belongs to them; forget the oldest where there are many.

        Raises:
            StoreError: The disk refused; all stays as it was.
        """
        spare = max(0, len({*self._rows, *rows}) - AGENTS_MAX)
        idle = (key for key, row in self._rows.items() if row.out is None and key not in rows)
        gone = [key for key, _ in zip(idle, range(spare), strict=False)]
        await self._store.commit(
            *(Put(SPOTS, "/".join(key), msgspec.msgpack.encode(r)) for key, r in rows.items()),
            *(Delete(SPOTS, "/".join(key)) for key in gone),
            *writes,
        )
        for key in (*gone, *rows):
            self._rows.pop(key, None)
        self._rows |= rows
