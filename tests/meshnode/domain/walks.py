"""Walk through everything that a model can come to."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar


class _World(Protocol):
    """One state; equal ones are one."""

    @property
    def broken(self) -> str:
        """Which claim it breaks, or nothing."""


W = TypeVar("W", bound=_World)


def walk_through(start: W, steps: Callable[[W], Iterator[W]]) -> Iterator[W]:
    """Each world once; the walk doesn't go on from one that breaks a claim."""
    todo, known = [start], {start}
    while todo:
        world = todo.pop()
        yield world
        if world.broken:
            continue
        for after in steps(world):
            if after not in known:
                known.add(after)
                todo.append(after)
