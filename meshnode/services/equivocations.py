"""Nodes that have contradicted themselves: found, told others, and banned for good.

A proof is two statements that one key signed and that can't both be meant.  Each is checked
here, whoever brought it, written down, and passed on once to every peer that there is a
session with, now or later.  Who is banned is believed nothing and let do nothing here.

A proof against this node itself bans nobody here: it tells its owner that the key is used
somewhere else, or that an old copy of the home was brought back.

Specified in protocol/spec/95-reputation.md.
"""

from typing import TYPE_CHECKING, Final

import msgspec
import trio

from meshnode.domain.trust.equivocation import Bans, contradiction
from meshnode.errors import MeshError
from meshnode.ports import Put
from meshnode.services.admission import Admission
from meshnode.services.context import Context
from meshnode.services.sessions import Incoming, Sessions
from protocol.codec import encode
from protocol.errors import RemoteProtocolError
from protocol.limits import PROOFS_MAX
from protocol.reputation import (
    PROOFS,
    Contradiction,
    Proofs,
    Statement,
    culprit_of,
    read_body,
)
from protocol.signing import peek

if TYPE_CHECKING:
    from collections.abc import Callable

#: PeerId -> the :class:`~protocol.reputation.Contradiction` that it is banned for.
BANS: Final = "ban"
#: Kept at once; made-up keys cost their maker little.
BANS_MAX: Final = 1_024
#: Peers that are remembered to have been told.
_TOLD_MAX: Final = 4_096
_REQUEST_S: Final = 10.0
#: Proofs are told again to who couldn't be told, seconds.
_AGAIN_S: Final = 300.0

_PROOF: Final = msgspec.msgpack.Decoder(Contradiction)


class Equivocations:
    """See the module.  :meth:`load` first, then :meth:`run`.

    Attributes:
        on_ban: Called with the PeerId of who is banned, at once.
    """

    def __init__(self, context: Context, *, sessions: Sessions, door: Admission) -> None:
        self._context = context
        self._sessions = sessions
        self._bans = Bans(network=context.network)
        self._told: dict[str, set[str]] = {}  # peer -> of whose bans it was told
        self._news = trio.Event()
        self.on_ban: Callable[[str], None] = lambda _: None
        sessions.handle(PROOFS, door.limited(self._on_proofs, PROOFS))
        sessions.on_change(self._session_changed)

    def is_banned(self, peer: str) -> bool:
        """Tell whether a peer has contradicted itself."""
        return peer in self._bans

    def proof(self, peer: str) -> Contradiction | None:
        """Return by which proof a peer is banned."""
        return self._bans.proof(peer)

    async def load(self) -> None:
        """Take up who was banned before.

        Raises:
            StoreError: It can't be read.
        """
        for peer, raw in await self._context.store.scan(BANS, count_max=BANS_MAX):
            try:
                self._bans.add(_PROOF.decode(raw))
            except (msgspec.MsgspecError, RemoteProtocolError) as exc:  # such as another mesh's
                self._context.emit("ban.unreadable", peer=peer, why=str(exc))

    async def compare(self, statement: Statement, one: bytes, other: bytes) -> None:
        """Ban whoever signed both, if they contradict each other.

        Raises:
            RemoteProtocolError: One of them is forged, or no such statement.
            StoreError: It can't be written down.
        """
        if one != other:
            proof = contradiction(statement, one, other, network=self._context.network)
            if proof is not None:
                await self._take(proof, source="")

    async def _take(self, proof: Contradiction, *, source: str) -> None:
        culprit = culprit_of(proof, network=self._context.network)
        if source:
            self._told.setdefault(source, set()).add(culprit)
        if culprit == self._context.peer:
            self._context.emit("ban.of_this_node", statement=proof.statement, peer=source)
            return
        if culprit in self._bans:
            return
        if len(self._bans.proofs()) >= BANS_MAX:
            self._context.emit("ban.no_room", peer=culprit)
            return
        await self._context.store.commit(Put(BANS, culprit, encode(proof)))
        self._bans.add(proof)
        self._context.emit("peer.banned", peer=culprit, statement=proof.statement)
        self.on_ban(culprit)
        self._stir()

    async def _on_proofs(self, incoming: Incoming) -> bytes:
        proofs = read_body(incoming.body, Proofs).proofs
        for proof in proofs:
            await self._take(proof, source=incoming.peer)
        return b""

    # --- telling ---

    async def run(self) -> None:
        """Pass on what is known to whom it isn't, until cancelled."""
        while True:
            self._news = trio.Event()
            for peer in self._sessions.connected():
                await self._tell(peer)
            with trio.move_on_after(_AGAIN_S):
                await self._news.wait()

    async def _tell(self, peer: str) -> None:
        known = self._told.get(peer, set())
        due = [
            (culprit, proof)
            for proof in self._bans.proofs()
            if (culprit := peek(proof.first).i) not in known and culprit != peer
        ]
        for first in range(0, len(due), PROOFS_MAX):
            some = due[first : first + PROOFS_MAX]
            body = encode(Proofs([proof for _, proof in some]))
            try:
                await self._sessions.request(peer, PROOFS, body, timeout_s=_REQUEST_S)
            except MeshError as exc:
                self._context.emit("ban.untold", peer=peer, why=str(exc))
                return
            self._told.setdefault(peer, set()).update(culprit for culprit, _ in some)
        while len(self._told) > _TOLD_MAX:
            del self._told[next(iter(self._told))]

    def _session_changed(self, _peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened and self._bans.proofs():
            self._stir()

    def _stir(self) -> None:
        self._news.set()
