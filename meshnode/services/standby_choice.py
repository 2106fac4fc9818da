"""Choosing who is to stand by for a job: those who were named, or those who offer it."""

from collections.abc import Sequence
from typing import Final

from meshnode.errors import NoStandbys
from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.sessions import Sessions
from meshnode.services.standbys import FEATURE
from protocol.limits import STANDBYS_MAX, STANDBYS_MIN

#: How long those who offer it are looked for, seconds.
_SEARCH_S: Final = 5.0


class StandbyChoice:
    """See the module."""

    def __init__(
        self, context: Context, *, sessions: Sessions, directory: DirectoryService
    ) -> None:
        self._own = context.peer
        self._sessions = sessions
        self._directory = directory

    async def choose(self, standbys: int | Sequence[str]) -> list[str]:
        """Return who is to stand by: those named, or so many that offer it.

        Raises:
            NoStandbys: There are not so many, or so many can't be.
        """
        wanted = standbys if isinstance(standbys, int) else len(standbys)
        if not STANDBYS_MIN <= wanted <= STANDBYS_MAX:
            raise NoStandbys(
                f"{wanted} standbys", hint=f"{STANDBYS_MIN} to {STANDBYS_MAX}, or none"
            )
        if not isinstance(standbys, int):
            return list(standbys)
        found = self._offering()
        if len(found) < wanted:
            await self._directory.search_featuring(FEATURE, timeout_s=_SEARCH_S)
            found = self._offering()
        if len(found) < wanted:
            raise NoStandbys(
                f"{wanted} standbys are wanted, and {len(found)} nodes are known that stand"
                " by for others",
                hint="`[standby] enabled = true` in a node's settings lets it do so",
            )
        return found[:wanted]

    def _offering(self) -> list[str]:
        """Return who stands by for others, who is connected and near first."""
        there = set(self._sessions.connected())
        peers = [p for p in self._directory.featuring(FEATURE) if p != self._own]

        def place(peer: str) -> tuple[bool, int, str]:
            trip_ms = self._sessions.round_trip_ms(peer)
            return peer not in there, trip_ms if trip_ms is not None else 1 << 30, peer

        return sorted(peers, key=place)
