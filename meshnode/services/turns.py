"""Turns at things that have names: one at a time at each, and different ones at once.

For work that may wait for somebody else, such as a bank.  One lock for all would make
everybody wait for the slowest.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """See the module.  Names that nobody is at take no memory."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[trio.Lock, int]] = {}  # name -> and how many are at it

    @asynccontextmanager
    async def at(self, name: str) -> AsyncIterator[None]:
        """Wait until nobody else is at ``name``, and be it for the block."""
        lock, count = self._held.get(name, (trio.Lock(), 0))
        self._held[name] = (lock, count + 1)
        try:
            async with lock:
                yield
        finally:
            lock, count = self._held[name]
            if count == 1:
                del self._held[name]
            else:
                self._held[name] = (lock, count - 1)
