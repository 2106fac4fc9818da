"""How much is kept for whom: so many things and bytes for each, so that nobody takes all.

Pure counting: what is kept, and where, is its keeper's business.
"""

from collections import Counter


class Shares:
    """What is kept, counted by whose it is.

    Attributes:
        count_max: Things that are kept for one.
        bytes_max: Bytes that are kept for one.
    """

    __slots__ = ("_bytes", "_counts", "bytes_max", "count_max")

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def fits(self, who: str, size: int) -> bool:
        """Tell whether there is room for one thing more, of ``size`` bytes."""
        within = self._bytes[who] + size <= self.bytes_max
        return self._counts[who] < self.count_max and within

    def add(self, who: str, size: int) -> None:
        """Count a thing of ``size`` bytes."""
        self._counts[who] += 1
        self._bytes[who] += size

    def remove(self, who: str, size: int) -> None:
        """Count a thing of ``size`` bytes no longer; nobody of whom nothing is left stays."""
        self._counts[who] -= 1
        self._bytes[who] -= size
        if self._counts[who] <= 0:
            del self._counts[who], self._bytes[who]

    def clear(self) -> None:
        """Count nothing any more."""
        self._counts.clear()
        self._bytes.clear()

    def count(self, who: str) -> int:
        """Return how many things are kept for ``who``."""
        return self._counts[who]

    def size(self, who: str) -> int:
        """Return how many bytes are kept for ``who``."""
        return self._bytes[who]
