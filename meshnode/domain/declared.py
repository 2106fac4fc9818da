"""What records declare of how answers may be compared, and how far that is believed.

A sub-task that doesn't say when two answers say the same may have them grouped by what their
makers declare.  Nobody may thereby choose the check that lets him lie:

* the *narrowest* of what all of them declare counts, and ``exact`` if one declares nothing.
  Liars among themselves gain nothing by a wide one, since they may as well give the same
  answer; to be grouped with a true answer a lie needs the true one's maker to declare it;
* however wide they are, it is never wider than :data:`BOUND`: what differs by more isn't
  grouped unless who asks says so.  By meaning nothing is grouped so;
* it serves to group answers and for nothing else.  How many are asked, what is checked and
  what a check compares by stay with who asks, and so does what golds are held against.

Whoever declares ``exact`` to split true answers splits no more than if nothing was declared.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshnode.errors import InputInvalid
from protocol.errors import Malformed
from protocol.likeness import EXACT, Likeness, check_likeness

#: The widest that is believed: a thousandth, or a millionth of 1.
BOUND: Final = Likeness("numeric", relative_ppm=1_000, absolute_ppm=1)
_EXACT, _NORMALISED, _NUMERIC = range(3)


def grouping(asked: Likeness, declared: Sequence[Likeness | None]) -> Likeness:
    """Return by which likeness the answers to a sub-task are grouped.

    Args:
        asked: What the sub-task says; ``exact`` where it says nothing.
        declared: By the record of each whose answer is among them; None where it says
            nothing.
    """
    if asked != EXACT or not declared:
        return asked
    told = [EXACT if like is None else like for like in declared]
    rank = min(_rank(like) for like in (*told, BOUND))
    if rank == _EXACT:
        return EXACT
    if rank == _NORMALISED:
        return Likeness("normalised")
    return Likeness(
        "numeric",
        relative_ppm=min(like.relative_ppm for like in (*told, BOUND)),
        absolute_ppm=min(like.absolute_ppm for like in (*told, BOUND)),
    )


def read_likeness(value: object) -> Likeness | None:
    """Return the likeness that an owner writes as its kind, or as a table.

    Raises:
        InputInvalid: It is none.
    """
    if value is None or value in ("", {}):
        return None
    if isinstance(value, Likeness):
        return value
    fields = {"kind": value} if isinstance(value, str) else value
    hint = "write normalised, or {kind = 'numeric', relative_ppm = 1000}"
    if not isinstance(fields, dict) or not fields.keys() <= {*Likeness.__struct_fields__}:
        raise InputInvalid(
            f"{str(value)[:100]!r} doesn't say when answers are alike", hint=hint
        )
    try:
        like = msgspec.convert(fields, Likeness)
        check_likeness("like", like)
    except (msgspec.ValidationError, Malformed) as exc:
        raise InputInvalid(f"like: {exc}", hint=hint) from exc
    return like


def _rank(like: Likeness) -> int:
    """Return how wide a kind is; what means the same counts as written the same."""
    return {"exact": _EXACT, "numeric": _NUMERIC}.get(like.kind, _NORMALISED)
