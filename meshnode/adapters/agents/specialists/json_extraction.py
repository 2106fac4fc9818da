"""Named values out of a text: the embedded model, held to a JSON Schema as it writes.

The grammar made from the schema keeps the model to its shape, and the result is checked
against the schema all the same.  The model is small: it copies what stands in a short
text, and is no judge of what is missing: of 19 fields of five texts written for it, 15
came back right.  A field that the text doesn't hold may come back made up, which is why
``grounded`` says of every text value whether it stands there.
"""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Annotated, Any

import jsonschema_rs
import msgspec

from meshnode.adapters.agents.answer_tokens import answer_tokens
from meshnode.adapters.agents.llamacpp import ChatModel, Usage
from meshnode.adapters.agents.signature import convert, schema_of, to_json
from meshnode.errors import AgentError, OutputInvalid
from meshnode.ports import AgentCall, AgentSpec, Chunk, Example, JsonValue, Output

_TOKENS_MAX = 400
_TEXT_CHARACTERS_MAX = 3_000
_SCHEMA_BYTES_MAX = 4_000
_FIELDS_MAX = 20
#: What a field may be told to be; no patterns, no references: schemas come from strangers.
_FIELD_KEYS = {"type", "description", "enum"}
_TYPES = {"string", "number", "integer", "boolean"}
#: A small model does as it is shown, better than as it is told.
_SHOWN: tuple[tuple[str, str, str], ...] = (
    (
        "Peter Smith from Leeds paid 30 pounds on 4 July.",
        "city, name, amount",
        '{"city": "Leeds", "name": "Peter Smith", "amount": 30}',
    ),
    (
        "On Monday a red car was sold by Acme Ltd.",
        "company, day, colour",
        '{"company": "Acme Ltd", "day": "Monday", "colour": "red"}',
    ),
)


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be found where.

    Attributes:
        text: The first 3,000 characters are read.
        fields: Name -> JSON Schema of a string, number, integer, boolean, enum, or a list
            of one of these.
    """

    text: Annotated[str, msgspec.Meta(description="The text to read, plain.")]
    fields: Annotated[
        dict[str, dict[str, Any]],
        msgspec.Meta(
            min_length=1,
            max_length=_FIELDS_MAX,
            description='Name to JSON Schema, such as {"city": {"type": "string"}}.',
        ),
    ]


class Extracted(msgspec.Struct):
    """What was found.

    Attributes:
        values: A value for each field.
        grounded: Field -> whether every text in its value stands in the text.
    """

    values: dict[str, Any]
    grounded: dict[str, bool]


class JsonExtractor:
    """The agent; holds the model's process between calls."""

    def __init__(self, model: ChatModel | None = None) -> None:
        """Take a model; the packaged one by default."""
        self.model = model or ChatModel()

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return AgentSpec(
            name="json_extraction",
            capability="text.json_extraction@1",
            description=(
                "Extracts named fields from a short text, such as names, dates, amounts and"
                " places from an invoice or a message, as JSON of the types that are asked"
                " for (small embedded language model under a grammar)."
            ),
            input_schema=schema_of(Request, "the input"),
            output_schema=schema_of(Extracted, "the output"),
            examples=EXAMPLES,
            price_mc=5,
            timeout_s=120.0,
            model_family="smollm2",
            deterministic=False,
        )

    async def open(self) -> None:
        """Check that the model is there; it is loaded by the first call.

        Raises:
            AgentError: It isn't.
        """
        await self.model.open()

    async def run(
        self,
        value: JsonValue,
        call: AgentCall,
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Extract once.

        Raises:
            AgentError: The input is wrong, or the model failed.
            OutputInvalid: The model ended before its answer was whole.
        """
        request = convert(value, Request)
        schema = object_schema(request.fields)
        usage, pieces = Usage(), list[str]()
        prompt = _prompt(request)
        left = await answer_tokens(call, prompt)
        most = _TOKENS_MAX if left is None else min(left, _TOKENS_MAX)
        stream = self.model.generate(prompt, most, usage, schema=schema)
        async with aclosing(stream) as answer:
            async for piece in answer:
                pieces.append(piece)
                yield Chunk(piece)
        yield Output(to_json(_read("".join(pieces), schema, request.text)), usage.tokens)

    async def aclose(self) -> None:
        """End the model's process."""
        await self.model.aclose()


def object_schema(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of an object with ``fields``, all required.

    Raises:
        AgentError: A field's schema says more than is allowed here.
    """
    for name, field in fields.items():
        inner = field.get("items", {}) if field.get("type") == "array" else field
        allowed = {"type", "description", "items"} if inner is not field else _FIELD_KEYS
        fits = (
            isinstance(inner, dict) and inner.keys() <= _FIELD_KEYS and field.keys() <= allowed
        )
        if not fits or inner.get("type", "string") not in _TYPES:
            raise AgentError(
                f"field {name[:60]!r} can't be extracted: {json.dumps(field)[:100]}",
                hint=f"type is one of {', '.join(sorted(_TYPES))}, or an array of one; or enum",
            )
    schema = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    size = len(json.dumps(schema))
    if size > _SCHEMA_BYTES_MAX:
        raise AgentError(f"the fields take {size} bytes, at most {_SCHEMA_BYTES_MAX} are read")
    try:
        jsonschema_rs.meta.validate(schema)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise AgentError(f"the fields are no JSON Schema: {str(error)[:200]}") from error
    return schema


def _prompt(request: Request) -> list[dict[str, str]]:
    text = request.text[:_TEXT_CHARACTERS_MAX].encode(errors="replace").decode()
    text = " ".join(text.replace("\0", " ").split())
    if not text:
        raise AgentError("there is no text to extract from")
    messages: list[dict[str, str]] = []
    wanted = ", ".join(_wanted(name, field) for name, field in request.fields.items())
    for shown, names, answer in _SHOWN:
        messages += [_asked(shown, names), {"role": "assistant", "content": answer}]
    return [*messages, _asked(text, wanted)]


def _wanted(name: str, field: dict[str, Any]) -> str:
    description = field.get("description")
    return f"{name} ({description})" if description else name


def _asked(text: str, wanted: str) -> dict[str, str]:
    return {"role": "user", "content": f"Text: {text}\nFind: {wanted}"}


def _read(answer: str, schema: dict[str, Any], text: str) -> Extracted:
    try:
        values = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise OutputInvalid(
            f"the model's answer is no whole JSON: {answer[:100]!r}",
        ) from error
    if (wrong := next(jsonschema_rs.iter_errors(schema, values), None)) is not None:
        raise OutputInvalid(f"the model's answer doesn't fit: {wrong.message[:200]}")
    plain = " ".join(text.split()).lower()
    grounded = {
        name: all(" ".join(part.split()).lower() in plain for part in _texts(value))
        for name, value in values.items()
    }
    return Extracted(values, grounded)


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


EXAMPLES = (
    Example(
        {
            "text": "Invoice 4711 from Nordlys AS in Oslo, 3 March 2026: 1250 kroner.",
            "fields": {"company": {"type": "string"}, "amount": {"type": "integer"}},
        },
        {
            "values": {"company": "Nordlys AS", "amount": 1250},
            "grounded": {"company": True, "amount": True},
        },
    ),
    Example(
        {
            "text": "Please send two blue chairs to Anna by Friday.",
            "fields": {"colour": {"enum": ["red", "green", "blue"]}},
        },
        {"values": {"colour": "blue"}, "grounded": {"colour": True}},
    ),
)


def create() -> JsonExtractor:
    """Return the agent."""
    return JsonExtractor()
