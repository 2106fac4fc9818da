"""Reading what a bench measured."""

from collections.abc import Iterable

from meshnode.bench.figures import Figure


def by_id(figures: Iterable[Figure]) -> dict[str, Figure]:
    """Return the figures by their ids, each of which is there once."""
    listed = list(figures)
    found = {figure.id: figure for figure in listed}
    assert len(found) == len(listed)
    return found


def values_of(figures: Iterable[Figure]) -> dict[str, float]:
    """Return the values of those figures that were measured, by id."""
    return {
        name: figure.value
        for name, figure in by_id(figures).items()
        if figure.value is not None
    }
