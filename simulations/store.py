"""The Store port in memory, with a disk that can be pulled out.

A :class:`MemoryDisk` is what survives; a :class:`MemoryStore` is one process's use of
it.  A commit reaches the disk ``latency_s`` after its group started, on Trio's clock,
so under a ``MockClock`` a run is the same every time.  No task runs in the
background: each operation first settles the commits that are due by now, in the order
in which they came.  So a commit outlives a cancelled caller, as it does in SQLite, and
``crash`` loses exactly what the disk did not hold yet.

What a crash can show is what it can show of the real store, which is SQLite with a
write-ahead log and ``synchronous=FULL``.  A group is one transaction, appended to the log
and synced before anybody is told; each frame's checksum goes on from the one before, and
the last frame of a transaction says so.  Opening the file reads the log up to the last
whole transaction.  Hence:

* what somebody was told of is there; of groups that had not begun there is nothing;
* the group under way is gone, or there as a whole though nobody was told
  (``Flaws.untold_chance``), never in part;
* its write may have been torn (``Flaws.torn_chance``): then the next opening discards it
  whole, and all that anybody can see is :attr:`MemoryDisk.torn`;
* what was written is written in order: no group is missing before one that is there.

What it can show only if the disk lies, which says that it has synced and has not: groups
that somebody was told of are gone, the last ones (``Flaws.lie_groups_max``).  No store can
prevent that; a test may ask whether a node notices.  What is not modelled: bits that rot,
and an error of the sync itself, after which the real store takes no more commits.
"""

from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import takewhile
from random import Random
from typing import Final

import trio

from meshnode.errors import StoreError
from meshnode.ports import (
    Add,
    Append,
    Delete,
    Once,
    Put,
    Write,
    check_table,
    check_text,
    check_write,
    read_sum,
)
from simulations.alarms import sleep_until


@dataclass(frozen=True, slots=True)
class _DropLog:
    log: str


#: The writes of one commit, or of all commits of one transaction.
#: A random latency ends at a tick of the clock.
_TICKS_PER_S: Final = 1_000

_Writes = Sequence[Write | _DropLog]


@dataclass(slots=True, eq=False)
class _Commit:
    """Writes that were handed over; ``due_s`` is when they are durable."""

    writes: _Writes
    due_s: float
    error: StoreError | None = None


@dataclass(frozen=True, slots=True)
class Flaws:
    """What a crash may do to the group under way, and a lying disk to those before it.

    Attributes:
        untold_chance: Chance that the group under way is there although nobody was told.
        torn_chance: Chance that it was written in part; at most what that leaves.
        lie_groups_max: How many of the last groups, told of, a crash may take.  More than
            0 is a broken disk, which no test should take for an honest one.
    """

    untold_chance: float = 0.0
    torn_chance: float = 0.0
    lie_groups_max: int = 0


@dataclass(slots=True, eq=False)
class _Contents:
    """Tables and logs."""

    tables: dict[str, dict[str, bytes]] = field(default_factory=dict)
    logs: dict[str, list[bytes]] = field(default_factory=dict)

    def write(self, group: Sequence[_Commit]) -> _Writes:
        """Apply every commit of ``group`` that fits; the others get their error."""
        written: list[Write | _DropLog] = []
        for commit in group:
            if commit.error is None:
                commit.error = self.misfit(commit.writes)
            if commit.error is None:
                self.apply(commit.writes)
                written += commit.writes
        return written

    def apply(self, writes: _Writes) -> None:
        """Apply ``writes``, which fit."""
        for write in writes:
            match write:
                case Put(table, key, value):
                    self.tables.setdefault(table, {})[key] = value
                case Delete(table, key):
                    self.tables.get(table, {}).pop(key, None)
                case Append(log, _, value):
                    self.logs.setdefault(log, []).append(value)
                case Add(table, key, amount):
                    cells = self.tables.setdefault(table, {})
                    cells[key] = b"%d" % (read_sum(cells.get(key)) + amount)
                case Once(table, key, value, inner):
                    if key not in self.tables.get(table, {}):
                        self.apply([Put(table, key, value), *inner])
                case _DropLog(log):
                    self.logs.pop(log, None)

    def misfit(self, writes: _Writes) -> StoreError | None:
        """Return why ``writes`` can't be applied, or None."""
        after: dict[str, int] = {}
        for write in writes:
            if isinstance(write, Add | Once) and (error := self._no_sum(write)) is not None:
                return error
            if isinstance(write, Append):
                tail = after.get(write.log, len(self.logs.get(write.log, ())))
                if write.seq != tail:
                    return StoreError(
                        f"entry {write.seq} of log {write.log!r} doesn't fit:"
                        f" the next one is {tail}",
                        hint="read the log again: someone else has written to it",
                    )
                after[write.log] = tail + 1
        return None

    def _no_sum(self, write: Add | Once) -> StoreError | None:
        """Return why what is there can't be added to, or None."""
        for one in (write,) if isinstance(write, Add) else write.writes:
            if isinstance(one, Add):
                try:
                    read_sum(self.tables.get(one.table, {}).get(one.key))
                except StoreError as error:
                    return error
        return None


@dataclass(eq=False)
class MemoryDisk:
    """What a crash leaves.

    Attributes:
        flaws: What a crash may do beyond losing what is under way.
        contents: As of the last group that anybody was told of.
        user: The store that has it open.
        torn: Groups of which an opening found a part, and discarded it.
        untold: Groups that an opening found whole though nobody had been told.
        lost: Groups that are gone though somebody had been told: the disk lied.
    """

    flaws: Flaws = Flaws()
    contents: _Contents = field(default_factory=_Contents)
    user: "MemoryStore | None" = None
    torn: int = 0
    untold: int = 0
    lost: int = 0
    _tail: "_Tail | None" = None
    _synced: _Contents | None = None  # if it lies: what it holds for good
    _cached: deque[_Writes] = field(default_factory=deque)  # and what it doesn't

    @property
    def tables(self) -> dict[str, dict[str, bytes]]:
        """Values by table and key."""
        return self.contents.tables

    @property
    def logs(self) -> dict[str, list[bytes]]:
        """Entries by log."""
        return self.contents.logs

    def write(self, group: Sequence[_Commit]) -> None:
        """Apply ``group`` as one transaction, and say that it is durable."""
        if self.flaws.lie_groups_max and self._synced is None:
            self._synced = deepcopy(self.contents)
        written = self.contents.write(group)
        if self._synced is not None and written:
            self._cached.append(written)
            if len(self._cached) > self.flaws.lie_groups_max:
                self._synced.apply(self._cached.popleft())

    def sync(self) -> None:
        """Hold for good what is here, as after an orderly end."""
        self._synced = None
        self._cached.clear()

    def lose_power(self, group: Sequence[_Commit], chance: Random | None) -> None:
        """Stop while ``group`` is being written, which may be empty."""
        if self.flaws == Flaws():
            return
        if chance is None:
            raise ValueError("a disk with flaws needs chance")
        if self._synced is not None and self._forget_some(self._synced, chance):
            return  # what comes behind what is gone can't be read
        frames = deepcopy(self.contents).write(group)
        drawn = chance.random()
        if frames and drawn < self.flaws.untold_chance:
            self._tail = _Tail(frames, len(frames))
        elif frames and drawn < self.flaws.untold_chance + self.flaws.torn_chance:
            self._tail = _Tail(frames[: chance.randrange(len(frames))], len(frames))

    def _forget_some(self, synced: _Contents, chance: Random) -> int:
        """Return how many of the last groups are gone."""
        kept = chance.randint(0, len(self._cached))
        for written in list(self._cached)[:kept]:
            synced.apply(written)
        gone = len(self._cached) - kept
        self.lost += gone
        self.contents = synced
        self.sync()
        return gone

    def recover(self) -> None:
        """Read what was written last, up to the last whole transaction."""
        tail, self._tail = self._tail, None
        if tail is None:
            return
        if len(tail.frames) == tail.frames_count:
            self.untold += 1
            self.contents.apply(tail.frames)
        else:
            self.torn += 1


@dataclass(frozen=True, slots=True)
class _Tail:
    """What is in the write-ahead log behind what anybody was told of.

    Attributes:
        frames: Those that were written.
        frames_count: How many the transaction has; the last of them says that it ends.
    """

    frames: _Writes
    frames_count: int


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
            chance: Draws the latency of each group, and what a crash does to a disk with
                flaws; needed for these.
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
        disk.recover()
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
                await sleep_until(self._pending[-1].due_s)
            self._settle()
        if self._disk.user is self:
            self._disk.sync()
            self._disk.user = None

    def crash(self) -> None:
        """Lose power: what isn't durable by now is gone; see :class:`Flaws` for what else."""
        self._settle()
        self._ended = "has crashed"
        if self._disk.user is self:
            self._disk.lose_power(self._under_way(), self._chance)
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
        await sleep_until(commit.due_s)
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
        if self._chance is None:
            return start_s + shortest_s
        latency_s = self._chance.uniform(shortest_s, longest_s)
        # At the nearest tick, so that many commits and arrivals share one.
        return max(start_s, round((start_s + latency_s) * _TICKS_PER_S) / _TICKS_PER_S)

    def _settle(self) -> None:
        """Put the groups that are due by now on the disk, in the order they came."""
        now_s = trio.current_time()
        while self._pending and self._pending[0].due_s <= now_s:
            group = self._under_way()
            for _ in group:
                self._pending.popleft()
            self._disk.write(group)

    def _under_way(self) -> list[_Commit]:
        """Return the group whose turn it is: one transaction."""
        if not self._pending:
            return []
        due_s = self._pending[0].due_s
        return list(takewhile(lambda commit: commit.due_s == due_s, self._pending))

    def _gone(self) -> StoreError:
        return StoreError(f"store in memory {self._ended}", hint="open it again")
