"""The Store port in memory, with a disk that can be pulled out.

A :class:`MemoryDisk` is what survives; a :class:`MemoryStore` is one process's use of
it.  A commit reaches the disk ``latency_s`` after its group started, on Trio's clock,
so under a ``MockClock`` a run is the same every time.  No task runs in the
background: each operation first settles the commits that are due by now, in the order
in which they came.  So a commit outlives a cancelled caller, as it does in SQLite, and
``crash`` loses exactly what the disk did not hold yet.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from meshnode.errors import StoreError
from meshnode.ports import Append, Delete, Put, Write, check_table, check_text, check_write


@dataclass(frozen=True, slots=True)
class _DropLog:
    log: str


@dataclass(slots=True, eq=False)
class _Commit:
    """Writes that were handed over; ``due_s`` is when they are durable."""

    writes: Sequence[Write | _DropLog]
    due_s: float
    error: StoreError | None = None


@dataclass(eq=False)
class MemoryDisk:
    """What a crash leaves: the tables and logs as of the last durable commit."""

    tables: dict[str, dict[str, bytes]] = field(default_factory=dict)
    logs: dict[str, list[bytes]] = field(default_factory=dict)
    user: "MemoryStore | None" = None


class MemoryStore:
    """See :class:`meshnode.ports.Store`.  Open it again on the same disk after a crash."""

    def __init__(
        self,
        disk: MemoryDisk,
        *,
        chance: Random | None = None,
        latency_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Take ``disk`` into use.

        Args:
            disk: Where commits end up.
            chance: Draws the latency of each group; needed if the range is not a point.
            latency_s: Shortest and longest time from a group's start to its durability.

        Raises:
            StoreError: Another store has the disk open.
        """
        if disk.user is not None:
            raise StoreError(
                "store in memory is in use by another node",
                hint="close or crash that one first",
            )
        disk.user = self
        self._disk = disk
        self._chance = chance
        self._latency_s = latency_s
        self._pending: deque[_Commit] = deque()
        self._ended = ""
        self._failures: list[str] = []

    async def commit(self, *writes: Write) -> None:
        """Apply all ``writes`` or none; durable when it returns."""
        for write in writes:
            check_write(write)
        if not writes:
            await trio.lowlevel.checkpoint()
            return
        await self._hand_over(writes)

    async def read(self, table: str, key: str) -> bytes | None:
        """Return ``table[key]`` as of the last commit, or None."""
        check_table(table)
        check_text("key", key)
        await self._look()
        return self._disk.tables.get(table, {}).get(key)

    async def scan(
        self, table: str, prefix: str = "", *, count_max: int = 10_000
    ) -> Sequence[tuple[str, bytes]]:
        """Return the entries of ``table`` whose key starts with ``prefix``, in key order."""
        check_table(table)
        await self._look()
        cells = self._disk.tables.get(table, {})
        keys = sorted(key for key in cells if key.startswith(prefix))
        return [(key, cells[key]) for key in keys[: max(count_max, 0)]]

    async def log(self, log: str, *, start: int = 0) -> Sequence[bytes]:
        """Return the entries of ``log`` from ``start`` on."""
        check_text("log", log)
        await self._look()
        return self._disk.logs.get(log, [])[max(start, 0) :]

    async def drop_log(self, log: str) -> None:
        """Delete a log with all its entries; durable when it returns."""
        check_text("log", log)
        await self._hand_over((_DropLog(log),))

    async def aclose(self) -> None:
        """Finish pending commits and release the disk; idempotent."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return
        self._ended = "is closed"
        with trio.CancelScope(shield=True):
            if self._pending:
                await trio.sleep_until(self._pending[-1].due_s)
            self._settle()
        if self._disk.user is self:
            self._disk.user = None

    def crash(self) -> None:
        """Lose power: what isn't durable by now is gone, and its callers are told."""
        self._settle()
        self._ended = "has crashed"
        for commit in self._pending:
            commit.error = self._gone()
        self._pending.clear()
        if self._disk.user is self:
            self._disk.user = None

    def fail_next(self, reason: str = "the disk is full", *, count: int = 1) -> None:
        """Refuse the next ``count`` commits for ``reason``; they leave nothing behind."""
        self._failures.extend([reason] * count)

    async def _look(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._ended:
            raise self._gone()
        self._settle()

    async def _hand_over(self, writes: Sequence[Write | _DropLog]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended:
            raise self._gone()
        self._settle()
        commit = _Commit(writes, self._due_s())
        if self._failures:
            reason = self._failures.pop(0)
            commit.writes = ()
            commit.error = StoreError(
                f"store in memory can't grow: {reason}", hint="free some space"
            )
        self._pending.append(commit)
        await trio.sleep_until(commit.due_s)
        self._settle()
        if commit.error is not None:
            raise commit.error

    def _due_s(self) -> float:
        """Return when a commit that comes now is durable.

        One group is under way at a time; whoever comes meanwhile joins the next one,
        which starts when that ends.
        """
        if self._pending and self._pending[0].due_s < self._pending[-1].due_s:
            return self._pending[-1].due_s
        start_s = self._pending[0].due_s if self._pending else trio.current_time()
        shortest_s, longest_s = self._latency_s
        latency_s = shortest_s
        if self._chance is not None:
            latency_s = self._chance.uniform(shortest_s, longest_s)
        return start_s + latency_s

    def _settle(self) -> None:
        """Put the commits that are due by now on the disk, in the order they came."""
        now_s = trio.current_time()
        while self._pending and self._pending[0].due_s <= now_s:
            commit = self._pending.popleft()
            if commit.error is None:
                commit.error = self._misfit(commit.writes)
            if commit.error is None:
                for write in commit.writes:
                    self._apply(write)

    def _misfit(self, writes: Sequence[Write | _DropLog]) -> StoreError | None:
        after: dict[str, int] = {}
        for write in writes:
            if isinstance(write, Append):
                tail = after.get(write.log, len(self._disk.logs.get(write.log, ())))
                if write.seq != tail:
                    return StoreError(
                        f"entry {write.seq} of log {write.log!r} doesn't fit:"
                        f" the next one is {tail}",
                        hint="read the log again: someone else has written to it",
                    )
                after[write.log] = tail + 1
        return None

    def _apply(self, write: Write | _DropLog) -> None:
        match write:
            case Put(table, key, value):
                self._disk.tables.setdefault(table, {})[key] = value
            case Delete(table, key):
                self._disk.tables.get(table, {}).pop(key, None)
            case Append(log, _, value):
                self._disk.logs.setdefault(log, []).append(value)
            case _DropLog(log):
                self._disk.logs.pop(log, None)

    def _gone(self) -> StoreError:
        return StoreError(f"store in memory {self._ended}", hint="open it again")
