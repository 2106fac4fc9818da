"""Answers are grouped by what their sub-task declares, by meaning where that can be asked."""

from collections.abc import Sequence
from typing import Any

import trio

from meshnode.errors import AgentError
from meshnode.services.agreement import TEXT_CHARACTERS_MAX, agreeing
from protocol.graph import Likeness

MEANING = Likeness("embedding", alike_pct=80)
VECTORS = {"a cat": (1.0, 0.0), "one feline": (0.8, 0.6), "a dog": (0.0, 1.0)}
ANSWERS: list[Any] = ["a cat", "a dog", "one feline", "A cat."]


class Knows:
    """An embedder of a few texts; any other begins like the first."""

    def __init__(self, trouble: AgentError | None = None) -> None:
        self.trouble = trouble
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        await trio.lowlevel.checkpoint()
        self.asked += texts
        if self.trouble is not None:
            raise self.trouble
        return [VECTORS.get(text, (1.0, 0.0)) for text in texts]


async def groups(answers: list[Any], embedder: Knows | None, like: Likeness = MEANING) -> Any:
    """Return the groups, and why they were made by words alone."""
    told: list[str] = []

    def emit(name: str, /, **fields: object) -> None:
        assert name == "agreement.by_words"
        told.append(str(fields["why"]))

    return await agreeing(answers, like, embedder, emit=emit), told


async def test_answers_that_mean_the_same_are_together() -> None:
    assert await groups(ANSWERS, Knows()) == ([[0, 2, 3], [1]], [])


async def test_without_an_embedder_only_the_same_words_are() -> None:
    by_words = [[0, 3], [1], [2]]
    assert await groups(ANSWERS, None) == (by_words, ["this node has no embedder"])
    broken = Knows(AgentError("no model here"))
    assert await groups(ANSWERS, broken) == (by_words, ["no model here"])


async def test_other_kinds_ask_nobody() -> None:
    embedder = Knows()
    assert await groups(ANSWERS, embedder, Likeness("normalised")) == ([[0, 3], [1], [2]], [])
    assert await groups([1, 2], embedder) == ([[0], [1]], [])
    assert await groups([], embedder) == ([], [])
    assert embedder.asked == []


async def test_long_texts_with_one_beginning_are_not_the_same() -> None:
    embedder = Knows()
    start = "x" * TEXT_CHARACTERS_MAX
    assert await groups([start + " yes", start + " no"], embedder) == ([[0], [1]], [])
    assert await groups([start + " yes", start + " Yes."], embedder) == ([[0, 1]], [])
    assert embedder.asked == []
    assert (await groups([start, "a cat"], embedder))[0] == [[0, 1]]
