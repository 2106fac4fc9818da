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

from protocol.likeness import EXACT, Likeness

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


def _rank(like: Likeness) -> int:
    """Return how wide a kind is; what means the same counts as written the same."""
    return {"exact": _EXACT, "numeric": _NUMERIC}.get(like.kind, _NORMALISED)
