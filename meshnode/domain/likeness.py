"""When two answers say the same: declared by whoever asks, decided without asking anybody.

One question with many uses.  An answer that is like the expected one is right; one that is
like what this node computed is confirmed; replicas' answers are grouped by likeness before
they are counted.  What counts as the same depends on the task, so the task says it
(``like`` of a sub-task or a check, 40-graphs.md); nothing is guessed from the values.

Only differences that can't carry meaning are passed over.  So text is compared in Unicode's
canonical form and not in its compatible one, which turns 10² into 102, and no punctuation is
dropped but one full stop at the end: ``-5`` isn't ``5``.

Likeness by tolerance isn't transitive: 1.0 is like 1.1, and that like 1.2.  In a group each
is therefore like *every* other, so that nobody can bridge two answers with one in between.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from meshnode.domain.values import canonical
from meshnode.ports import JsonValue
from protocol.graph import EXACT, Likeness

Vectors = Mapping[str, Sequence[float]]

_MILLION: Final = 1_000_000
_PERCENT: Final = 100


_NONE: Final[Vectors] = {}


def equivalent(
    one: JsonValue, other: JsonValue, kind: Likeness = EXACT, vectors: Vectors = _NONE
) -> bool:
    """Tell whether two answers say the same.

    Reflexive and symmetric for every kind; transitive for ``exact`` and ``normalised``.

    Args:
        one: JSON that has a canonical form.
        other: Likewise.
        kind: How they are compared.
        vectors: Of length 1, for every text of :func:`texts` of both; for ``embedding``.

    Raises:
        KeyError: A vector is missing.
        InputInvalid: An answer has no canonical JSON.
    """
    if kind.kind == "exact":
        return canonical(one) == canonical(other)
    # By hand and not by recursion: an answer may be nested deeper than Python's stack is.
    waiting = [(one, other)]
    while waiting:
        left, right = waiting.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            waiting += [(left[name], right[name]) for name in left]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            waiting += zip(left, right, strict=True)
        elif not _same_leaf(left, right, kind, vectors):
            return False
    return True


def grouped(
    answers: Sequence[JsonValue], kind: Likeness = EXACT, vectors: Vectors = _NONE
) -> list[list[int]]:
    """Return the places of the answers, those that say the same together.

    Whatever order the answers come in, the groups are the same.

    Args:
        answers: As they came.
        kind: How they are compared.
        vectors: See :func:`equivalent`.

    Returns:
        The largest group first, and of two as large the one with the earlier answer; in a
        group the earlier place first.

    Raises:
        KeyError: As :func:`equivalent`.
        InputInvalid: Likewise.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(answers)), key=lambda n: canonical(answers[n])):
        for group in groups:
            if all(equivalent(answers[place], answers[n], kind, vectors) for n in group):
                group.append(place)
                break
        else:
            groups.append([place])
    return sorted((sorted(group) for group in groups), key=lambda g: (-len(g), g[0]))


def texts(answers: Sequence[JsonValue], kind: Likeness) -> list[str]:
    """Return the texts whose vectors :func:`equivalent` needs, each once."""
    if kind.kind != "embedding":
        return []
    return list(dict.fromkeys(text for answer in answers for text in _texts_in(answer)))


def normalised(text: str) -> str:
    """Return ``text`` without case, with single spaces, without a full stop at its end."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split()).removesuffix(".").rstrip()


def _texts_in(answer: JsonValue) -> Iterator[str]:
    waiting = [answer]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value


def _same_leaf(one: JsonValue, other: JsonValue, kind: Likeness, vectors: Vectors) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        if normalised(one) == normalised(other):
            return True
        return kind.kind == "embedding" and _product(vectors[one], vectors[other]) >= (
            kind.alike_pct / _PERCENT
        )
    if _is_number(one) and _is_number(other):
        assert isinstance(one, int | float)
        assert isinstance(other, int | float)
        return one == other or (kind.kind == "numeric" and _is_near(one, other, kind))
    return type(one) is type(other) and one == other


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_near(one: float, other: float, kind: Likeness) -> bool:
    size = max(abs(one), abs(other))
    allowed = max(size * (kind.relative_ppm / _MILLION), kind.absolute_ppm / _MILLION)
    return abs(one - other) <= allowed


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
