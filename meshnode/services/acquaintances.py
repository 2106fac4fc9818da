"""Whom this node was with, and where, kept through a restart.

A node that comes back may be told nothing, and its inviter may have moved or gone, while
others of the mesh are where they were.  A few are remembered, members before strangers
and the latest before the rest: enough to find one, too few to be worth filling up.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

import msgspec
import trio

from meshnode.errors import StoreError
from meshnode.ports import Put
from meshnode.services.context import Context
from meshnode.services.sessions import Sessions

_TABLE: Final = "acquaintances"
_KEY: Final = "met"
#: How many are remembered.
MET_MAX: Final = 16
#: Addresses that are remembered of each, and characters of one.
_ADDRESSES_MAX: Final = 4
_ADDRESS_SIZE_MAX: Final = 256
#: When is looked who is there, seconds: soon after the start, so long after somebody came,
#: and now and then for those who have moved meanwhile.
_FIRST_S: Final = 2.0
_LOOK_S: Final = 30.0
_AGAIN_S: Final = 600.0

_Met = dict[str, tuple[str, ...]]
_DECODER: Final = msgspec.msgpack.Decoder(_Met)


class Acquaintances:
    """See the module.  :meth:`load` first, then :meth:`run`.

    Args:
        context: This node.
        sessions: Who is there.
        is_member: Whether a peer is of this node's mesh.
        addresses: Where a peer can be dialled, as its own record says.
    """

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        is_member: Callable[[str], bool],
        addresses: Callable[[str], Sequence[str]],
    ) -> None:
        self._store = context.store
        self._emit = context.emit
        self._sessions = sessions
        self._is_member = is_member
        self._addresses = addresses
        self._met: _Met = {}  # the latest first
        self._somebody = trio.Event()
        sessions.on_change(self._session_changed)

    def _session_changed(self, _peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened:
            self._somebody.set()
            self._somebody = trio.Event()

    @property
    def met(self) -> Mapping[str, Sequence[str]]:
        """PeerId -> where to dial it, the latest first."""
        return self._met

    async def load(self) -> None:
        """Take up who was there before.

        Raises:
            StoreError: What is there can't be read.
        """
        raw = await self._store.read(_TABLE, _KEY)
        if raw is None:
            return
        try:
            self._met = _DECODER.decode(raw)
        except msgspec.MsgspecError as exc:
            raise StoreError(f"{_TABLE}/{_KEY} names no peers: {exc}") from exc

    async def run(self) -> None:
        """Note who is there, now and then, until cancelled."""
        await trio.sleep(_FIRST_S)
        while True:
            somebody = self._somebody
            try:
                await self.note()
            except StoreError as exc:
                self._emit("acquaintances.unsaved", why=str(exc))
            with trio.move_on_after(_AGAIN_S if self._sessions.connected() else inf):
                await somebody.wait()
            await trio.sleep(_LOOK_S)

    async def note(self) -> None:
        """Remember who is there now; written down if that is news.

        Raises:
            StoreError: The disk refused; it is tried again.
        """
        here = {
            peer: places
            for peer in self._sessions.connected()
            if (places := self._places(peer))
        }
        known = {**here, **{p: a for p, a in self._met.items() if p not in here}}
        # Sorting keeps the order of those that are alike: the latest first.
        kept = sorted(known, key=lambda peer: not self._is_member(peer))[:MET_MAX]
        met = {peer: known[peer] for peer in kept}
        if met == self._met:  # whoever is there, in whatever order
            await trio.lowlevel.checkpoint()
            return
        await self._store.commit(Put(_TABLE, _KEY, msgspec.msgpack.encode(met)))
        self._met = met

    def _places(self, peer: str) -> tuple[str, ...]:
        told = [one for one in self._addresses(peer) if len(one) <= _ADDRESS_SIZE_MAX]
        return tuple(told[:_ADDRESSES_MAX])
