"""The sentences of a text, word for word.

Specialists quote, and a quote must be found again in what was quoted: so sentences
are slices of the text, never rebuilt.  Markdown's code, headings and tables are no
prose and are left out.  Everything here takes time in proportion to the text, whatever
it holds.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(description="The document's text, plain or Markdown.")]
Path = Annotated[str, msgspec.Meta(description="Where the text comes from; for messages.")]
Language = Annotated[
    str, msgspec.Meta(pattern="^[a-z]{2,3}$", description="ISO 639 code of the language.")
]

_FENCE = re.compile(r"\s{0,3}(```|~~~)")
_NO_PROSE = re.compile(r"\s{0,3}(#{1,6}\s|\||<|\[[^\]]*\]:|!\[|[-=*_]{3,}\s*$)")
_INDENTED = re.compile(r"(    |\t)\s*\S")
_MARKER = re.compile(r"\s*([-*+>]|\d{1,3}[.)])\s+")
# One run of stops is tried once, at its first character: linear on a line of dots.
_STOP = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]*+(?=\s|\Z)|[。！？]++[」』”’）]*+")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|cf|vs|etc|al|approx|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Eq|[A-Z])\.$"
)


def squeeze(text: str) -> str:
    """Return ``text`` with every run of whitespace as one space."""
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text`` in order; each is a slice of it."""
    return [
        sentence
        for block in blocks(text)
        for sentence in _split(block)
        if any(character.isalnum() for character in sentence)
    ]


def blocks(text: str) -> Iterator[str]:
    """Yield the paragraphs and list items of ``text`` as slices of it."""
    start, end, offset, inside, fenced = 0, 0, 0, False, False
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line) is not None
        fenced ^= fence
        marker = _MARKER.match(line)
        prose = not (fence or fenced) and _is_prose(line, marker, inside=inside)
        if inside and (marker is not None or not prose):
            yield text[start:end]
            inside = False
        if prose:
            if not inside:
                start = offset + (marker.end() if marker else 0)
            inside, end = True, offset + len(line)
        offset += len(line)
    if inside:
        yield text[start:end]


def _is_prose(line: str, marker: re.Match[str] | None, *, inside: bool) -> bool:
    """Return whether ``line`` is prose; an indented line goes on with what it is inside of."""
    if line.isspace() or _NO_PROSE.match(line):
        return False
    return inside or marker is not None or _INDENTED.match(line) is None


def _split(block: str) -> Iterator[str]:
    start = 0
    for stop in _STOP.finditer(block):
        # Only the last few characters decide; looking at the whole would be quadratic.
        if _ABBREVIATION.search(block, max(start, stop.end() - 8), stop.end()):
            continue
        if sentence := block[start : stop.end()].strip():
            yield sentence
        start = stop.end()
    if rest := block[start:].strip():
        yield rest
