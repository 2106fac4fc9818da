"""What this broker has seen of how long agents take, kept through a restart.

Results are held against what their agents claim (:mod:`meshnode.domain.watching`); where
enough were seen, they are what is expected of the agent, whatever it claims, offers or
proposes.  Who is found to overclaim is told in an event, once, and so is when it no longer
does.

A few hundred agents are remembered, the latest; rows are written now and then, so a crash
may forget the results of the last half minute.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec
import trio

from meshnode.domain.watching import RUNS_MAX, Run, Watched, watched
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context

WATCHED: Final = "watched"
#: Agents that are remembered; the longest unseen are forgotten first.
AGENTS_MAX: Final = 512
_SAVE_S: Final = 30.0
_RUNS: Final = msgspec.msgpack.Decoder(list[Run])
_NOTHING: Final = Watched(n=0, claimed_ms=0)


class Watching:
    """See the module.  :meth:`run` loads it first."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._runs: dict[str, deque[Run]] = {}  # agent -> the longest unseen first
        self._seen: dict[str, Watched] = {}  # agent -> what its runs and its claim come to
        self._unsaved: dict[str, None] = {}
        self._saw = trio.Event()

    # --- looking ---

    def expected_ms(self, agent: str) -> int:
        """Return how long a call takes there, as was seen; 0 while too little was."""
        return self._seen.get(agent, _NOTHING).expected_ms

    def of(self, agent: str, claimed_ms: int) -> Watched:
        """Return what was seen of an agent, beside what it claims now.

        Args:
            agent: Its id, ``peer/name``.
            claimed_ms: For one call; 0 if it claims nothing that counts.
        """
        runs = self._runs.get(agent, ())
        return watched(list(runs), claimed_ms, now_ms=self._clock.now_ms())

    # --- seeing ---

    def saw(self, agent: str, run: Run, claimed_ms: int) -> None:
        """Take in a result of ``agent``, which claims ``claimed_ms`` for a call."""
        runs = self._runs.pop(agent, None)
        if runs is None:
            runs = deque(maxlen=RUNS_MAX)
        runs.append(run)
        self._runs[agent] = runs
        self._unsaved[agent] = None
        self._saw.set()
        if len(self._runs) > AGENTS_MAX:
            gone = next(iter(self._runs))
            del self._runs[gone]
            self._seen.pop(gone, None)
            self._unsaved[gone] = None
        before = self._seen.get(agent, _NOTHING).overclaims
        seen = self._seen[agent] = self.of(agent, claimed_ms)
        if seen.overclaims != before:
            self._emit(
                "claims.exceeded" if seen.overclaims else "claims.kept",
                agent=agent,
                claimed_ms=seen.claimed_ms,
                said_ms=seen.said_ms,
                seen_ms=seen.seen_ms,
                n=seen.n,
            )

    # --- keeping ---

    async def run(self) -> None:
        """Keep what is seen, now and then, until cancelled.

        Raises:
            StoreError: What is there can't be read.
        """
        await self._load()
        while True:
            await self._saw.wait()
            self._saw = trio.Event()
            await trio.sleep(_SAVE_S)
            try:
                await self.save()
            except StoreError as exc:
                self._emit("claims.unsaved", why=str(exc))
                self._saw.set()

    async def _load(self) -> None:
        found = await self._store.scan(WATCHED, count_max=2 * AGENTS_MAX)
        for agent, raw in sorted(found, key=lambda row: _latest_ms(row[1])):
            if agent not in self._runs:  # else it worked while this was read
                self._runs[agent] = deque(_read(raw), maxlen=RUNS_MAX)
                self._seen[agent] = self.of(agent, 0)

    async def save(self) -> None:
        """Write down what is new.

        Raises:
            StoreError: The disk refused; it is tried again.
        """
        changed, self._unsaved = list(self._unsaved), {}
        if not changed:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._store.commit(*self._writes(changed))
        except StoreError:
            self._unsaved = dict.fromkeys(changed) | self._unsaved
            raise

    def _writes(self, agents: Iterable[str]) -> list[Write]:
        return [
            Put(WATCHED, agent, msgspec.msgpack.encode(list(self._runs[agent])))
            if agent in self._runs
            else Delete(WATCHED, agent)
            for agent in agents
        ]


def _read(raw: bytes) -> list[Run]:
    """Return the runs of a row.

    Raises:
        StoreError: It holds none.
    """
    try:
        return _RUNS.decode(raw)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"a row of {WATCHED} holds no runs: {exc}") from exc


def _latest_ms(raw: bytes) -> int:
    return max((run.at_ms for run in _read(raw)), default=0)
