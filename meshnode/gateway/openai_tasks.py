"""Between a conversation and an agent's typed input and output.

An agent says with its schemas what it takes; a chat has text.  The first way that fits is
taken: all ``messages``; a ``prompt`` (and ``system``); the one text that is required; or
the user's message itself, where it is a JSON object of the schema.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshnode.domain.graph_builder import TaskGraph
from meshnode.domain.schemas import mismatch
from meshnode.domain.values import canonical
from meshnode.gateway.openai_requests import Chat, ChatRefused
from meshnode.ports import JsonValue
from protocol import graph as protocol

#: Names of outputs and inputs that hold the text of an answer or a question.
_ANSWERS: Final = ("text", "answer", "content", "summary", "markdown")
_SYSTEM: Final = ("system", "developer")
ANSWER: Final = "answer"


def input_of(chat: Chat, schema: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the agent's input for ``chat``.

    Raises:
        ChatRefused: Text alone can't say it; shows the schema.
    """
    properties = schema.get("properties")
    fields: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
    required = [name for name in schema.get("required", []) if isinstance(name, str)]
    tuning = {name: value for name, value in chat.tuning.items() if name in fields}
    why = ""
    for candidate in _candidates(chat, fields, required):
        value = {**candidate, **tuning}
        reason = mismatch(canonical(dict(schema)), value)
        if not reason:
            return value
        why = why or f": {reason}"
    raise ChatRefused(
        f"a chat message can't be made the input of {chat.model}{why}",
        hint="send its input as a JSON object in the last message; the schema is "
        + json.dumps(schema)[:1_500],
        param="messages",
    )


def _candidates(
    chat: Chat, fields: Mapping[str, Any], required: Sequence[str]
) -> list[dict[str, JsonValue]]:
    found: list[dict[str, JsonValue]] = []
    as_object = _object(chat.goal)
    if as_object is not None:
        found.append(as_object)
    if "messages" in fields:
        messages: list[JsonValue] = [{"role": m.role, "content": m.text} for m in chat.messages]
        found.append({"messages": messages})
    system = "\n".join(m.text for m in chat.messages if m.role in _SYSTEM)
    texts = [name for name in (*required, "prompt", "text") if _is_text(fields.get(name))]
    for name in dict.fromkeys(texts):
        if system and _is_text(fields.get("system")):
            found.append({name: chat.goal, "system": system})
        found.append({name: chat.goal})
    return found


def _is_text(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


def _object(text: str) -> dict[str, JsonValue] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def graph_of_call(capability: str, value: Mapping[str, JsonValue]) -> protocol.TaskGraph:
    """Return the graph of one call."""
    graph = TaskGraph(f"chat: {capability}")
    graph.output(ANSWER, graph.task(capability, value, id="chat"))
    return graph.build()


def text_of(value: JsonValue) -> str:
    """Return an output as text: itself, its one telling field, or its JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in _ANSWERS:
            if isinstance(value.get(name), str):
                return str(value[name])
        if len(value) == 1 and isinstance(only := next(iter(value.values())), str):
            return only
    return canonical(value).decode()


def text_of_outputs(outputs: Mapping[str, JsonValue]) -> str:
    """Return what a job returns as one text; several outputs are headed by their names."""
    if len(outputs) == 1:
        return text_of(next(iter(outputs.values())))
    return "\n\n".join(f"## {name}\n\n{text_of(value)}" for name, value in outputs.items())


def streams_text(schema: Mapping[str, Any]) -> bool:
    """Tell whether what an agent streams is the beginning of its answer's text."""
    properties = schema.get("properties")
    return _is_text(schema) or (
        isinstance(properties, dict) and _is_text(properties.get("text"))
    )
