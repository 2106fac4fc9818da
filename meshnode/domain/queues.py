"""How long work waits at a contractor behind that of other brokers, as it was seen lately.

A broker knows its own load at an agent and nobody else's.  Where all prefer the same agent
(the fastest, the cheapest) each sees it idle and all pile up there.  What comes back tells:
the time from an award to its result, less the run itself, less what this broker's own work
took before it; and who refuses an award for the time that it would wait says how long that is.
It is remembered, and forgotten within some seconds, since queues are.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

#: A wait counts half after so long, seconds.
HALF_LIFE_S: Final = 10.0
#: How much the latest wait weighs against those before it.
_WEIGHT: Final = 0.5
#: A shorter wait is the way there and back, milliseconds.
_WAY_MS: Final = 100
#: No longer a queue is believed in, whatever is said of it, milliseconds.
QUEUE_MS_MAX: Final = 600_000
#: Agents that are remembered; the longest unseen are forgotten first.
_AGENTS_MAX: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Wait:
    wait_ms: float
    seen_s: float


class Queues:
    """See the module; agents by their id, ``peer/name``."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    @property
    def agents(self) -> Collection[str]:
        """Ids of those where work has waited, some of them long ago."""
        return self._waits.keys()

    def saw(
        self, agent: str, *, took_ms: int, run_ms: int, ahead_ms: int, now_s: float
    ) -> None:
        """Note that an award was done.

        Args:
            agent: By whom.
            took_ms: From the award to its result.
            run_ms: Of that, the run itself.
            ahead_ms: What this broker's own work there took before it, as far as it knew.
            now_s: On a clock that never jumps.
        """
        fresh_ms = max(0, took_ms - run_ms - ahead_ms - _WAY_MS)
        before_ms = self.wait_ms(agent, now_s=now_s)
        self._keep(agent, before_ms + _WEIGHT * (fresh_ms - before_ms), now_s)

    def told(self, agent: str, *, wait_ms: int, now_s: float) -> None:
        """Note that ``agent`` says now how long an award would wait there."""
        self._keep(agent, min(wait_ms, QUEUE_MS_MAX), now_s)

    def _keep(self, agent: str, wait_ms: float, now_s: float) -> None:
        self._waits.pop(agent, None)
        if wait_ms:
            self._waits[agent] = _Wait(wait_ms, now_s)
        if len(self._waits) > _AGENTS_MAX:
            del self._waits[next(iter(self._waits))]

    def wait_ms(self, agent: str, *, now_s: float) -> int:
        """Return how long an award there would wait behind others', as far as is known."""
        seen = self._waits.get(agent)
        if seen is None:
            return 0
        age_s = now_s - seen.seen_s
        wait_ms = int(seen.wait_ms * 0.5 ** (age_s / HALF_LIFE_S))
        if not wait_ms:
            del self._waits[agent]
        return wait_ms
