"""Which of several answers to one question say the same, by what the question declares."""

from collections.abc import Sequence
from typing import Final

from meshnode.domain.likeness import grouped, texts
from meshnode.errors import AgentError
from meshnode.ports import Embedder, Emit, JsonValue
from protocol.graph import Likeness

#: Texts longer than this aren't alike by meaning: a model reads the beginning of a text, and
#: two that differ in their ends alone would have one vector.
TEXT_CHARACTERS_MAX: Final = 800


async def agreeing(
    answers: Sequence[JsonValue], like: Likeness, embedder: Embedder | None, *, emit: Emit
) -> list[list[int]]:
    """Return the places of the answers, those that say the same together.

    Where meaning can't be asked for, texts that aren't the same are taken for different: too
    many groups cost another answer, too few would take a wrong one.

    Args:
        answers: JSON values, as they came.
        like: Of the sub-task.
        embedder: What words mean; None where there is none.
        emit: Told why meaning couldn't be asked for.

    Raises:
        InputInvalid: An answer has no canonical JSON.
    """
    wanted = texts(answers, like)
    short = [text for text in wanted if len(text) <= TEXT_CHARACTERS_MAX]
    known: Sequence[Sequence[float]] = []
    if short and embedder is None:
        emit("agreement.by_words", why="this node has no embedder")
    elif short and embedder is not None:
        try:
            known = await embedder.embed(short)
        except AgentError as exc:
            emit("agreement.by_words", why=str(exc))
    size = len(known[0]) if known else 1
    # Alike to nothing, until it is known what it means.
    vectors: dict[str, Sequence[float]] = dict.fromkeys(wanted, (0.0,) * size)
    vectors |= zip(short, known, strict=False)
    return grouped(answers, like, vectors)
