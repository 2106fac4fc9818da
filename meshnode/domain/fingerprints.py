"""Questions by whose answers models are told apart, and that look like anybody's.

Each has many right answers, so that models differ in which they give, and is put together
from lists, so that none comes twice and nobody can keep answers ready for it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from meshnode.ports import JsonValue

if TYPE_CHECKING:
    from random import Random

#: Questions of one probe: with fewer, chance makes models alike.
QUESTIONS: Final = 12
_TOKENS: Final = 24
_TEMPLATES: Final = (
    "Write the first sentence of a story about {a} and {b}.",
    "Give a short name to a shop that sells {a} and {b}.",
    "Describe {a} in one short sentence, for somebody who only knows {b}.",
    "Name one thing that {a} and {b} have in common.",
    "Complete this: when I think of {a}, I remember",
    "Write a slogan for {a}.",
    "What would you put beside {a} in a painting?",
    "Begin a letter to a friend about {a}.",
    "Suggest a title for an article on {a} and {b}.",
    "Which is more useful, {a} or {b}? Answer in one sentence.",
)
_THINGS: Final = (
    "a lighthouse",
    "old maps",
    "a bicycle",
    "winter apples",
    "a harbour",
    "copper wire",
    "a violin",
    "paper boats",
    "a night train",
    "wild geese",
    "a clock tower",
    "sea salt",
    "a greenhouse",
    "wooden spoons",
    "a market hall",
    "river stones",
    "a telescope",
    "woollen socks",
    "a library",
    "summer rain",
)


def questions(rng: "Random", count: int = QUESTIONS) -> list[str]:
    """Return so many different questions."""
    found: dict[str, None] = {}
    while len(found) < count:
        one, other = rng.sample(_THINGS, 2)
        found[rng.choice(_TEMPLATES).format(a=one, b=other)] = None
    return list(found)


def can_be_asked(input_schema: JsonValue) -> bool:
    """Tell whether an agent takes a question: a ``prompt``."""
    return _properties(input_schema).get("prompt") is not None


def asked(question: str, input_schema: JsonValue) -> dict[str, JsonValue]:
    """Return a question as an agent takes it: with a short answer, and no chance in it."""
    known = _properties(input_schema)
    tuned: dict[str, JsonValue] = {"max_tokens": _TOKENS, "temperature": 0}
    return {"prompt": question, **{k: v for k, v in tuned.items() if k in known}}


def answer_of(output: JsonValue) -> str:
    """Return the text of an answer; empty if it is none."""
    text = output.get("text") if isinstance(output, Mapping) else output
    return text if isinstance(text, str) else ""


def _properties(schema: JsonValue) -> Mapping[str, JsonValue]:
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}
