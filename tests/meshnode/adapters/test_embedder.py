"""The embedder's child: real vectors, gone when idle, back when asked, never a hang."""

import os
import signal

import pytest
import trio

from meshnode.adapters import embedder
from meshnode.adapters.agents.embeddings import load_minilm
from meshnode.adapters.embedder import ChildEmbedder
from meshnode.errors import AgentError


def product(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_vectors_are_the_models_and_near_in_meaning() -> None:
    child = ChildEmbedder()
    try:
        vectors = await child.embed(["a cat", "a kitten", "the stock market"])
        cat, kitten, market = map(list, vectors)
        assert product(cat, kitten) > product(cat, market) + 0.2
        assert cat == pytest.approx([float(x) for x in load_minilm().encode(["a cat"])[0]])
        assert child._process is not None
        assert await child.embed(["a cat"]) == [cat]
    finally:
        await child.aclose()


async def test_a_child_that_was_killed_or_idle_is_started_again() -> None:
    child = ChildEmbedder(idle_s=0.2)
    try:
        (one,) = await child.embed(["one"])
        first = child._process
        assert first is not None
        await first.wait()  # it ends by itself: nobody asked
        assert first.returncode == 0
        (two,) = await child.embed(["two"])
        second = child._process
        assert second is not None
        os.kill(second.pid, signal.SIGKILL)
        (three,) = await child.embed(["three"])
        assert len({tuple(one), tuple(two), tuple(three)}) == 3
    finally:
        await child.aclose()


async def test_a_cancelled_question_leaves_nothing_behind() -> None:
    child = ChildEmbedder()
    try:
        with trio.move_on_after(0.05) as scope:
            await child.embed(["slow start"])
        assert scope.cancelled_caught
        assert child._process is None
        (vector,) = await child.embed(["again"])
        assert len(vector) == 384
    finally:
        await child.aclose()


async def test_a_child_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedder, "_ANSWER_S", 0.0)
    child = ChildEmbedder()
    with pytest.raises(AgentError, match="no answer within"):
        await child.embed(["x"])
    assert child._process is None
