"""Pieces of sentences that several tellers share: events as lines, and explanations."""

from collections.abc import Mapping
from typing import Final, Literal

#: Whose failure an attempt was: see :class:`~meshnode.domain.facts.Failed`.
Blame = Literal["peer", "input", "artifact", "broker"]

#: What follows from it.
BLAMED: Final[Mapping[Blame, str]] = {
    "peer": "the node is held to blame, so another is preferred from then on",
    "input": "the input is held to blame: no other node would do better",
    "artifact": "an input could not be had from its holder, so the next attempt gets it from"
    " this node",
    "broker": "nobody is blamed for that",
}


def count_of(count: int, what: str) -> str:
    """Return so many of ``what``, as in ``2 batches``."""
    if count == 1:
        return f"1 {what}"
    return f"{count} {what}{'es' if what.endswith(('ch', 's', 'x')) else 's'}"


def sentence(clause: str) -> str:
    """Return a clause as a sentence of its own."""
    return f"{clause[:1].upper()}{clause[1:]}."


def how_to_get(kept: int) -> str:
    """Return what to tell who asks for the outputs of a job that ended early.

    Args:
        kept: Units whose outputs were accepted.
    """
    if not kept:
        return "it has no outputs, and none of its units was finished"
    return (
        f"it has no outputs, but those of {count_of(kept, 'unit')} were accepted:"
        " `meshnode jobs outputs JOB --partial`, or ?partial=1, has them"
    )
