"""How a text feels: VADER, a lexicon with rules for negation, emphasis and emoji.

Judged sentence by sentence, so that time stays in proportion to the text.
"""

import importlib
from functools import cache
from typing import Annotated, Any, Literal

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.prose import Path, Text, sentences, squeeze
from meshnode.ports import Agent, Example

_SENTENCES_MAX = 500
_SENTENCE_CHARACTERS_MAX = 1_000
#: The lexicon's authors' own bounds of what is neutral.
_NEUTRAL_MAX = 0.05

Score = Annotated[float, msgspec.Meta(ge=-1, le=1)]
Label = Literal["positive", "neutral", "negative"]


class Felt(msgspec.Struct):
    """A sentence and its score."""

    text: str
    label: Label
    score: Score


class Sentiment(msgspec.Struct):
    """How a text feels.

    Attributes:
        label: Of the whole.
        score: Mean of the sentences that aren't neutral, -1 (negative) to 1 (positive).
        sentences: In order, the first 500.
    """

    label: Label
    score: Score
    sentences: list[Felt]


def judge(text: Text, path: Path = "") -> Sentiment:  # noqa: ARG001 - callers may name it
    """Tell whether an English text is positive, neutral or negative, and each sentence."""
    found = [
        _felt(sentence) for sentence in (sentences(text) or [squeeze(text)])[:_SENTENCES_MAX]
    ]
    telling = [each.score for each in found if each.label != "neutral"]
    score = round(sum(telling) / len(telling), 4) if telling else 0.0
    return Sentiment(_label(score), score, [each for each in found if each.text])


def _felt(sentence: str) -> Felt:
    shown = sentence[:_SENTENCE_CHARACTERS_MAX]
    score = float(
        _analyser().polarity_scores(shown.encode(errors="replace").decode())["compound"]
    )
    return Felt(shown, _label(score), score)


def _label(score: float) -> Label:
    if abs(score) < _NEUTRAL_MAX:
        return "neutral"
    return "positive" if score > 0 else "negative"


@cache
def _analyser() -> Any:  # noqa: ANN401 - the library is imported late and untyped
    library: Any = importlib.import_module("vaderSentiment.vaderSentiment")
    return library.SentimentIntensityAnalyzer()


EXAMPLES = (
    Example(
        {"text": "The staff were kind and the food was wonderful! The room was not clean."},
        {
            "label": "positive",
            "score": 0.2517,
            "sentences": [
                {
                    "text": "The staff were kind and the food was wonderful!",
                    "label": "positive",
                    "score": 0.8122,
                },
                {"text": "The room was not clean.", "label": "negative", "score": -0.3089},
            ],
        },
    ),
    Example({"text": ""}, {"label": "neutral", "score": 0.0, "sentences": []}),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        judge,
        "text.sentiment@1",
        name="sentiment",
        description=(
            "Tells whether a text such as a review, a comment or a message is positive,"
            " negative or neutral, with a score for each sentence (VADER, English)."
        ),
        examples=EXAMPLES,
        price_mc=1,
        timeout_s=20.0,
        concurrency_max=2,
        deterministic=True,
        needs=("vaderSentiment",),
        install_hint=INSTALL_HINT,
        prepare=_analyser,
    )
