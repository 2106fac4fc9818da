"""A model on a server: how it is reached, what callers may set, what its agent offers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final
from urllib.parse import urlsplit

from meshnode.errors import ConfigError
from meshnode.ports import AgentSpec, Example, JsonValue, Measures

_KEY_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")

#: Parameter that a caller may set, where the owner allows it -> its JSON Schema.
PARAMETERS: Final[Mapping[str, dict[str, JsonValue]]] = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 100_000},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    "stop": {"type": "array", "items": {"type": "string", "maxLength": 100}, "maxItems": 4},
}
#: What callers may set unless the owner says otherwise.
PARAMETERS_ALLOWED: Final = ("max_tokens", "temperature", "stop", "seed")
#: What people copy along with a base URL.
_CALLS: Final = ("/chat/completions", "/completions", "/models")
_ROLES: Final[list[JsonValue]] = ["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A model on a server.

    Attributes:
        base_url: Up to and with ``/v1``.
        model: As the server calls it.
        key_env: Environment variable that holds the key; empty for none.
        system: Said to the model before everything else; empty for nothing.
        parameters: Names of :data:`PARAMETERS` that callers may set.
        schema: JSON Schema of the answer; None for text.
    """

    base_url: str
    model: str
    key_env: str = ""
    system: str = ""
    parameters: Sequence[str] = PARAMETERS_ALLOWED
    schema: Mapping[str, JsonValue] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without asking anybody.

        Raises:
            ConfigError: Names what is wrong.
        """
        where = urlsplit(self.base_url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ConfigError(
                f"base_url {_bare(self.base_url)!r} is no URL", hint="http://HOST:PORT/v1"
            )
        if where.username or where.password or where.query:
            raise ConfigError(
                f"base_url of {where.hostname} holds a secret",
                hint="keep the key in an environment variable, and name that",
            )
        for call in _CALLS:
            if where.path.rstrip("/").endswith(call):
                raise ConfigError(
                    f"base_url {_bare(self.base_url)!r} is one call of the server",
                    hint=f"leave {call} out: {_bare(self.base_url).rstrip('/')[: -len(call)]}",
                )
        if self.key_env and not _KEY_VARIABLE.fullmatch(self.key_env):
            raise ConfigError(
                "key_env names no environment variable", hint="give its name, not the key"
            )
        for name in self.parameters:
            if name not in PARAMETERS:
                near = get_close_matches(name, list(PARAMETERS), n=1)
                raise ConfigError(
                    f"there is no parameter {name!r}"
                    + (f" (did you mean {near[0]!r}?)" if near else ""),
                    hint=f"there are {', '.join(PARAMETERS)}",
                )


def input_schema(upstream: Upstream) -> dict[str, JsonValue]:
    """Return what the agent takes: a prompt, or a conversation, and what may be tuned."""
    message: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"role": {"enum": _ROLES}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    }
    properties: dict[str, JsonValue] = {
        "prompt": {"type": "string", "description": "What the model is asked."},
        "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": 200},
        "system": {"type": "string", "description": "How it should answer."},
        **{name: dict(PARAMETERS[name]) for name in upstream.parameters},
    }
    return {
        "type": "object",
        "properties": properties,
        "anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "additionalProperties": False,
    }


def output_schema(upstream: Upstream) -> dict[str, JsonValue]:
    """Return what the agent gives: the schema it is held to, or a text."""
    if upstream.schema is not None:
        return dict(upstream.schema)
    return {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "finish_reason": {"type": "string", "description": "`length`: it was cut."},
        },
        "required": ["text"],
        "additionalProperties": False,
    }


def _bare(url: str) -> str:
    """Return ``url`` without what may be secret in it."""
    return re.sub(r"//[^/@]*@", "//…@", url).partition("?")[0][:100]


def make_spec(  # noqa: PLR0913 - the terms of an offer, all by name
    upstream: Upstream,
    *,
    name: str,
    capability: str,
    description: str = "",
    examples: Sequence[Example] = (),
    price_mc: int = 0,
    concurrency_max: int = 1,
    timeout_s: float = 300.0,
    measures: Measures = Measures(),  # noqa: B008 - frozen
) -> AgentSpec:
    """Return the offer of a model."""
    kind = capability.partition("@")[0].replace(".", " ").replace("_", " ")
    return AgentSpec(
        name=name,
        capability=capability,
        description=description
        or f"{kind.capitalize()} by the language model {upstream.model}.",
        input_schema=input_schema(upstream),
        output_schema=output_schema(upstream),
        examples=examples,
        price_mc=price_mc,
        concurrency_max=concurrency_max,
        timeout_s=timeout_s,
        model_family=re.split(r"[:/@]", upstream.model.lower())[-1][:40],
        measures=measures,
    )
