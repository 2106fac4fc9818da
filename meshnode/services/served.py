"""What this node did for whom: counted by the clock hour, kept for a month.

The owner looks at it, and quotas go by it, so what was taken on is written down in the
commit that takes it on, and what it earned in the commit of the receipt.  The rest (who
asked, what was refused) may lose its last half minute in a crash: whoever asks must not
be able to make this node write.

Business of this node with itself is not counted.  Callers beyond a bound in one hour,
and all who aren't let call, are counted together as :data:`OTHERS`.
"""

from collections import OrderedDict
from typing import Final

import msgspec
import trio

from meshnode.domain.admission import DAY_HOURS, HOUR_MS, Use
from meshnode.domain.tallies import LAPSED, Tally
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context

#: ``HOUR/PeerId/capability`` -> :class:`~meshnode.domain.tallies.Tally`.
SERVED: Final = "served"
#: Name of all callers that aren't counted one by one.
OTHERS: Final = "others"
#: History that is kept, hours.
KEPT_HOURS: Final = 31 * 24
#: Rows of one hour: beyond them, and one more for each who has some, callers are counted
#: together.
ROWS_MAX: Final = 256
#: Proposals that are out and remembered.
_OPEN_MAX: Final = 4_096
#: How often what was counted is written down, seconds.
_FLUSH_S: Final = 30.0
#: What is old is looked for this often where nothing is counted, seconds.
_FORGET_S: Final = 3_600.0
_TALLY: Final = msgspec.msgpack.Decoder(Tally)

Key = tuple[int, str, str]  # hour, caller, capability


class Served:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(self, context: Context) -> None:
        self._own = context.peer
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._rows: dict[Key, Tally] = {}  # of this hour and the one before
        # Of the rest of the day, packed: they are wanted only if the clock is set back.
        self._past: dict[Key, bytes] = {}
        self._counts: dict[int, int] = {}  # hour -> rows
        self._named: dict[int, set[str]] = {}  # hour -> whose rows
        self._unsaved: dict[Key, None] = {}
        self._counted = trio.Event()
        self._uses: dict[str, Use] = {}
        self._everyone = Use()
        # Proposal's hash -> whose it is, what for, and when it lapses.
        self._open: OrderedDict[bytes, tuple[str, str, int]] = OrderedDict()
        self._swept_hour = 0

    # --- counting ---

    def count(self, caller: str, capability: str = "", **more: int) -> None:
        """Add ``more`` to what is counted for ``caller`` now, by the names of a tally."""
        if caller == self._own:
            return
        key, tally = self._current(caller, capability)
        for name, amount in more.items():
            setattr(tally, name, getattr(tally, name) + amount)
        for by_hour, amount in (
            ("calls", more.get("calls", 0)),
            ("run_ms", more.get("run_ms", 0)),
        ):
            if amount:
                self._use_up(key, by_hour, amount)

    def refused(self, caller: str, capability: str, reason: str) -> None:
        """Count a refusal."""
        if caller != self._own:
            refused = self._current(caller, capability)[1].refused
            refused[reason] = refused.get(reason, 0) + 1

    def proposed(self, caller: str, capability: str, name: bytes, expires_ms: int) -> None:
        """Count a proposal; it is lost unless :meth:`won` before ``expires_ms``."""
        if caller == self._own:
            return
        self.count(caller, capability, proposed=1)
        self._open[name] = (caller, capability, expires_ms)
        self._lapse()

    def won(self, proposal: bytes) -> None:
        """Note that an award binds ``proposal`` (its hash)."""
        self._open.pop(proposal, None)

    def lost(self, caller: str, proposal: bytes, reason: str) -> bool:
        """Count a proposal as lost; tell whether ``caller`` had it and it was open."""
        there = self._open.get(proposal)
        if there is None or there[0] != caller:
            return False
        del self._open[proposal]
        lost = self._current(caller, there[1])[1].lost
        lost[reason] = lost.get(reason, 0) + 1
        return True

    def row(self, caller: str, capability: str) -> list[Write]:
        """Return what writes down the present count of ``caller``'s, to be committed."""
        if caller == self._own:
            return []
        key, tally = self._current(caller, capability)
        return [_put(key, tally)]

    def use(self, caller: str) -> Use:
        """Return what was taken on for ``caller`` in the last day."""
        own = self._uses.get(caller, Use())
        others = self._uses.get(OTHERS)
        if others is None:
            return own
        # In an hour with too many callers it may be among the others.
        return Use({**others.calls, **own.calls}, {**others.run_ms, **own.run_ms})

    @property
    def everyone(self) -> Use:
        """What was taken on for all callers in the last day."""
        return self._everyone

    def _current(self, caller: str, capability: str) -> tuple[Key, Tally]:
        now_ms = self._clock.now_ms()
        hour = now_ms // HOUR_MS
        key = (hour, caller, capability)
        tally = self._row(key)
        if tally is None and self._counts.get(hour, 0) >= ROWS_MAX:
            # Who has a row stays apart, with all else in one more: its quota goes by its name.
            key = (hour, caller if caller in self._named.get(hour, ()) else OTHERS, "")
            tally = self._row(key)
        if tally is None:
            tally = self._add(key, Tally())
        tally.last_ms = now_ms
        self._unsaved[key] = None
        self._counted.set()
        return key, tally

    def _row(self, key: Key) -> Tally | None:
        packed = self._past.pop(key, None)
        if packed is not None:
            self._rows[key] = _TALLY.decode(packed)
        return self._rows.get(key)

    def _add(self, key: Key, tally: Tally) -> Tally:
        hour, caller, _ = key
        self._rows[key] = tally
        self._counts[hour] = self._counts.get(hour, 0) + 1
        self._named.setdefault(hour, set()).add(caller)
        return tally

    def _use_up(self, key: Key, what: str, amount: int) -> None:
        hour, caller, _ = key
        for use in (self._uses.setdefault(caller, Use()), self._everyone):
            by_hour: dict[int, int] = getattr(use, what)
            by_hour[hour] = by_hour.get(hour, 0) + amount

    def _lapse(self) -> None:
        """Count as lost what no award can bind any more."""
        now_ms = self._clock.now_ms()
        while self._open:
            name, (caller, _, expires_ms) = next(iter(self._open.items()))
            if expires_ms > now_ms and len(self._open) <= _OPEN_MAX:
                return
            self.lost(caller, name, LAPSED)

    # --- keeping ---

    async def load(self) -> None:
        """Take up what the last day's rows say.

        Raises:
            StoreError: They can't be read.
        """
        hour = self._clock.now_ms() // HOUR_MS
        for number in range(hour - DAY_HOURS + 1, hour + 1):
            for name, raw in await self._store.scan(SERVED, f"{number:08}/"):
                key, tally = _read(name, raw)
                self._add(key, tally)
                if number < hour - 1:
                    del self._rows[key]
                    self._past[key] = raw
                self._use_up(key, "calls", tally.calls)
                self._use_up(key, "run_ms", tally.run_ms)

    async def run(self) -> None:
        """Write down what was counted now and then, and forget what is old, until cancelled."""
        while True:
            if not (self._unsaved or self._open):
                self._counted = trio.Event()
                with trio.move_on_after(_FORGET_S):
                    await self._counted.wait()
            await trio.sleep(_FLUSH_S)
            try:
                await self.flush()
                await self._forget_old()
            except StoreError as exc:
                self._emit("served.unsaved", why=str(exc))

    async def flush(self) -> None:
        """Write down what was counted.

        Raises:
            StoreError: The disk refused; it is tried again.
        """
        self._lapse()
        unsaved = list(self._unsaved)
        if not unsaved:
            return
        self._unsaved.clear()
        try:
            await self._store.commit(*(_put(key, self._rows[key]) for key in unsaved))
        except StoreError:
            self._unsaved.update(dict.fromkeys(unsaved))
            raise

    async def _forget_old(self) -> None:
        """Once an hour: from memory what is older than a day, from the disk than a month."""
        hour = self._clock.now_ms() // HOUR_MS
        if hour == self._swept_hour:
            return
        old = hour - DAY_HOURS
        for key in [
            key for key in self._rows if key[0] < hour - 1 and key not in self._unsaved
        ]:
            self._past[key] = msgspec.msgpack.encode(self._rows.pop(key))
        for key in [key for key in self._past if key[0] <= old]:
            del self._past[key]
            self._counts.pop(key[0], None)
            self._named.pop(key[0], None)
        for use in (*self._uses.values(), self._everyone):
            for by_hour in (use.calls, use.run_ms):
                for number in [number for number in by_hour if number <= old]:
                    del by_hour[number]
        self._uses = {who: use for who, use in self._uses.items() if use.calls or use.run_ms}
        await self._forget_before(hour - KEPT_HOURS)
        self._swept_hour = hour

    async def _forget_before(self, hour: int) -> None:
        while True:
            rows = await self._store.scan(SERVED, count_max=ROWS_MAX)
            gone = [name for name, _ in rows if int(name.partition("/")[0]) < hour]
            if not gone:
                return
            await self._store.commit(*(Delete(SERVED, name) for name in gone))

    # --- telling ---

    async def tallies(self, since_ms: int) -> dict[tuple[str, str], Tally]:
        """Return caller and capability -> all that was counted since the hour of ``since_ms``.

        Raises:
            StoreError: It can't be read.
        """
        await self.flush()
        now = self._clock.now_ms() // HOUR_MS
        found: dict[tuple[str, str], Tally] = {}
        for hour in range(max(since_ms // HOUR_MS, now - KEPT_HOURS), now + 1):
            for name, raw in await self._store.scan(SERVED, f"{hour:08}/"):
                (_, caller, capability), tally = _read(name, raw)
                found.setdefault((caller, capability), Tally()).add(tally)
        return found

    def outstanding(self) -> int:
        """Return how many proposals are out and may still win."""
        self._lapse()
        return len(self._open)


def _put(key: Key, tally: Tally) -> Put:
    hour, caller, capability = key
    return Put(SERVED, f"{hour:08}/{caller}/{capability}", msgspec.msgpack.encode(tally))


def _read(name: str, raw: bytes) -> tuple[Key, Tally]:
    try:
        hour, caller, capability = name.split("/", 2)
        return (int(hour), caller, capability), _TALLY.decode(raw)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise StoreError(f"{SERVED}/{name!r:.80} is no count: {exc}") from exc
