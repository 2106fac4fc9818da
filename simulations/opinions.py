"""What nodes believe of agents is what is on their disks, to the bit, and was taught once.

Read from the disks beside the nodes: a node that starts again would believe the same.
"""

from collections.abc import Iterator

import msgspec

from meshnode.domain.trust.accounts import Carried, carry
from meshnode.node import Node
from meshnode.services.evidence_rows import BEGUN, EVIDENCE, Begun, Row, read_rows
from simulations.estate import Holder
from simulations.mesh import SimMesh

_BEGUN = msgspec.msgpack.Decoder(Begun)


def check_opinions(mesh: SimMesh) -> Iterator[str]:
    """Return what is wrong with what is believed, one line each; the mesh is at rest."""
    for name, member in mesh.members.items():
        lists = _lists(member)
        for (_, agent), rows in lists.items():
            yield from _taught_twice(name, agent, rows)
        if member.life is not None:
            yield from _check_books(name, member, member.life.node, lists)


def _check_books(
    name: str, member: Holder, node: Node, lists: dict[tuple[str, str], list[Row]]
) -> Iterator[str]:
    begun = member.disk.tables.get(BEGUN, {})
    known = set(node.reputation.known())
    for capability, agent in sorted(known.union(lists)):
        if node.reputation.is_learning(capability, agent):
            continue
        carried: Carried | None = None
        if (raw := begun.get(f"{capability}/{agent}")) is not None:
            carried = _BEGUN.decode(raw).carried
        rows = lists.get((capability, agent), [])
        there = carry((row.event for row in rows), carried, node.reputation.rules).standing
        if node.reputation.seen(capability, agent) != there:
            yield f"{name} believes of {agent} what its disk doesn't say"


def _taught_twice(name: str, agent: str, rows: list[Row]) -> Iterator[str]:
    """What taught something taught it once, however often it was come back to."""
    taught: set[tuple[bytes, str]] = set()
    for event in (row.event for row in rows if row.event.source):
        if (event.source, event.kind) in taught:
            yield f"{name} learned twice that {agent} {event.kind}: {event.source.hex()[:12]}"
        taught.add((event.source, event.kind))


def _lists(member: Holder) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(sorted(member.disk.tables.get(EVIDENCE, {}).items())):
        found.setdefault((row.capability, row.agent), []).append(row)
    return found
