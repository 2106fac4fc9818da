"""A table whose rows are made when somebody asks for them, once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from typing_extensions import override

T = TypeVar("T")


class Later(Mapping[str, T]):
    """A mapping of ``keys`` to what ``make`` makes of each.

    For what is asked of few of them: in most turns of a job nobody has to be chosen.
    """

    __slots__ = ("_keys", "_made", "_make")

    def __init__(self, keys: Iterable[str], make: Callable[[str], T]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = make
        self._made: dict[str, T] = {}

    @override
    def __getitem__(self, key: str) -> T:
        if key not in self._made:
            if key not in self._keys:
                raise KeyError(key)
            self._made[key] = self._make(key)
        return self._made[key]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    @override
    def __len__(self) -> int:
        return len(self._keys)

    @override
    def __contains__(self, key: object) -> bool:
        return key in self._keys
