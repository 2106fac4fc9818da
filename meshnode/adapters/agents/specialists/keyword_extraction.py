"""What a document is about, in its own words: YAKE.

YAKE joins and folds words as it counts; a keyword is given back only as it stands in
the text, so that whoever asked can find it there.
"""

import importlib
import re
from typing import Annotated, Any

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.prose import Language, Path, Text, blocks
from meshnode.ports import Agent, Example

_TEXT_CHARACTERS_MAX = 60_000
_KEYWORD_CHARACTERS_MAX = 100
_WORDS_IN_KEYWORD_MAX = 3

Count = Annotated[int, msgspec.Meta(ge=1, le=50, description="How many keywords, at most.")]


class Keyword(msgspec.Struct):
    """One to three words of the text.

    Attributes:
        text: As it stands in the text.
        score: How telling, YAKE's measure: the lower the better.
    """

    text: str
    score: Annotated[float, msgspec.Meta(ge=0)]


class Keywords(msgspec.Struct):
    """The keywords of a text, the most telling first."""

    keywords: list[Keyword]


def extract(
    text: Text,
    path: Path = "",  # noqa: ARG001 - callers may name it
    language: Language = "en",
    count_max: Count = 10,
) -> Keywords:
    """Find the words and phrases that tell what a document is about."""
    prose = "\n".join(blocks(text[: 2 * _TEXT_CHARACTERS_MAX]))[:_TEXT_CHARACTERS_MAX]
    prose = prose.encode(errors="replace").decode().replace("\0", " ")
    library: Any = importlib.import_module("yake")
    extractor = library.KeywordExtractor(
        lan=language, n=_WORDS_IN_KEYWORD_MAX, top=2 * count_max
    )
    found: list[Keyword] = []
    for keyword, score in extractor.extract_keywords(prose):
        verbatim = _verbatim(keyword, text)
        if verbatim and len(found) < count_max:
            found.append(Keyword(verbatim, round(max(float(score), 0.0), 6)))
    return Keywords(found)


def _verbatim(keyword: str, text: str) -> str:
    """Return ``keyword`` as it stands in ``text``, or nothing."""
    if len(keyword) > _KEYWORD_CHARACTERS_MAX:
        return ""
    if keyword in text:
        return keyword
    match = re.search(re.escape(keyword), text, re.IGNORECASE)
    return match.group() if match else ""


def _load() -> None:
    importlib.import_module("yake")


_PUMP = (
    "A heat pump moves heat instead of making it. In a mild climate it gives three to four "
    "units of heat for each unit of electricity. Cold air holds less heat."
)
EXAMPLES = (
    Example(
        {"text": _PUMP, "count_max": 2},
        {
            "keywords": [
                {"text": "pump moves heat", "score": 0.030008},
                {"text": "heat pump moves", "score": 0.030008},
            ]
        },
    ),
    Example({"path": "empty.txt", "text": ""}, {"keywords": []}),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        extract,
        "text.keyword_extraction@1",
        name="keyword_extraction",
        description=(
            "Extracts the keywords and key phrases that tell what a document is about "
            "(YAKE, statistical). Every keyword occurs in the text."
        ),
        examples=EXAMPLES,
        price_mc=2,
        timeout_s=30.0,
        deterministic=True,
        needs=("yake",),
        install_hint=INSTALL_HINT,
        prepare=_load,
    )
