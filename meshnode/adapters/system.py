"""The machine's own clock and randomness behind their ports.

The only module that reads the wall clock; everything else is handed a WallClock, so
that a simulation owns time.
"""

import secrets
import time
from datetime import datetime
from zoneinfo import ZoneInfo


class SystemClock:
    """Wall time of this machine; it may jump when the machine's clock is set."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def ahead_s(self, zone: str) -> int:
        """See :meth:`meshnode.ports.WallClock.ahead_s`."""
        if not zone:
            return time.localtime().tm_gmtoff
        offset = datetime.now(ZoneInfo(zone)).utcoffset()
        return round(offset.total_seconds()) if offset is not None else 0


class SystemEntropy:
    """The kernel's random numbers: good for keys, tokens and nonces."""

    def token(self, size: int) -> bytes:
        """Return ``size`` random bytes."""
        return secrets.token_bytes(size)
