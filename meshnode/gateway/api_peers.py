"""Who is meant: a peer, as an owner names it to his node.

People write a whole PeerId, the end of one as tables show it, or a name that the owner gave
when inviting.  His own names come first: anybody can make a key until its PeerId ends as it
should.  What several could be is nobody, since letters and payments go there.
"""

from typing import Final

from meshnode.errors import NotFound
from meshnode.node import Node
from protocol.errors import Malformed
from protocol.keys import public_key

#: As much of the end of a PeerId as tells who is meant, in characters.
_END_SIZE_MIN: Final = 6
_SHOWN_MAX: Final = 60


async def who_is_meant(node: Node, text: str, *, or_anybody: bool = False) -> str:
    """Return the PeerId of the peer that ``text`` names.

    Args:
        node: Whose owner says it.
        text: A PeerId, the end of one, or the name of an invited peer.
        or_anybody: A whole PeerId will do though this node never heard of it.

    Raises:
        NotFound: It names nobody, or several.
        StoreError: Those who wrote can't be read.
    """
    known = await _known(node)
    if text in known or (or_anybody and _is_peer_id(text)):
        return text
    found = [peer for peer in known if text and node.members.name_of(peer) == text]
    if not found and len(text) >= _END_SIZE_MIN:
        found = [peer for peer in known if peer.endswith(text)]
    if len(found) != 1:
        told = f"{len(found)} peers are called, or end in," if found else "there is no peer"
        here = "" if found else " here"
        raise NotFound(
            f"{told} {text[:_SHOWN_MAX]!r}{here}",
            hint=f"give a PeerId, {_END_SIZE_MIN} or more characters of its end, or the name"
            " of an invited one; see `meshnode peers`",
        )
    return found[0]


async def _known(node: Node) -> list[str]:
    """Return everyone of whom ``node`` knows, and itself."""
    known = {node.peer, *node.sessions.connected(), *node.ledger.balances.peers()}
    known |= {record.peer for record in node.known()}
    known |= {edge.peer for edge in node.members.edges()}
    known |= {*node.acquaintances.met}
    known |= {agent.partition("/")[0] for _, agent in node.reputation.known()}
    known |= {row.sender for _, row in await node.inbox.rows()}
    known |= {row.peer for _, row in await node.outbox.rows()}
    return sorted(known)


def _is_peer_id(text: str) -> bool:
    try:
        public_key(text)
    except Malformed:
        return False
    return True
