"""Whom one node of the simulated DHT knows, sorted by key into buckets.

Keys are numbers of 256 bits, the SHA-256 of a PeerId's bytes; nearness is their XOR,
as libp2p has it.  Buckets are split as py-libp2p 0.8.1 splits them: *every* full one,
not only the one with the node's own key in it, until there are 256.  So a node forgets
nobody for want of room before it knows some 3,500 peers, and its lookups need fewer
hops than a textbook's.

The peers are kept in one sorted list and the buckets as bounds in it.  All keys with a
common prefix are nearer to a key with that prefix than any other, so the nearest ones
are found by two bisections instead of by sorting the whole table: a lookup among 1,000
nodes asks that some forty times.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

import base58

#: Questions whose answer a table remembers until somebody comes into it or goes.
_ASKED_MAX: Final = 64

KEY_BITS: Final = 256
_END: Final = 1 << KEY_BITS


def key_of(peer: str) -> int:
    """Return where ``peer`` stands; text that is no PeerId counts as its UTF-8 bytes."""
    try:
        name = base58.b58decode(peer)
    except ValueError:
        name = peer.encode()
    return key_at(name)


def key_at(name: bytes) -> int:
    """Return where the bytes of a PeerId, or of a record's or provider's key, stand."""
    return int.from_bytes(sha256(name).digest(), "big")


def nearest(keys: Iterable[int], target: int, count: int) -> list[int]:
    """Return the ``count`` of ``keys`` that are nearest to ``target``, the nearest first."""
    return sorted(keys, key=target.__xor__)[:count]


class RoutingTable:
    """The peers that one node would ask."""

    __slots__ = (
        "_asked", "_bounds", "_bucket_max", "_buckets_max", "_keys", "_own", "_seen", "_tick",
    )  # fmt: skip

    def __init__(self, own: int, *, bucket_max: int = 20, buckets_max: int = 256) -> None:
        """Be empty.

        Args:
            own: The node's key; it is never in its own table.
            bucket_max: Peers in one bucket.
            buckets_max: Buckets in the table; only then a full one stays full.
        """
        self._own = own
        self._bucket_max = bucket_max
        self._buckets_max = buckets_max
        self._bounds = [0]  # where each bucket begins; it ends where the next one begins
        self._keys: list[int] = []
        self._seen: dict[int, int] = {}  # when it was heard of last, as a count
        self._tick = 0
        self._asked: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: int) -> bool:
        return key in self._seen

    @property
    def buckets(self) -> int:
        """How many buckets there are."""
        return len(self._bounds)

    def nearest(self, target: int, count: int) -> list[int]:
        """Return the ``count`` peers nearest to ``target``, the nearest first.

        The list is the table's own, so don't change it: a hundred nodes that look for one
        record ask the same few peers the same.
        """
        asked = self._asked.get((target, count))
        if asked is None:
            if len(self._asked) >= _ASKED_MAX:
                self._asked.clear()
            asked = self._asked[target, count] = self._nearest(target, count)
        return asked

    def _nearest(self, target: int, count: int) -> list[int]:
        keys = self._keys
        # About so many bits are not in the prefix that ``count`` peers have in common.
        bits = KEY_BITS + 1 - max(1, len(keys) // count).bit_length()
        while bits < KEY_BITS:
            low = target >> bits << bits
            first = bisect_left(keys, low)
            last = bisect_left(keys, low + (1 << bits), first)
            if last - first >= count:
                return nearest(keys[first:last], target, count)
            bits += 1
        return nearest(keys, target, count)

    def meet_all(self, keys: Iterable[int], answers: Callable[[int], bool]) -> None:
        """Meet each of ``keys``, in that order; most are there already."""
        seen, tick = self._seen, self._tick
        for key in keys:
            if key in seen:
                tick += 1
                seen[key] = tick
            else:
                self._tick = tick
                self.meet(key, answers)
                tick = self._tick
        self._tick = tick

    def meet(self, key: int, answers: Callable[[int], bool]) -> bool:
        """Take ``key`` in, or note that it was heard of; tell whether it is in now.

        Args:
            key: Who was met.
            answers: Asked about the peer of a full bucket that was longest not heard of:
                if that one answers, it stays and ``key`` is not taken.
        """
        self._tick += 1
        if key in self._seen:
            self._seen[key] = self._tick
            return True
        if key == self._own:
            return False
        while not self._has_room(key):
            if not self._split(key):
                first, last = self._bucket(key)
                oldest = min(self._keys[first:last], key=self._seen.__getitem__)
                if answers(oldest):
                    return False
                self.forget(oldest)
        insort(self._keys, key)
        self._asked.clear()
        self._seen[key] = self._tick
        return True

    def forget(self, key: int) -> None:
        """Drop ``key``, if it is here."""
        if self._seen.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]
            self._asked.clear()

    def _has_room(self, key: int) -> bool:
        first, last = self._bucket(key)
        return last - first < self._bucket_max

    def _bucket(self, key: int) -> tuple[int, int]:
        """Return from where to where in the list the peers of ``key``'s bucket are."""
        low, high = self._range(key)
        first = bisect_left(self._keys, low)
        return first, bisect_left(self._keys, high, first)

    def _range(self, key: int) -> tuple[int, int]:
        after = bisect_right(self._bounds, key)
        high = self._bounds[after] if after < len(self._bounds) else _END
        return self._bounds[after - 1], high

    def _split(self, key: int) -> bool:
        """Halve ``key``'s bucket, if there may be one more."""
        if len(self._bounds) >= self._buckets_max:
            return False
        low, high = self._range(key)
        insort(self._bounds, (low + high) // 2)
        return True
