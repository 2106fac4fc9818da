"""English as the planner reads it: words, stems, clauses, and what a clause points back to.

Rules of grammar only, no subject matter: what a clause is *about* is told by comparing
it with what agents say of themselves, not here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'’-]*|\d+(?:[.,]\d+)*")
_SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+|\n+")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|“[^”]*”|'[^']{3,}'(?!\w)|`[^`]*`")

#: Between clauses, or between parts of one; which it is, the planner weighs.
_BREAK: Final = re.compile(
    r"\s*(?:,?\s*\b(?:and\s+(?:then|after\s+that|afterwards|finally|also)|then|after\s+that|"
    r"afterwards|finally|followed\s+by|as\s+well\s+as|but\s+(?:first|also)|plus|and|or)\b"
    r"|[,:;])\s*",
    re.IGNORECASE,
)
_THEN: Final = re.compile(r"then|after|finally|follow", re.IGNORECASE)
_OPENERS: Final = re.compile(
    r"^(?:please|first(?:ly)?|second(?:ly)?|third(?:ly)?|next|then|finally|lastly|also|now|"
    r"afterwards|after that|once (?:that is|it is|this is|that's) done)\b[\s,:]*",
    re.IGNORECASE,
)
_REQUEST: Final = re.compile(
    r"^(?:(?:can|could|would|will) you|i(?:'d| would)? (?:need|want|like)(?: you)?(?: to)?|"
    r"help me(?: to)?|let me know|tell me|give me|show me|get me|find out|we need(?: to)?|"
    r"make sure(?: that)?|go ahead and|it would be good to|your task is to)\b[\s,:]*",
    re.IGNORECASE,
)
#: "Before X, Y" and "Y before X" are Y, X; "after X, Y" is X, Y.
_BEFORE: Final = re.compile(r"^before\s+(?P<last>.+?),\s*(?P<first>.+)$", re.IGNORECASE)
_AFTER: Final = re.compile(
    r"^(?:after|once|when|having)\s+(?P<first>.+?),\s*(?P<last>.+)$", re.IGNORECASE
)
_LATE_BEFORE: Final = re.compile(r"^(?P<first>.+?),?\s+before\s+(?P<last>.+)$", re.IGNORECASE)
_LATE_AFTER: Final = re.compile(
    r"^(?P<last>.+?),?\s+(?:after|once)\s+(?P<first>\w+ing\b.+)$", re.IGNORECASE
)

#: Words that say nothing of a subject.
_STOP_WORDS: Final = """
a about above across after again all also am an and any are as at be been before being both
but by can could did do does doing done down each either every everything few first for from
further get give go had has have having he her here him his how i if in into is it its just
let like me more most much my need no nor not now of off on once one only or other our out
over own per please put said same say see she should show so some such take tell than that
the their them then there these they this those through to too under until up us use using
very want was way we were what when where which while who whose why will with within without
would you your yours yourself
"""
STOP: Final = frozenset(_STOP_WORDS.split())
#: Verbs that begin requests.  A part that begins with one is a clause of its own.
_VERB_WORDS: Final = """
add adjust analyse analyze annotate answer arrange assemble assess audit book build
calculate caption categorise categorize change check choose classify clean collect combine
compare compile complete compose compress compute condense convert copy correct count create
crop cut decode describe design detect determine diagnose document download draft draw edit
encode estimate evaluate examine explain explore export extract fetch figure fill filter
find fix forecast format generate group grade identify illustrate import improve infer
inspect judge label lint list listen locate look make map mark match measure merge monitor
name normalise normalize note optimise optimize order organise organize outline paint
paraphrase parse pick plan plot polish post predict prepare proofread propose pull query
rank rate read recognise recognize recommend record redact reduce refactor remove render
repair replace reply rephrase report research resize retrieve review rewrite run scan
schedule score screen search sell send separate shorten simplify simulate sketch solve sort
speak split spot subtitle suggest summarise summarize tag take tell test tidy trace track
transcribe transform translate trim tune turn update upload validate verify visualise
visualize warn watch water weigh work write
"""
_VERBS: Final = frozenset(_VERB_WORDS.split())
_SUFFIXES: Final = (
    "isations", "izations", "isation", "ization", "ations", "ation", "ities", "ments", "ings",
    "ising", "izing", "ement", "ment", "ness", "ions", "ally", "ising", "ised", "ized", "ises",
    "izes", "ying", "ing", "ion", "ity", "ies", "ied", "ise", "ize", "ers", "ors", "est", "ed",
    "er", "or", "es", "ly", "al", "s", "e", "y",
)  # fmt: skip
_STEM_MIN: Final = 3


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, numbers too."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def stem(word: str) -> str:
    """Return what the forms of a word share, roughly: translate, translation → ``transl``."""
    for _ in range(2):
        for suffix in _SUFFIXES:
            if word.endswith(suffix) and len(word) - len(suffix) >= _STEM_MIN:
                word = word[: -len(suffix)]
                break
    return word


def stems(text: str) -> list[str]:
    """Return the stems of the words of ``text`` that say something of its subject."""
    return [
        stem(word)
        for part in words(text.replace("_", " ").replace(".", " "))
        for word in part.split("-")
        if word not in STOP and len(word) > 1 and not word[0].isdigit()
    ]


def begins_with_verb(text: str) -> bool:
    """Tell whether ``text`` begins as a request does."""
    bare = bare_request(text)
    first = words(bare)[:1]
    if not first:
        return False
    return (
        first[0] in _VERBS or first[0].endswith(("ise", "ize", "ify")) or bare != text.strip()
    )


def bare_request(text: str) -> str:
    """Return ``text`` without politeness and order words in front."""
    text = text.strip()
    while True:
        shorter = _REQUEST.sub("", _OPENERS.sub("", text)).strip()
        if shorter in ("", text):
            return text
        text = shorter


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a goal between two breaks.

    Attributes:
        text: Its words.
        link: What stood before it: ``""`` (a sentence's beginning), ``","``, ``"and"``,
            ``"then"``.
    """

    text: str
    link: str


def parts(goal: str) -> list[Part]:
    """Return the pieces of ``goal`` in the order in which they are to be done."""
    found: list[Part] = []
    for sentence in _SENTENCE.split(_QUOTED.sub("this text", goal)):
        for text, later in _in_order(sentence.strip(" \t.!?;")):
            pieces = list(_pieces(text))
            if pieces and (later or _OPENERS.match(text)) and found:
                pieces[0] = Part(pieces[0].text, "then")
            found += pieces
    return found


def _in_order(sentence: str) -> Iterator[tuple[str, bool]]:
    """Yield the halves of a sentence in the order of time, and whether "then" is between."""
    for pattern in (_BEFORE, _AFTER, _LATE_BEFORE, _LATE_AFTER):
        if found := pattern.match(sentence):
            first, last = found["first"], found["last"]
            if len(first.split()) > 1 and _can_be_clause(last) and _can_be_clause(first):
                yield _named_first(first, last), False
                yield last, True
                return
    yield sentence, False


def _can_be_clause(text: str) -> bool:
    first = words(bare_request(text))[:1]
    begins = begins_with_verb(text) or (bool(first) and first[0].endswith("ing"))
    return begins or bool(first and first[0] in {"you", "i", "we"})


def _named_first(first: str, last: str) -> str:
    """Return ``first`` with a pronoun in it replaced by what the later half calls it."""
    if re.search(r"\bit\b", first) and (noun := re.search(r"\b(?:the|my|this) [a-z]+", last)):
        return re.sub(r"\bit\b", noun[0], first, count=1)
    return first


def _pieces(sentence: str) -> Iterator[Part]:
    link, start = "", 0
    for found in _BREAK.finditer(sentence):
        text = sentence[start : found.start()].strip()
        if text:
            yield Part(text, link)
            link = ""
        said = found[0]
        if _THEN.search(said):
            link = "then"
        elif link != "then":
            link = "and" if re.search(r"\w", said) else ("," if link == "" else link)
        start = found.end()
    if rest := sentence[start:].strip():
        yield Part(rest, link)


# --- pointing back -------------------------------------------------------------------

_ALL: Final = re.compile(
    r"\b(?:both|everything|all of (?:it|them|this|that)|the (?:results|findings|outputs)|"
    r"what (?:was|is|has been|you|they) \w+|altogether)\b|"
    r"\b(?:combine|merge|compile|join)\b.*\b(?:them|these|those|results?)\b",
    re.IGNORECASE,
)
#: A pronoun as what the verb is about: it comes straight after it.
_OBJECT: Final = re.compile(
    r"^\w+(?: (?:out|up|down|through|me|for me|back|into|over))? "
    r"(?:it|them|that|this|these|those)\b(?! [a-z]+ing)|"
    r"\bthe (?:result|output|outcome)\b",
    re.IGNORECASE,
)
_OF_IT: Final = re.compile(
    r"\b(?:its|their|it|them)\b|\b(?:about|of|with|from|to) (?:that|this|these|those)\b",
    re.IGNORECASE,
)
_DEFINITE: Final = r"\b(?:the|this|that|these|those|my|our|your|his|her)"
_NOUN: Final = re.compile(rf"{_DEFINITE}\s+((?:[a-z-]+\s+){{0,3}}[a-z-]+)", re.IGNORECASE)
_THING: Final = re.compile(rf"{_DEFINITE}\s+([a-z-]+)\b", re.IGNORECASE)
_PART_OF: Final = re.compile(
    r"\b(?:from|of|in|for) (?:the|a|an|its) ([a-z-]+) of (?:the|this|that|these|my|a|an|our)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Pointing:
    """What a clause says of where its input comes from.

    Attributes:
        everything: Of all that came before.
        pronoun: A pronoun is what the verb is about.
        of_it: A pronoun only says where.
        nouns: Stems of the things that it names with a definite article.
    """

    everything: bool
    pronoun: bool
    of_it: bool
    nouns: frozenset[str]


def pointing(text: str) -> Pointing:
    """Read what ``text`` points back to."""
    nouns = [stems(found[1]) for found in _NOUN.finditer(text)]
    bare = bare_request(text)
    return Pointing(
        everything=bool(_ALL.search(text)),
        pronoun=bool(_OBJECT.search(bare)),
        of_it=bool(_OF_IT.search(bare)),
        nouns=frozenset(one for each in nouns for one in each),
    )


def without_things(text: str) -> str:
    """Return ``text`` with the things that it names with a definite article as ``it``."""
    return _THING.sub("it", text)


def whole_of(text: str) -> str:
    """Return the stem of X where ``text`` is about something "from the X of Y", or nothing."""
    found = _PART_OF.search(text)
    return " ".join(stems(found[1])) if found else ""


def similar(a: Sequence[str], b: Sequence[str]) -> bool:
    """Tell whether two lists of stems share one, or the beginning of a long one."""
    return any(x == y or _kin(x, y) for x in a for y in b)


_KIN_MIN: Final = 5


def _kin(x: str, y: str) -> bool:
    short, long = sorted((x, y), key=len)
    return len(short) >= _KIN_MIN and long.startswith(short)
