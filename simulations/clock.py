"""A wall clock and a source of keys that a seed fixes.

A node's wall clock is wrong in practice, so each simulated node can have its own
error: a fixed skew, a drift that grows, and jumps, as when somebody or a time server sets
it.  A jump may go back, so the same time may come twice; Trio's clock, which timeouts go
by, never jumps.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

import trio

#: What the wall clock shows when Trio's clock shows 0: 2026-01-01T00:00:00Z.
EPOCH_MS: Final = 1_767_225_600_000


@dataclass(slots=True)
class SimClock:
    """A :class:`meshnode.ports.WallClock` over Trio's clock.

    Attributes:
        skew_ms: How far it is ahead from the start, milliseconds.
        drift_ppm: How fast it gains: microseconds per second.
        jumps: When it is set and by how much: seconds on Trio's clock, and milliseconds,
            negative for back.
        epoch_ms: What a right clock shows when Trio's shows 0.
        zone_ahead_s: How far local time is ahead of UTC, in whatever zone, seconds.
    """

    skew_ms: int = 0
    drift_ppm: int = 0
    jumps: tuple[tuple[float, int], ...] = ()
    epoch_ms: int = EPOCH_MS
    zone_ahead_s: int = 0

    def now_ms(self) -> int:
        """See :meth:`meshnode.ports.WallClock.now_ms`."""
        elapsed_s = trio.current_time()
        elapsed_us = round(elapsed_s * 1_000_000)
        if self.drift_ppm:
            elapsed_us += elapsed_us * self.drift_ppm // 1_000_000
        ahead_ms = self.skew_ms
        if self.jumps:
            ahead_ms += sum(by_ms for at_s, by_ms in self.jumps if at_s <= elapsed_s)
        return self.epoch_ms + ahead_ms + elapsed_us // 1000

    def jump(self, by_ms: int) -> None:
        """Set it ahead now, or back."""
        self.jumps = (*self.jumps, (trio.current_time(), by_ms))

    def ahead_s(self, zone: str) -> int:  # noqa: ARG002 - one zone for all
        """See :meth:`meshnode.ports.WallClock.ahead_s`."""
        return self.zone_ahead_s


class SeededEntropy:
    """A :class:`meshnode.ports.Entropy` that anyone who knows the seed can guess."""

    __slots__ = ("_rng",)

    def __init__(self, seed: int | str) -> None:
        """Two with one seed give the same tokens in the same order."""
        self._rng = Random(f"entropy/{seed}")

    def token(self, size: int) -> bytes:
        """See :meth:`meshnode.ports.Entropy.token`."""
        return self._rng.randbytes(size)
