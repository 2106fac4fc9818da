"""P10: what one more idle connected peer weighs.

A node runs in a process of its own, the peers in another, so that only the node's side is
measured.  A few peers come first: what they make the node load is not theirs.  Then come
many, and once nothing moves any more the growth is theirs.

``P10.peer`` is a peer with a session, as every member is: its streams and heartbeat, its
record, what its neighbour knows of it.  ``P10.peer.connection`` has a connection only.
"""

from typing import Final

import trio

from meshnode.bench.contest import Contestant, started
from meshnode.bench.figures import Figure, Told
from meshnode.errors import MeshError

_NODE: Final = Contestant("the node", "meshnode.bench.memory_hop")
_FIRST: Final = 8
_PEERS: Final = 64
_PEERS_S: Final = 300.0
#: Until everything that joining sets off is over, seconds.
_SETTLE_S: Final = 3.0
_GOAL_KB: Final = 150
_WHAT: Final = {
    "P10.peer": ("session", "with a session and its record"),
    "P10.peer.connection": ("connection", "with a connection and nothing else"),
}


def peer_figures(told: Told) -> list[Figure]:
    """Measure.

    Raises:
        MeshError: A process failed, or peers went away; says which and why.
    """
    return trio.run(_peer_figures, told)


async def _peer_figures(told: Told) -> list[Figure]:
    made: list[Figure] = []
    for name, (part, what) in _WHAT.items():
        told(f"memory, {_PEERS} peers {what}")
        grown, sessions = await grown_bytes(part, _FIRST, _PEERS, settle_s=_SETTLE_S)
        if part == "session" and sessions != _PEERS:
            raise MeshError(f"of {_PEERS} peers {sessions} have a session")
        note = f"growth of RSS by {_PEERS} idle peers from another process, {what}"
        value = grown / _PEERS / 1e3
        made.append(Figure(id=name, value=value, unit="kB", goal=_GOAL_KB, n=_PEERS, note=note))
    return made


async def grown_bytes(part: str, first: int, peers: int, *, settle_s: float) -> tuple[int, int]:
    """Return by how much a node grows with ``peers`` more of them, in bytes and in sessions.

    Args:
        part: What they do: ``session`` or ``connection``.
        first: How many come before, and don't count.
        peers: How many count.
        settle_s: How long to wait before it is measured.

    Raises:
        MeshError: A process failed; says which and why.
    """
    async with (
        started(_NODE, ("callee",), None) as (node, address),
        started(_NODE, (part, address), None) as (others, _),
    ):
        await others.answer(_PEERS_S, calls=first)
        await trio.sleep(settle_s)
        before, sessions_before = await node.memory()
        await others.answer(_PEERS_S, calls=peers)
        await trio.sleep(settle_s)
        after, sessions_after = await node.memory()
        return after - before, sessions_after - sessions_before
