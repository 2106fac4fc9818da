"""A directory in memory that is as bad as the real one, or better.

The real one is a Kademlia DHT: lookups miss, answers are old, a put may find
nobody, and who has died stays listed until the entry lapses.  This one has all
that as options, from one seed.  Like the real one it looks at a record no further
than a ``validate`` tells it to, and of several records of one peer the highest
sequence wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import trio

from meshnode.errors import Unreachable
from simulations.trace import Trace

#: ``validate(peer, record)`` returns the record's sequence, or None to refuse it.
Validate = Callable[[str, bytes], int | None]


@dataclass(frozen=True, slots=True)
class Lossiness:
    """How bad a directory is; the default is perfect.

    Attributes:
        miss_chance: Chance that a lookup finds nothing, and that it misses any one
            provider.
        stale_chance: Chance that a lookup returns the record before the last.
        publish_failure_chance: Chance that no directory peer takes a record.
        latency_s: Fixed part of what an operation takes, seconds.
        jitter_s: Upper end of its uniform random part, seconds.
        lifetime_s: After this an entry is gone unless published again, seconds.
    """

    miss_chance: float = 0.0
    stale_chance: float = 0.0
    publish_failure_chance: float = 0.0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    lifetime_s: float = 24 * 3600.0


#: What was measured on the real one with 50 processes, roughly.
LIKE_KADEMLIA = Lossiness(
    miss_chance=0.3,
    stale_chance=0.1,
    publish_failure_chance=0.1,
    latency_s=0.2,
    jitter_s=0.3,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record of one peer, with what ``validate`` said of it."""

    record: bytes
    sequence: int
    expires_s: float


class SimDirectory:
    """The one directory of a world; each node has its own :class:`SimDirectoryPort`.

    Attributes:
        lossiness: May be replaced at any time.
        up: While False, nothing is found and nothing is taken.
    """

    def __init__(
        self,
        rng: Random,
        validate: Validate,
        *,
        lossiness: Lossiness | None = None,
        trace: Trace | None = None,
    ) -> None:
        """All chance comes from ``rng``; what happens is noted in ``trace``."""
        self.lossiness = lossiness or Lossiness()
        self.up = True
        self._rng = rng
        self._validate = validate
        self._trace = trace or Trace()
        # The newest record last; only two are kept.
        self._records: dict[str, list[_Entry]] = {}
        # Dicts and not sets throughout: their order doesn't hang on a hash seed.
        self._providers: dict[str, dict[str, float]] = {}
        self._unreached: dict[str, None] = {}

    def port(self, peer: str, *, listens: bool = True) -> "SimDirectoryPort":  # noqa: ARG002 - all are alike here
        """Return ``peer``'s way into the directory."""
        return SimDirectoryPort(self, peer)

    def gone(self, peer: str) -> None:
        """Do nothing: what is listed here is held by nobody in particular."""

    def cut_off(self, peer: str) -> None:
        """Take ``peer``'s way in away."""
        self._unreached[peer] = None

    def rejoin(self, peer: str) -> None:
        """Undo :meth:`cut_off`."""
        self._unreached.pop(peer, None)

    # --- for ports ----------------------------------------------------------------

    def reaches(self, peer: str) -> bool:
        """Tell whether ``peer`` gets through."""
        return self.up and peer not in self._unreached

    def happens(self, chance: float) -> bool:
        """Draw."""
        return chance > 0 and self._rng.random() < chance

    async def delay(self) -> None:
        """Take as long as an operation does."""
        lossiness = self.lossiness
        await trio.sleep(lossiness.latency_s + self._rng.random() * lossiness.jitter_s)

    def put(self, peer: str, record: bytes, names: Sequence[str]) -> None:
        """Take ``record`` and list ``peer`` under ``names``, or raise ``Unreachable``."""
        sequence = self._validate(peer, record)
        if sequence is None:
            self._trace.note(f"directory refuses {peer}")
            raise Unreachable(peer, "the directory refuses the record")
        expires_s = trio.current_time() + self.lossiness.lifetime_s
        kept = self._records.setdefault(peer, [])
        if not kept or sequence >= kept[-1].sequence:
            renewed = bool(kept) and kept[-1].record == record
            kept[-1 if renewed else len(kept) :] = [_Entry(record, sequence, expires_s)]
            del kept[:-2]
        for name in names:
            self._providers.setdefault(name, {})[peer] = expires_s
        self._trace.note(f"directory takes {peer} {sequence} {','.join(names)}")

    def listed(self, name: str) -> list[str]:
        """Return who is listed under ``name``, in an order that means nothing."""
        now_s = trio.current_time()
        entries = self._providers.get(name, {})
        found = [
            peer
            for peer, expires_s in entries.items()
            if expires_s > now_s and not self.happens(self.lossiness.miss_chance)
        ]
        self._rng.shuffle(found)
        return found

    def lookup(self, peer: str) -> bytes | None:
        """Return a record of ``peer``, the newest unless chance has it otherwise."""
        now_s = trio.current_time()
        kept = [entry for entry in self._records.get(peer, ()) if entry.expires_s > now_s]
        if not kept or self.happens(self.lossiness.miss_chance):
            return None
        if len(kept) > 1 and self.happens(self.lossiness.stale_chance):
            return kept[0].record
        return kept[-1].record


class SimDirectoryPort:
    """One node's :class:`meshnode.ports.Directory`."""

    __slots__ = ("_directory", "_peer")

    def __init__(self, directory: SimDirectory, peer: str) -> None:
        self._directory = directory
        self._peer = peer

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """See :meth:`meshnode.ports.Directory.publish`."""
        directory = self._directory
        await directory.delay()
        failed = directory.happens(directory.lossiness.publish_failure_chance)
        if failed or not directory.reaches(self._peer):
            raise Unreachable(self._peer, "no directory peer took the record")
        directory.put(self._peer, record, names)

    async def providers(self, name: str, *, count_max: int = 20) -> Sequence[str]:
        """See :meth:`meshnode.ports.Directory.providers`."""
        directory = self._directory
        await directory.delay()
        return directory.listed(name)[:count_max] if directory.reaches(self._peer) else []

    async def record(self, peer: str) -> bytes | None:
        """See :meth:`meshnode.ports.Directory.record`."""
        directory = self._directory
        await directory.delay()
        return directory.lookup(peer) if directory.reaches(self._peer) else None
