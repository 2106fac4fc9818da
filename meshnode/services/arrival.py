"""What came of joining: whether somebody is there, and whether this node is one of them.

A node that joins by an address talks with the nodes of a mesh, and is no member of it: who
works for members only refuses its jobs.  Its owner is told at once, and what to do, and
not by the first job that nobody takes.  A node with an invite is a member as soon as its
inviter is there, and is told by what becomes of the invite.
"""

from typing import Final

import trio

from meshnode.config import NodeConfig
from meshnode.ports import Emit
from meshnode.services.joining import Joining
from meshnode.services.membership import Members
from meshnode.services.sessions import Sessions

#: Who couldn't be asked whose member it is, is asked again after this, seconds.
_AGAIN_S: Final = 5.0


class Arrival:
    """See the module.

    Args:
        joining: Whom this node was told, and dials.
        members: Who is of its mesh.
        sessions: Who is there.
        config: What it was told.
        emit: Telemetry.
    """

    def __init__(
        self,
        joining: Joining,
        *,
        members: Members,
        sessions: Sessions,
        config: NodeConfig,
        emit: Emit,
    ) -> None:
        self._has_invite = bool(config.invites)
        self._joining = joining
        self._members = members
        self._sessions = sessions
        self._emit = emit
        self._asked: dict[str, None] = {}  # of those who were told: whose mesh is known
        self._looked = trio.Event()
        self._news = trio.Event()
        sessions.on_change(self._session_changed)

    async def run(self) -> None:
        """Find out whose members those are whom this node was told, until cancelled."""
        while not self._has_invite:
            self._news = trio.Event()
            waiting = [peer for peer in self._there() if peer not in self._asked]
            for peer in waiting:
                if not await self._members.meet(peer):
                    continue
                self._asked[peer] = None
                self._looked.set()
                if not self._members.is_member(peer):
                    self._emit("membership.stranger", peer=peer, why=_stranger(peer))
            with trio.move_on_after(_AGAIN_S if waiting else float("inf")):
                await self._news.wait()

    async def text(self, *, within_s: float) -> str:
        """Say what is wrong with where this node has come to, or nothing.

        Waits until it is known, for so long at most.
        """
        with trio.move_on_after(within_s):
            await self._joining.tried.wait()
            if self._there() and not self._has_invite:
                await self._looked.wait()
        told = self._joining.told
        if told and not self._sessions.connected():
            peer, place = next(iter(told.items()))
            others = f" or {len(told) - 1} more" if len(told) > 1 else ""
            return (
                f"nobody has answered at {place}/p2p/{peer}{others} yet; this node keeps"
                " trying (check that a node runs there and can be reached from here)"
            )
        strangers = [peer for peer in self._there() if not self._members.is_member(peer)]
        if strangers and strangers == self._there() and self._looked.is_set():
            return _stranger(strangers[0])
        return ""

    def _there(self) -> list[str]:
        """Return those whom this node was told and has a session with."""
        told = self._joining.told
        return [peer for peer in self._sessions.connected() if peer in told]

    def _session_changed(self, _peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened:
            self._news.set()


def _stranger(peer: str) -> str:
    return (
        f"this node is no member of the mesh of {peer}: nodes that work for members only,"
        " as they do unless told otherwise, refuse its jobs; get an invite from one of them"
        " (`meshnode invite`) and start with --join INVITE"
    )
