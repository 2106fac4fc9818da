"""When two answers say the same: declared, and decided elsewhere.

A graph says it of a sub-task and of a check, a record of what an agent gives.

Specified in protocol/spec/40-graphs.md; vectors in protocol/vectors/graphs.json and, of what
records declare, protocol/vectors/records.json.
"""

from typing import Final, Literal

import msgspec

from protocol.errors import Malformed

_MILLION: Final = 1_000_000
_ABSOLUTE_PPM_MAX: Final = 2**53 - 1


class Likeness(msgspec.Struct, frozen=True):
    """When two answers say the same.

    Whole numbers, since what is signed holds no others.

    Attributes:
        kind: ``exact`` (the same JSON), ``normalised`` (but for case, white space and a
            full stop at the end of texts), ``numeric`` (and but for small differences of
            numbers) or ``embedding`` (texts mean the same, as an embedder sees it, and the
            rest is as for ``normalised``).
        relative_ppm: By how much numbers may differ, millionths of the larger.
        absolute_ppm: By how much they may differ at least, millionths of 1.
        alike_pct: From which product of their vectors texts mean the same, hundredths.
    """

    kind: Literal["exact", "normalised", "numeric", "embedding"] = "exact"
    relative_ppm: int = 0
    absolute_ppm: int = 0
    alike_pct: int = 85


EXACT: Final = Likeness()


def check_likeness(where: str, like: Likeness) -> None:
    """Refuse numbers that are out of range.

    Raises:
        Malformed: Names ``where`` and the field.
    """
    for name, value, high in (
        ("relative_ppm", like.relative_ppm, _MILLION),
        ("absolute_ppm", like.absolute_ppm, _ABSOLUTE_PPM_MAX),
        ("alike_pct", like.alike_pct, 100),
    ):
        if not 0 <= value <= high:
            raise Malformed(f"{where}: {name} is 0 to {high}, not {value}")
