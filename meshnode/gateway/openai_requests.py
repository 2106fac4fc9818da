"""A chat completion as clients of OpenAI's API ask for it, read strictly.

What the mesh can't do is refused with the parameter's name, not ignored: a client that
asked for two answers, or for tools, would take the one plain answer for something else.
Parameters that only tune sampling go to agents that take them, and are left out otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from meshnode.gateway.auth import Refused
from meshnode.node import Terms
from meshnode.ports import JsonValue
from protocol.limits import NUMBER_MAX

ROLES: Final = ("system", "developer", "user", "assistant")
MESSAGES_MAX: Final = 1_000
#: Tuning that an agent may take under the same name.
TUNING: Final = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed",
    "presence_penalty", "frequency_penalty",
)  # fmt: skip
#: Read, or without meaning for the answer.
_KNOWN: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "mesh", "user", "metadata", "store",
     "service_tier", "n", "safety_identifier", "prompt_cache_key", *TUNING}
)  # fmt: skip


class ChatRefused(Refused):
    """A request that the mesh can't carry out as it stands."""

    code = "request.invalid"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, hint: str = "", param: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, its text parts joined."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat completion that is asked for.

    Attributes:
        model: ``mesh``, or a capability.
        messages: At least one; the last is the user's.
        stream: Send the answer piece by piece.
        usage: Of a stream, end it with what it took.
        tuning: Sampling parameters as they were given.
        terms: Budget, deadline and key of the job.
    """

    model: str
    messages: Sequence[Message]
    stream: bool = False
    usage: bool = False
    tuning: Mapping[str, JsonValue] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)

    @property
    def goal(self) -> str:
        """The last thing that the user said."""
        return self.messages[-1].text


def read_chat(data: bytes, *, idempotency_key: str = "") -> Chat:
    """Return what the body ``data`` asks for.

    Args:
        data: JSON.
        idempotency_key: Of the header of that name.

    Raises:
        ChatRefused: Names the parameter.
    """
    try:
        body = json.loads(data.decode())
    except (ValueError, RecursionError) as exc:
        raise ChatRefused(f"the body is not JSON: {exc}", hint="send a JSON object") from exc
    if not isinstance(body, dict):
        raise ChatRefused("the body is not a JSON object", hint="send model and messages")
    _refuse_others(body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ChatRefused("stream_options should be an object", param="stream_options")
    stream, terms = _flag(body, "stream"), _terms(body.get("mesh") or {}, idempotency_key)
    return Chat(
        model=_text(body, "model"),
        messages=_messages(body.get("messages")),
        stream=stream,
        usage=options.get("include_usage") is True,
        tuning={name: body[name] for name in TUNING if body.get(name) is not None},
        # Two that speak at once can't both be passed on as one answer.
        terms=replace(terms, hedges_pct=0) if stream else terms,
    )


def _refuse_others(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        harmless = value is None or value is False or value in ([], {}, "none")
        if name not in _KNOWN and not harmless:
            raise ChatRefused(
                f"{name[:60]!r} is not supported here", hint="leave it out", param=name[:60]
            )
    if body.get("n") not in (None, 1):
        raise ChatRefused("n should be 1: the mesh gives one answer", param="n")


def _messages(value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ChatRefused("messages should be a list of at least one", param="messages")
    if len(value) > MESSAGES_MAX:
        raise ChatRefused(f"more than {MESSAGES_MAX} messages", param="messages")
    found = [_message(each, f"messages[{number}]") for number, each in enumerate(value)]
    if found[-1].role != "user":
        raise ChatRefused(
            "the last message should be the user's", param=f"messages[{len(found) - 1}].role"
        )
    return found


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise ChatRefused(f"{where} should be an object", param=where)
    role = value.get("role")
    if role not in ROLES:
        raise ChatRefused(
            f"{where}.role is {role!r:.40}", hint=f"one of {', '.join(ROLES)}", param=where
        )
    return Message(role, _content(value.get("content"), f"{where}.content"))


def _content(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    parts: list[str] = []
    for part in value if isinstance(value, list) else [value]:
        text = part.get("text") if isinstance(part, dict) else None
        if (
            not isinstance(part, dict)
            or part.get("type") != "text"
            or not isinstance(text, str)
        ):
            raise ChatRefused(
                f"{where} should be text",
                hint="images, audio and files aren't read",
                param=where,
            )
        parts.append(text)
    return "\n".join(parts)


def _terms(mesh: object, header_key: str) -> Terms:
    if not isinstance(mesh, dict):
        raise ChatRefused("mesh should be an object", param="mesh")
    plain = Terms()
    known = {"budget_mc", "deadline_s", "idempotency_key"}
    for name in mesh:
        if name not in known:
            raise ChatRefused(
                f"mesh has no {name[:60]!r}", hint=f"it has {', '.join(sorted(known))}",
                param=f"mesh.{name[:60]}",
            )  # fmt: skip
    budget, deadline = mesh.get("budget_mc", plain.budget_mc), mesh.get(
        "deadline_s", plain.deadline_s
    )  # fmt: skip
    if not isinstance(budget, int) or isinstance(budget, bool) or not 0 <= budget <= NUMBER_MAX:
        raise ChatRefused("mesh.budget_mc should be a number from 0", param="mesh.budget_mc")
    if not isinstance(deadline, int | float) or isinstance(deadline, bool) or not deadline > 0:
        raise ChatRefused("mesh.deadline_s should be positive", param="mesh.deadline_s")
    key = mesh.get("idempotency_key", header_key)
    if not isinstance(key, str):
        raise ChatRefused("mesh.idempotency_key should be text", param="mesh.idempotency_key")
    return Terms(budget_mc=budget, deadline_s=float(deadline), idempotency_key=key)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ChatRefused(f"{name} should be text", hint="see GET /v1/models", param=name)
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if value not in (True, False, None):
        raise ChatRefused(f"{name} should be true or false", param=name)
    return bool(value)
