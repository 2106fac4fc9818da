"""What a model on a server can do, measured before it is offered: a claim must be true.

A few short calls one after another give the latency and how fast it writes, then two and
four at once tell how many it serves at a time.  It takes a minute at most.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import median
from typing import Any, Final

import trio

from meshnode.adapters.agents.openai_compatible import Answered, OpenAICompatibleAgent
from meshnode.errors import AgentError, AgentTimeout

CALLS: Final = 3
AT_ONCE: Final = (2, 4)
TOKENS_MAX: Final = 48
#: The whole of it, seconds.
MEASURE_S: Final = 60.0
FIRST_S: Final = 45.0
#: Naming its models takes no server long, seconds.
LIST_S: Final = 20.0
#: Twice as many at once count as served if they take less than this much longer.
_SERVED: Final = 1.5
_PROMPT: Final = "Name five colours, separated by commas."


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found.

    Attributes:
        latency_ms: Median of a short call.
        first_ms: Median until its first piece.
        tokens_per_s: How fast one answer is written; 0 where the server counts no tokens.
        concurrency: Calls that it serves at once.
        context_tokens: What the server says that the model can hold; 0 if it doesn't.
        calls: How many calls this is made of.
        sample: An answer.
    """

    latency_ms: int
    first_ms: int
    tokens_per_s: int
    concurrency: int
    context_tokens: int
    calls: int
    sample: str


async def measure(agent: OpenAICompatibleAgent, told: Callable[[str], None]) -> Measurement:
    """Measure the model behind ``agent``.

    Args:
        agent: Not hosted yet.
        told: Called with what is being done.

    Raises:
        AgentError: Server, key or model can't be used; says what to do.
    """
    told(f"asking {agent.upstream.base_url} for its models")
    described = await _find_model(agent)
    took_s: list[float] = []
    answers: list[Answered] = []
    sample = ""
    began_s = trio.current_time()
    for number in range(CALLS):
        told(f"call {number + 1} of {CALLS}")
        spent_s, told_by, text = await _call(agent, FIRST_S)
        took_s.append(spent_s)
        answers.append(told_by)
        sample = sample or text
    alone_s = median(took_s)
    concurrency, calls = 1, CALLS
    for count in AT_ONCE:
        if trio.current_time() - began_s + count * alone_s > MEASURE_S:
            break
        told(f"{count} calls at once")
        spent_s = await _at_once(agent, count)
        calls += count
        if spent_s > _SERVED * alone_s:
            break
        concurrency = count
    rates = [
        a.usage["tokens_out"] / (s - a.first_s)
        for a, s in zip(answers, took_s, strict=True)
        if a.usage.get("tokens_out") and s > a.first_s
    ]
    return Measurement(
        latency_ms=max(1, round(alone_s * 1000)),
        first_ms=round(median(a.first_s for a in answers) * 1000),
        tokens_per_s=round(median(rates)) if rates else 0,
        concurrency=concurrency,
        context_tokens=_context(described),
        calls=calls,
        sample=sample[:200],
    )


async def _find_model(agent: OpenAICompatibleAgent) -> dict[str, Any]:
    """Return what the server says of the model.

    Raises:
        AgentError: It lists models, and this isn't one of them.
    """
    with trio.move_on_after(LIST_S) as scope:
        listed = await agent.models()
    if scope.cancelled_caught:
        raise AgentTimeout(
            f"{agent.upstream.base_url} took the connection and has said nothing for"
            f" {LIST_S:g} s",
            hint="does the server hang? restart it, or --no-measure offers the model untried",
        )
    wanted = agent.upstream.model
    names = {str(each.get("id", "")): each for each in listed}
    # A server of one model, such as llama.cpp's, answers to every name; Ollama adds a tag.
    for name in (wanted, f"{wanted}:latest"):
        if name in names:
            return names[name]
    if names:
        near = get_close_matches(wanted, list(names), n=3, cutoff=0.3) or sorted(names)[:5]
        raise AgentError(
            f"the server has no model {wanted!r}",
            hint=f"load it there first, or name one that it has: {', '.join(near)}",
        )
    return {}


def _context(described: dict[str, Any]) -> int:
    meta = described.get("meta")
    places = (described, meta if isinstance(meta, dict) else {})
    for place in places:
        for name in ("max_model_len", "context_length", "context_window", "n_ctx_train"):
            if isinstance(place.get(name), int) and place[name] > 0:
                return int(place[name])
    return 0


async def _call(agent: OpenAICompatibleAgent, limit_s: float) -> tuple[float, Answered, str]:
    body = agent.body({"prompt": _PROMPT}) | {"max_tokens": TOKENS_MAX, "temperature": 0}
    told, pieces = Answered(), list[str]()
    began_s = trio.current_time()
    with trio.move_on_after(limit_s) as scope:
        async with aclosing(agent.ask(body, told)) as answer:
            async for piece in answer:
                pieces.append(piece)
    if scope.cancelled_caught:
        raise AgentError(
            f"{agent.upstream.model} gave no whole answer within {limit_s:g} s",
            hint="is it loaded? ask it once by hand, or choose a smaller model",
        )
    text = "".join(pieces)
    if not text.strip():
        raise AgentError(
            f"{agent.upstream.model} answered nothing", hint="see the server's log"
        )
    return trio.current_time() - began_s, told, text


async def _at_once(agent: OpenAICompatibleAgent, count: int) -> float:
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_call, agent, MEASURE_S)
    return trio.current_time() - began_s
