"""Graphs that schedulers are measured with: drawn from a seed, and how long they must take.

Four shapes that jobs have: a *chain*; a *fork-join* (one, several at once, one); *layers*,
where every task draws from one to three of the layer before; and a *map-reduce*, whose
middle is one map.  Pure: the same seed and number make the same graph in every process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

#: Tasks that one task may draw from.
PARENTS_MAX: Final = 8
MAP_REDUCE: Final = "map-reduce"


@dataclass(frozen=True, slots=True)
class Dag:
    """Tasks and what each waits for.

    Attributes:
        shape: As in :data:`SHAPES`.
        parents: For each task the tasks that it draws from, all of lower number.
    """

    shape: str
    parents: Sequence[Sequence[int]]

    @property
    def children(self) -> list[list[int]]:
        """For each task the tasks that draw from it."""
        found: list[list[int]] = [[] for _ in self.parents]
        for task, above in enumerate(self.parents):
            for parent in above:
                found[parent].append(task)
        return found


def _chain(rng: Random) -> list[list[int]]:
    return [[], *([task] for task in range(rng.randint(3, 7)))]


def _fork_join(rng: Random) -> list[list[int]]:
    between = list(range(1, 1 + rng.randint(3, PARENTS_MAX)))
    return [[], *([0] for _ in between), between]


def layered(
    rng: Random, *, layers: tuple[int, int] = (3, 5), width: tuple[int, int] = (2, 6)
) -> list[list[int]]:
    """Return the parents of the tasks of layers, each drawing from one to three before it.

    Args:
        rng: Chance.
        layers: Fewest and most of them.
        width: Fewest and most tasks in one.
    """
    parents: list[list[int]] = []
    above: list[int] = []
    for _ in range(rng.randint(*layers)):
        layer = list(range(len(parents), len(parents) + rng.randint(*width)))
        for _ in layer:
            count = rng.randint(1, 3)
            parents.append(sorted(rng.sample(above, min(count, len(above)))))
        above = layer
    return parents


def _map_reduce(rng: Random) -> list[list[int]]:
    between = list(range(1, 1 + rng.randint(4, 12)))
    return [[], *([0] for _ in between), between]


#: Shape -> what draws one of it.
SHAPES: Final[Mapping[str, Callable[[Random], list[list[int]]]]] = {
    "chain": _chain,
    "fork-join": _fork_join,
    "layers": layered,
    MAP_REDUCE: _map_reduce,
}


def draw(shape: str, rng: Random) -> Dag:
    """Return a graph of ``shape``."""
    return Dag(shape, SHAPES[shape](rng))


def longest_path(dag: Dag, costs: Sequence[float]) -> float:
    """Return how long ``dag`` takes at least, whoever does it: its longest path by ``costs``.

    Args:
        dag: Tasks.
        costs: What each takes, in any unit.
    """
    ended: list[float] = []
    for task, above in enumerate(dag.parents):
        ended.append(costs[task] + max((ended[parent] for parent in above), default=0.0))
    return max(ended)


@dataclass(frozen=True, slots=True)
class Work:
    """A graph whose tasks take a known time.

    Attributes:
        dag: Tasks.
        costs_ms: What each takes.
    """

    dag: Dag
    costs_ms: Sequence[int]

    @property
    def bound_ms(self) -> float:
        """See :func:`longest_path`."""
        return longest_path(self.dag, self.costs_ms)


#: Shortest task, and the longest of a graph whose tasks differ, milliseconds.
SHORT_MS: Final = 100
LONG_MS: Final = 500


def nth(seed: int, number: int, *, even: bool) -> Work:
    """Return the graph of that number: the shapes take turns.

    Args:
        seed: Of all that is drawn.
        number: From 0.
        even: Every task takes :data:`SHORT_MS`; else each takes from there to
            :data:`LONG_MS`, evenly drawn.
    """
    rng = Random(f"{seed}/{number}/{even}")  # noqa: S311 - it is to be drawn again
    dag = draw(list(SHAPES)[number % len(SHAPES)], rng)
    longest_ms = SHORT_MS if even else LONG_MS
    return Work(dag, [rng.randint(SHORT_MS, longest_ms) for _ in dag.parents])
