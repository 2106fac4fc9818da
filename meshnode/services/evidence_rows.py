"""Evidence in the store: a row for each thing that was learned, in lists that only grow.

``capability/peer/name/number`` -> :class:`~meshnode.domain.trust.evidence.Evidence`.  Numbers
count up within one list, so that the order of the keys is the order in which it is folded.
A number may be missing: whose commit was refused is not used again.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from meshnode.domain.trust.evidence import Evidence
from meshnode.errors import StoreError
from meshnode.ports import Put

EVIDENCE: Final = "evidence"
#: All rows: evidence is read at the start, 100,000 rows in less than a second.
ROWS_MAX: Final = 10_000_000

_EVIDENCE: Final = msgspec.msgpack.Decoder(Evidence)


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
