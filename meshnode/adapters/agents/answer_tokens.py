"""How long a model's answer may be, where the job limits its model tokens.

What a model reads counts with what it writes, and how much it reads only its tokenizer
knows.  So that is guessed from the bytes of what is asked: too few tokens for an answer
cut it short, too many are found when it has ended, and then nobody is paid for it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshnode.errors import TokensReached
from meshnode.ports import AgentCall

#: Bytes of one model token.  English has about four in most models, other languages and
#: code fewer (https://help.openai.com/en/articles/4936856).
_TOKEN_BYTES: Final = 3
#: What a chat template adds to a message: its role and its ends.
_MESSAGE_TOKENS: Final = 8


async def answer_tokens(call: AgentCall, messages: Iterable[Mapping[str, Any]]) -> int | None:
    """Return how many model tokens the answer to ``messages`` may have; None for any number.

    Args:
        call: What its award leaves is looked up.
        messages: ``{"role": …, "content": …}`` in order.

    Raises:
        TokensReached: What is asked leaves no room for an answer.
    """
    left = await call.tokens()
    if left is None:
        return None
    read = sum(
        _MESSAGE_TOKENS
        + len(str(message.get("content", "")).encode(errors="replace")) // _TOKEN_BYTES
        for message in messages
    )
    if read >= left:
        raise TokensReached(
            f"the token limit is reached: about {read} model tokens would be read, and the"
            f" award has {left} left; whose job it is may raise tokens_max"
        )
    return left - read
