"""When a broker has the directory asked for more agents that can do something.

A search brings a few of those that are listed (:data:`_FOUND_MAX`): each record takes a
lookup of its own, and most jobs need no more.  So the next one is due while those that are
known have no room for what there is to do, ever more rarely while it brings nobody new.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from meshnode.domain.matching import QUEUE_UNITS, Candidate
from meshnode.errors import MeshError
from meshnode.services.context import Context
from protocol.records import Capability, NodeRecord

#: A capability is searched for again after this at the earliest, seconds.
_SEARCH_S: Final = 3.0
#: New providers that one search brings, of however many there are.
_FOUND_MAX: Final = 16
#: After so many searches in a row that brought nobody new the pause grows no more.
_FRUITLESS_MAX: Final = 5

Provider = tuple[NodeRecord, Capability]


class Finder(Protocol):
    """What the market needs from the directory service."""

    def providers(self, capability: str) -> Sequence[Provider]:
        """Return what is known here."""

    async def search(
        self, capability: str, *, timeout_s: float, records_max: int | None = None
    ) -> Sequence[Provider]:
        """Look for providers everywhere, until so many are found."""

    def known(self) -> Sequence[NodeRecord]:
        """Return every record that is known here."""

    def failed(self, peer: str) -> None:
        """Note that ``peer`` could not be reached."""


class Looking:
    """The searches of one broker."""

    def __init__(self, context: Context, finder: Finder, tell: Callable[[], None]) -> None:
        """Search with ``finder``, and ``tell`` whenever a search has ended."""
        self._context = context
        self._finder = finder
        self._tell = tell
        self._searched_s: dict[str, float] = {}
        self._fruitless: Counter[str] = Counter()  # searches in a row

    def try_begin(self, query: str, found: Sequence[Candidate], units: int) -> bool:
        """Tell whether to search now for more than were ``found``, and note that it is done.

        Who is known and gone says nothing of others who aren't known.

        Args:
            query: What for.
            found: Who is known.
            units: How many there are to do.
        """
        now_s = trio.current_time()
        rooms = [one.concurrency + QUEUE_UNITS for one in found if not one.troubled]
        pause_s = _SEARCH_S * (2 ** self._fruitless[query] if rooms else 1)
        if sum(rooms) >= max(units, 1):
            return False
        if now_s < self._searched_s.get(query, -pause_s) + pause_s:
            return False
        self._searched_s[query] = now_s
        return True

    async def search(self, query: str) -> None:
        """Search once, in the background; what comes of it is told."""
        known = len(self._finder.providers(query))
        try:
            await self.find(query, timeout_s=2 * _SEARCH_S)
        except MeshError as exc:
            self._context.emit("market.search_failed", capability=query, why=str(exc))
        if len(self._finder.providers(query)) > known:
            self._fruitless[query] = 0
        else:
            self._fruitless[query] = min(self._fruitless[query] + 1, _FRUITLESS_MAX)
        self._tell()

    async def find(self, query: str, *, timeout_s: float) -> None:
        """Look for some who offer ``query``, for so long at most."""
        await self._finder.search(query, timeout_s=timeout_s, records_max=_FOUND_MAX)
