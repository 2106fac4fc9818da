"""A short abstract of a document, written by the embedded model.

A very small model: it writes fluent sentences and gets facts wrong, the more so the
longer its prompt.  So it is shown the key points alone where there are any (a summary's
sentences do well), else the beginning of the text.  What it writes is for a reader after
a support check, never for a decision.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec

from meshnode.adapters.agents.answer_tokens import answer_tokens
from meshnode.adapters.agents.llamacpp import ChatModel, Usage
from meshnode.adapters.agents.signature import convert, schema_of, to_json
from meshnode.adapters.agents.specialists.prose import Path, Text, sentences, squeeze
from meshnode.errors import AgentError
from meshnode.ports import AgentCall, AgentSpec, Chunk, Example, JsonValue, Output

_TOKENS_MAX = 110
_SENTENCES_MAX = 3
_SHOWN_CHARACTERS_MAX = 900
_TITLE_CHARACTERS_MAX = 120
_TASK = "You summarize texts in two short sentences, using only what they say."

Title = Annotated[str, msgspec.Meta(description="The document's title.")]
Points = Annotated[list[str], msgspec.Meta(description="Sentences to write it from.")]


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    """What an abstract is written from."""

    text: Text
    title: Title = ""
    key_points: Points = []
    path: Path = ""


class Abstract(msgspec.Struct):
    """The abstract: a few whole sentences."""

    abstract: str


class AbstractWriter:
    """The agent; loads its model with the first call."""

    def __init__(self, model: ChatModel | None = None) -> None:
        """Write with ``model``, by default the packaged one."""
        self.model = model or ChatModel()
        self._spec = AgentSpec(
            name="abstract_writing",
            capability="text.abstract_writing@1",
            description=(
                "Writes a short abstract (two or three sentences) of a document from its "
                "title, text and key points, with a small language model; streams."
            ),
            input_schema=schema_of(Draft, "the draft"),
            output_schema=schema_of(Abstract, "the abstract"),
            examples=EXAMPLES,
            price_mc=20,
            timeout_s=120.0,
            model_family="smollm2",
        )

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    async def open(self) -> None:
        """Check that the model is installed.

        Raises:
            AgentError: It isn't.
        """
        await self.model.open()

    async def run(
        self,
        value: JsonValue,
        call: AgentCall,
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Stream what the model writes, then yield the abstract that is in it.

        That is at most three whole sentences of the first paragraph: the model likes to
        announce what it will do first, and to explain what it did afterwards.

        Raises:
            AgentError: The input is wrong, or the model failed.
        """
        prompt = _prompt(convert(value, Draft))
        usage, pieces = Usage(), list[str]()
        left = await answer_tokens(call, prompt)
        most = _TOKENS_MAX if left is None else min(left, _TOKENS_MAX)
        async with aclosing(self.model.generate(prompt, most, usage)) as stream:
            async for piece in stream:
                pieces.append(piece)
                yield Chunk(piece)
        abstract = _abstract("".join(pieces), cut=usage.finish == "length")
        if not abstract:
            raise AgentError("the model wrote nothing")
        yield Output(to_json(Abstract(abstract)), usage.tokens)

    async def aclose(self) -> None:
        """End the model's process."""
        await self.model.aclose()


def _prompt(draft: Draft) -> list[dict[str, str]]:
    """Return the messages, short enough for the model to keep to them.

    Raises:
        AgentError: There is nothing to write about.
    """
    shown = squeeze(" ".join(draft.key_points))
    if not shown:
        beginning = draft.text[: 20 * _SHOWN_CHARACTERS_MAX]
        shown = squeeze(" ".join(sentences(beginning))) or squeeze(beginning)
    if not any(character.isalnum() for character in shown[:_SHOWN_CHARACTERS_MAX]):
        raise AgentError("there are no words to write an abstract of")
    title = squeeze(draft.title)[:_TITLE_CHARACTERS_MAX]
    about = f" about {title}" if title else ""
    content = f"Summarize this text{about}:\n\n{shown[:_SHOWN_CHARACTERS_MAX]}"
    content = content.encode(errors="replace").decode().replace("\0", " ")
    return [{"role": "system", "content": _TASK}, {"role": "user", "content": content}]


def _abstract(text: str, *, cut: bool) -> str:
    """Return the abstract within ``text``; ``cut`` says that its end is missing."""
    paragraphs = [squeeze(part) for part in re.split(r"\n\s*\n", text) if part.strip()]
    wanted = [part for part in paragraphs if not part.endswith(":")] or paragraphs
    if not wanted:
        return ""
    written = sentences(wanted[0]) or [wanted[0]]
    ends_early = cut and wanted[0] is paragraphs[-1] and len(written) > 1
    if ends_early and not written[-1].endswith((".", "!", "?")):
        written = written[:-1]
    return " ".join(written[:_SENTENCES_MAX])


_PUMP = (
    "A heat pump moves heat instead of making it. In a mild climate it gives three to four "
    "units of heat for each unit of electricity. Cold air holds less heat."
)
EXAMPLES = (
    Example(
        {"title": "Heat pumps", "text": _PUMP},
        {
            "abstract": (
                "A heat pump is designed to remove heat from the environment, whereas a heat "
                "pump transfers heat from one location to another."
            )
        },
    ),
    Example(
        {"text": "", "key_points": ["Trio is a library for writing concurrent programs."]},
        {
            "abstract": (
                "Trio is a library for writing, offering a wide range of tools and services "
                "to help writers create and manage their own multi-threaded applications."
            )
        },
    ),
)


def create() -> AbstractWriter:
    """Return the agent."""
    return AbstractWriter()
