"""How much a peer may ask of this node: so much at once, so much a second.

A bucket that refills.  It outlives the session, or whoever reconnects would start with
a full one; it may be forgotten once it is full again.
"""

from typing import Final

from meshnode.errors import Busy

_RETRY_MS_MIN: Final = 50


class Allowance:
    """One kind of demand, a bucket for each peer.

    Attributes:
        what: For the message: what is at its limit.
        burst: Units that may be taken at once.
        per_s: Units that come back each second.
    """

    __slots__ = ("_left", "burst", "per_s", "what")

    def __init__(self, what: str, *, burst: float, per_s: float) -> None:
        self.what = what
        self.burst = burst
        self.per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, peer: str, units: float, *, now_s: float) -> None:
        """Take ``units`` for ``peer``.

        More than a whole burst is taken when the bucket is full, and leaves a debt.

        Raises:
            Busy: Not that many are left; nothing was taken.
        """
        left = self._now(peer, now_s)
        wanted = min(units, self.burst)
        if wanted > left:
            wait_ms = round((wanted - left) / self.per_s * 1000)
            raise Busy(self.what, retry_after_ms=max(_RETRY_MS_MIN, wait_ms))
        self._left[peer] = (left - units, now_s)

    def sweep(self, *, now_s: float) -> None:
        """Forget the peers whose bucket is full again."""
        full = [peer for peer in self._left if self._now(peer, now_s) >= self.burst]
        for peer in full:
            del self._left[peer]

    def _now(self, peer: str, now_s: float) -> float:
        left, at_s = self._left.get(peer, (self.burst, now_s))
        return min(self.burst, left + (now_s - at_s) * self.per_s)
