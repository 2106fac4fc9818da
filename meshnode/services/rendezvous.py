"""What the DHT is told and asked: how strangers find each other.

It is lossy: a put may find nobody, a lookup may miss, simultaneous joins hide each
other until a second round.  So everything is said again with jitter, and asking goes
on until several rounds bring nothing new.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import trio

from meshnode.domain.catalogue import Outcome
from meshnode.errors import Unreachable
from meshnode.ports import Directory, Emit
from meshnode.services.records import Intake
from protocol.records import CapabilityName, NodeRecord

#: Who brought a record, in the catalogue's accounts.
SOURCE: Final = "dht"
#: Every node is listed under this name too, so that nodes without a common neighbour
#: find one.
EVERYBODY: Final = "meshnode"

_FIRST_S: Final = 0.5  # joins are spread over this
_RETRY_S: Final = 0.5
_RETRY_S_MAX: Final = 30.0
_FETCHES_MAX: Final = 8
_PAUSE_S: Final = (0.05, 0.25)
_JITTER: Final = (0.75, 1.25)


class Rendezvous:
    """This node's use of the :class:`~meshnode.ports.Directory`."""

    def __init__(
        self,
        directory: Directory,
        intake: Intake,
        *,
        own: str,
        rng: Random,
        emit: Emit,
        interval_s: float,
    ) -> None:
        self._directory = directory
        self._intake = intake
        self._own = own
        self._rng = rng
        self._emit = emit
        self._interval_s = interval_s
        self._record = b""
        self._names: Sequence[str] = ()
        self._told = trio.Event()

    def tell(self, record: bytes, names: Sequence[str]) -> None:
        """Have ``record`` published soon, and then again and again."""
        self._record, self._names = record, names
        self._told.set()

    async def run(self) -> None:
        """Publish whatever was last told: when it is new, and at intervals."""
        await self._told.wait()
        await trio.sleep(self._rng.uniform(0, _FIRST_S))
        retry_s = _RETRY_S
        while True:
            self._told = trio.Event()
            try:
                await self.publish(self._record, self._names)
                wait_s, retry_s = self._interval_s, _RETRY_S
            except Unreachable as exc:
                self._emit("directory.provide_failed", why=str(exc))
                wait_s, retry_s = retry_s, min(retry_s * 2, _RETRY_S_MAX)
            with trio.move_on_after(wait_s * self._rng.uniform(*_JITTER)):
                await self._told.wait()

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """Publish once.

        Raises:
            Unreachable: No directory peer took it.
        """
        await self._directory.publish(record, names)
        self._emit("directory.provided", names=len(names))

    async def find(
        self,
        query: CapabilityName,
        *,
        timeout_s: float,
        patience: int,
        records_max: int | None = None,
    ) -> None:
        """Bring the records of those who offer ``query`` into the catalogue.

        Args:
            query: A path, with or without a version.
            timeout_s: When to stop at the latest.
            patience: Rounds without anything new after which to stop.
            records_max: How many new ones will do, drawn from all that are listed; each
                takes a lookup of its own.
        """
        listed: dict[str, None] = {}
        fetched: dict[str, None] = {}
        fruitless = 0
        with trio.move_on_after(timeout_s):
            while True:
                before = (len(listed), len(fetched))
                await self._list(query, listed)
                missing = [p for p in listed if p not in fetched and not self._knows(p, query)]
                room = len(missing) if records_max is None else records_max - len(fetched)
                if room < len(missing):
                    missing = self._rng.sample(missing, room)
                await self._fetch(missing, fetched)
                if records_max is not None and len(fetched) >= records_max:
                    return
                fruitless = 0 if (len(listed), len(fetched)) != before else fruitless + 1
                if fruitless >= patience:
                    return
                await trio.sleep(self._rng.uniform(*_PAUSE_S))

    async def everybody(self) -> None:
        """Bring some nodes of the mesh into the catalogue, whatever they offer."""
        peers = await self._directory.providers(EVERYBODY)
        unknown = [p for p in peers if p != self._own and self._record_of(p) is None]
        await self._fetch(unknown, {})

    async def record(self, peer: str) -> Outcome | None:
        """Look up one peer's record; None if the DHT has none."""
        envelope = await self._directory.record(peer)
        return self._intake.offer(envelope, source=SOURCE) if envelope is not None else None

    async def _list(self, query: CapabilityName, listed: dict[str, None]) -> None:
        # A prefix is listed without versions: `text@1` is looked for under `text` too.
        names = dict.fromkeys((str(query), query.path))

        async def ask(name: str) -> None:
            peers = await self._directory.providers(name)
            listed.update(dict.fromkeys(p for p in peers if p != self._own))

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)

    async def _fetch(self, peers: Sequence[str], fetched: dict[str, None]) -> None:
        limiter = trio.CapacityLimiter(_FETCHES_MAX)

        async def fetch(peer: str) -> None:
            async with limiter:
                outcome = await self.record(peer)
            if outcome is not None and not outcome.blames_source:
                fetched[peer] = None

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(fetch, peer)

    def _record_of(self, peer: str) -> NodeRecord | None:
        return self._intake.catalogue.record(peer, now_ms=self._intake.now_ms())

    def _knows(self, peer: str, query: CapabilityName) -> bool:
        record = self._record_of(peer)
        if record is None or self._intake.catalogue.is_demoted(peer):
            return False
        return any(query.covers(CapabilityName.parse(c.name)) for c in record.capabilities)
