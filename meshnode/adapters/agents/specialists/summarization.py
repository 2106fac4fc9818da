"""A summary in the text's own sentences: LexRank.

Extractive on purpose: every sentence is a slice of the text, so anyone can check the
summary with a substring search, and two honest nodes give the same one.
LexRank compares each sentence with each other, so only the first so many are looked at
(a plain thread does the work and can't be stopped: it must be short).
"""

import importlib
from collections import Counter
from functools import cache
from typing import Annotated, Any

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.prose import Path, Text, sentences, squeeze
from meshnode.ports import Agent, Example

_SENTENCES_MAX = 200
_WORDS_MIN = 4
_SENTENCE_CHARACTERS_MAX = 600
_WORD_CHARACTERS_MAX = 40
_TEXT_CHARACTERS_MAX = 400_000

Count = Annotated[int, msgspec.Meta(ge=1, le=20, description="How many sentences, at most.")]


class Summary(msgspec.Struct):
    """The sentences that say most, in the text's order.

    Attributes:
        sentences: Verbatim slices of the text.
        summary: The same as one paragraph: whitespace evened out, each with a full stop.
        sentences_seen: How many sentences were looked at.
    """

    sentences: list[str]
    summary: str
    sentences_seen: int = 0


def summarize(text: Text, path: Path = "", count_max: Count = 3) -> Summary:  # noqa: ARG001 - callers may name it
    """Pick the most central sentences of a document."""
    candidates = _candidates(text[:_TEXT_CHARACTERS_MAX])
    chosen = candidates if len(candidates) <= count_max else _choose(candidates, count_max)
    return Summary(chosen, " ".join(map(_stopped, chosen)), len(candidates))


def _stopped(sentence: str) -> str:
    """Return ``sentence`` so that another can follow it; list items often end in nothing."""
    sentence = squeeze(sentence)
    return sentence if sentences(f"{sentence} X")[1:] else sentence.rstrip(" :;,") + "."


def _candidates(text: str) -> list[str]:
    """Return distinct sentences fit for a summary, at most ``_SENTENCES_MAX``."""
    distinct: dict[str, str] = {}
    everything = sentences(text)
    for sentence in everything:
        if len(sentence) <= _SENTENCE_CHARACTERS_MAX and len(sentence.split()) >= _WORDS_MIN:
            distinct.setdefault(squeeze(sentence).casefold(), sentence)
        if len(distinct) == _SENTENCES_MAX:
            break
    if distinct:
        return list(distinct.values())
    return [sentence[:_SENTENCE_CHARACTERS_MAX].rstrip() for sentence in everything[:1]]


class _Words:
    """Splits a sentence into words; sumy's own tokenizer would download its data."""

    def to_words(self, sentence: str) -> tuple[str, ...]:
        words = "".join(c if c.isalnum() or c in "'’-" else " " for c in sentence).split()
        return tuple(word.casefold()[:_WORD_CHARACTERS_MAX] for word in words)


def _choose(candidates: list[str], count: int) -> list[str]:
    """Return ``count`` of ``candidates``, in their order.

    LexRank gives a sentence that has nothing in common with any other the score of an
    average one, so these come in only where the others don't suffice.
    """
    stop_words = _stop_words()
    contents = [frozenset(_Words().to_words(each)) - stop_words for each in candidates]
    uses = Counter(word for words in contents for word in words)
    linked = [
        each
        for each, words in zip(candidates, contents, strict=True)
        if any(uses[word] > 1 for word in words)
    ]
    if len(linked) > count:
        return _rank(linked, count)
    others = [each for each in candidates if each not in linked]
    chosen = {*linked, *others[: count - len(linked)]}
    return [each for each in candidates if each in chosen]


def _rank(candidates: list[str], count: int) -> list[str]:
    numpy: Any = importlib.import_module("numpy")
    dom: Any = importlib.import_module("sumy.models.dom")
    lex_rank: Any = importlib.import_module("sumy.summarizers.lex_rank")
    words = _Words()
    parts = [dom.Sentence(candidate, words) for candidate in candidates]
    document = dom.ObjectDocumentModel([dom.Paragraph(parts)])
    summarizer = lex_rank.LexRankSummarizer()
    summarizer.stop_words = _stop_words()
    # Sentences without a word in common give a matrix of zeros; the ranking is then the
    # text's order, which is right.
    with numpy.errstate(all="ignore"):
        chosen = {str(sentence) for sentence in summarizer(document, count)}
    return [candidate for candidate in candidates if candidate in chosen]


@cache
def _stop_words() -> frozenset[str]:
    library: Any = importlib.import_module("sumy.utils")
    return frozenset(library.get_stop_words("english"))


_PUMP = (
    "A heat pump moves heat instead of making it. In a mild climate it gives three to four "
    "units of heat for each unit of electricity. Cold air holds less heat."
)
EXAMPLES = (
    Example(
        {"text": _PUMP, "count_max": 1},
        {
            "sentences": ["A heat pump moves heat instead of making it."],
            "summary": "A heat pump moves heat instead of making it.",
            "sentences_seen": 3,
        },
    ),
    Example(
        {"path": "note.md", "text": "# Note\n\nThe meeting moved to Tuesday."},
        {
            "sentences": ["The meeting moved to Tuesday."],
            "summary": "The meeting moved to Tuesday.",
            "sentences_seen": 1,
        },
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        summarize,
        "text.summarization@1",
        name="summarization",
        description=(
            "Summarises a document by picking its most central sentences, word for word "
            "(extractive, LexRank). Every sentence can be found again in the text."
        ),
        examples=EXAMPLES,
        price_mc=3,
        timeout_s=30.0,
        deterministic=True,
        needs=("sumy", "numpy"),
        install_hint=INSTALL_HINT,
        prepare=_stop_words,
    )
