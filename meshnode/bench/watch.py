"""What a bench sees of a node: when what happened."""

from time import perf_counter

import trio
from typing_extensions import override

from meshnode.node import Onlooker
from meshnode.services.events import Happening


class Watch(Onlooker):
    """Notes when what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[float]] = {}
        self._again = trio.Event()

    @override
    def tell(self, happening: Happening) -> None:
        self.seen.setdefault(happening.name, []).append(perf_counter())
        self._again.set()

    async def more(self) -> None:
        """Wait until something happens."""
        self._again = trio.Event()
        await self._again.wait()

    def times(self, name: str) -> list[float]:
        """Return when ``name`` happened, in order."""
        return self.seen.get(name, [])

    async def until(self, name: str, count: int) -> None:
        """Wait until ``name`` has happened ``count`` times."""
        while len(self.times(name)) < count:
            await self.more()
