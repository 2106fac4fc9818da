"""From an outline of a goal to a task graph that can run: inputs bound, cost foreseen.

A field of a step draws, in this order, from a producer that the outline names, from what
the caller gave under its name, from the files or the text of the goal (the one field that
takes the matter), and from the clause itself (a language, one of an enum, a number that
stands beside the field's name, or all of it where a model wants to be told what to do).
What can't be inferred is named, so that the caller can give it; nothing is guessed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from meshnode.domain.graph_builder import Place, TaskGraph
from meshnode.domain.planning import Offer, Outline, fields_of, kind_of, pair_fit, required_of
from meshnode.domain.planning_words import begins_with_verb, stem, stems, words
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol import graph as protocol

FILES: Final = "files"
TEXT: Final = "text"
PATH: Final = "path"
_NAMED_MAX: Final = 12
_COUNTS: Final = ("integer", "number")

#: Where languages are asked for by code; the codes are ISO 639-1's.
_LANGUAGES: Final = {
    "arabic": "ar", "bulgarian": "bg", "catalan": "ca", "chinese": "zh", "croatian": "hr",
    "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "estonian": "et",
    "finnish": "fi", "french": "fr", "german": "de", "greek": "el", "hebrew": "he",
    "hindi": "hi", "hungarian": "hu", "icelandic": "is", "indonesian": "id", "irish": "ga",
    "italian": "it", "japanese": "ja", "korean": "ko", "latin": "la", "latvian": "lv",
    "lithuanian": "lt", "norwegian": "no", "persian": "fa", "polish": "pl",
    "portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr", "slovak": "sk",
    "slovenian": "sl", "spanish": "es", "swedish": "sv", "thai": "th", "turkish": "tr",
    "ukrainian": "uk", "vietnamese": "vi", "welsh": "cy",
}  # fmt: skip
_QUOTED: Final = re.compile(r"\"([^\"]+)\"|“([^”]+)”|'([^']{3,})'(?!\w)|`([^`]+)`", re.DOTALL)
_COLON: Final = re.compile(r"^([^:\n]{3,200}):\s+(.+)$", re.DOTALL)
_URL: Final = re.compile(r"https?://[^\s<>\"']+")
_FORMULA: Final = re.compile(r"(?=\S*\d|[a-z]\b)[-+(\w.]*(?:\s*[-+*/^=%()]\s*[\w.()]+)+[)\w]*")
_AMOUNT: Final = re.compile(r"[-+]?\d[\d,.]*\s*[A-Za-z°µ%/^]+\d?")
_TO: Final = re.compile(r"\b(?:into|to|in|as)\s+(?:an? |the )?([\w°/^%]+)\s*$", re.IGNORECASE)
_PAYLOAD_WORDS_MIN: Final = 3
#: Fields that a request in words is for, where there is no other matter.
_REQUESTS: Final = frozenset({"prompt", "question", "instruction", "instructions"})
#: Fields that say what to do with the matter.
_ORDERS: Final = ("instruction", "instructions", "system")
#: "Translate this" is about something that isn't in it.
_POINTS: Final = re.compile(r"\b(?:this|these|those|it|them)\b", re.IGNORECASE)
_NUMBERS: Final = {
    word: number
    for number, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1
    )
}
#: Parts of a field's name that say nothing of what is counted.
_BOUNDS: Final = frozenset(stem(word) for word in ("max", "min", "count", "number", "limit"))


@dataclass(frozen=True, slots=True)
class Missing:
    """Something of a step's input that nothing tells.

    Attributes:
        step: Its id in the graph.
        field: Of its input.
        description: What the schema says of it.
        kind: Its JSON type, or nothing.
    """

    step: str
    field: str
    description: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A plan that can be submitted, once nothing is missing.

    Attributes:
        graph: What is to run.
        inputs: Its inputs.
        steps: Ids of the sub-tasks, in the order of the outline's steps.
        missing: What the caller must add to ``inputs``, under the field's name.
        optional: What the caller may add.
        cost_mc: What the advertised prices come to.
        time_ms: Longest path, by the latencies that providers measured; 0 if none has.
    """

    graph: protocol.TaskGraph
    inputs: Mapping[str, JsonValue]
    steps: Sequence[str]
    missing: Sequence[Missing]
    optional: Sequence[Missing]
    cost_mc: int
    time_ms: int


def split_matter(goal: str) -> tuple[str, str]:
    """Return what ``goal`` asks for, and the text that it brings along (or nothing).

    The text stands in quotation marks, or behind a colon: ``Summarise: The tide …``.
    """
    for found in _QUOTED.finditer(goal):
        text = next(part for part in found.groups() if part)
        if len(text.split()) >= _PAYLOAD_WORDS_MIN:
            return goal[: found.start()] + "this text" + goal[found.end() :], text
    ahead = _COLON.match(goal.strip())
    if ahead is None or len(ahead[2].split()) < _PAYLOAD_WORDS_MIN:
        return goal, ""
    # "Do this: summarise it" brings no text along.
    return (goal, "") if begins_with_verb(ahead[2]) else (ahead[1], ahead[2])


@dataclass(slots=True)
class _Step:
    """A step while the graph is put together."""

    offer: Offer
    clause: str
    producers: list[int]
    place: Place | None = None
    name: str = ""
    mapped: bool = False
    calls: int = 1
    wants: list[str] = field(default_factory=list)
    may_have: list[str] = field(default_factory=list)

    def told(self, names: Sequence[str]) -> list[Missing]:
        """Return what there is to say of the fields ``names``."""
        fields = fields_of(self.offer.input_schema)
        return [
            Missing(
                self.name, name, str(fields[name].get("description", "")), kind_of(fields[name])
            )
            for name in names
        ]


class _Assembly:
    """Puts one graph together."""

    def __init__(
        self, name: str, matter: str, files: int, given: Mapping[str, JsonValue]
    ) -> None:
        self.graph = TaskGraph(name)
        self.inputs: dict[str, JsonValue] = dict(given)
        self._given = frozenset(given)
        self._matter = matter
        self._files = files

    def add(self, step: _Step, steps: Sequence[_Step]) -> None:
        """Add one step; its producers are in already."""
        inputs, each = self._from_producers(step, steps)
        required = required_of(step.offer)
        fed = bool(inputs or each)
        left = [name for name in required if name not in inputs and name not in each]
        given = [name for name in left if name in self.inputs]
        inputs |= {name: self.graph.input(name) for name in given}
        left = [name for name in left if name not in given]
        main = _main(list(required), required) if required else ""
        if not fed and main in left:
            left.remove(main)
            self._bind_matter(step, main, required[main], (inputs, each))
        for name in left:
            value = _said(name, required[name], step.clause)
            if value is None:
                step.wants.append(name)
                inputs[name] = self.graph.input(name)
            else:
                inputs[name] = value
        asked = main in inputs and inputs[main] == step.clause
        self._add_optional(step, (inputs, each), ordered=not asked)
        if each and not any(steps[p].mapped for p in step.producers):
            self._bind_path(step, each)
        step.mapped = bool(each)
        step.place = self.graph.task(step.offer.capability, inputs, each=each)
        step.name = str(step.place)

    def _add_optional(
        self, step: _Step, into: tuple[dict[str, object], dict[str, object]], *, ordered: bool
    ) -> None:
        """Bind what needn't be given, where the caller or the clause does.

        Args:
            step: The step.
            into: Its inputs, and those it maps over.
            ordered: It may be told what to do: its matter isn't the clause itself.
        """
        inputs, each = into
        fields = fields_of(step.offer.input_schema)
        orders = next((name for name in _ORDERS if name in fields), "") if ordered else ""
        for name, schema in fields.items():
            if name in inputs or name in each or name == PATH:
                continue
            if name in self._given:
                inputs[name] = self.graph.input(name)
            elif name == orders and kind_of(schema) == "string":
                inputs[name] = step.clause
            elif "enum" in schema or kind_of(schema) in _COUNTS:  # "solve" is an operation
                said = _said(name, schema, step.clause)
                inputs |= {} if said is None else {name: said}
            if name not in inputs:
                step.may_have.append(name)

    def _from_producers(
        self, step: _Step, steps: Sequence[_Step]
    ) -> tuple[dict[str, object], dict[str, object]]:
        inputs: dict[str, object] = {}
        each: dict[str, object] = {}
        for index in step.producers:
            producer = steps[index]
            assert producer.place is not None
            pairs = pair_fit(producer.offer, step.offer)
            free = [pair for pair in pairs if pair[1] not in inputs and pair[1] not in each]
            if not free:
                continue
            _, taken, out = max(free)
            place = producer.place[out] if out else producer.place
            collects = kind_of(required_of(step.offer)[taken]) == "array" and (
                kind_of(fields_of(producer.offer.output_schema)[out]) != "array"
            )
            if producer.mapped and not collects:
                each[taken] = place
                step.calls = producer.calls
            else:
                inputs[taken] = place
        return inputs, each

    def _bind_matter(
        self,
        step: _Step,
        name: str,
        schema: Mapping[str, Any],
        into: tuple[dict[str, object], dict[str, object]],
    ) -> None:
        """Bind the field that takes what the goal is about."""
        inputs, each = into
        files = self.graph.input(FILES)
        if self._files and kind_of(schema) == "array":
            inputs[name] = files.each["text"]
        elif self._files > 1:
            each[name] = files.each["text"]
            step.calls = self._files
        elif self._files:
            inputs[name] = files[0]["text"]
        elif self._matter and kind_of(schema) in ("string", ""):
            self.inputs[TEXT] = self._matter
            inputs[name] = self.graph.input(TEXT)
        elif (literal := _literal(step.clause)) and kind_of(schema) in ("string", ""):
            inputs[name] = literal
        elif name in _REQUESTS and not _POINTS.search(step.clause):
            inputs[name] = step.clause
        else:
            inputs[name] = self.graph.input(name)
            step.wants.append(name)

    def _bind_path(self, step: _Step, each: dict[str, object]) -> None:
        """Tell an agent that wants to know where a text comes from."""
        if PATH in fields_of(step.offer.input_schema) and PATH not in each:
            each[PATH] = self.graph.input(FILES).each[PATH]


def assemble(
    outline: Outline,
    *,
    matter: str,
    files: Sequence[Mapping[str, JsonValue]],
    given: Mapping[str, JsonValue],
    name: str = "",
) -> Assembled:
    """Return the graph for ``outline``.

    Args:
        outline: With at least one step.
        matter: Text that the goal brought along, or empty.
        files: ``{"path", "text"}`` of each file given.
        given: Inputs that the caller named.
        name: Of the graph.

    Raises:
        GraphError: The graph has no sense (too many steps, …).
        InputInvalid: No step takes something that was given.
    """
    _refuse_unwanted(outline, given)
    assembly = _Assembly(name, matter, len(files), given)
    if files:
        assembly.inputs[FILES] = [dict(file) for file in files]
    steps = [
        _Step(offer, clause, [p for p, c in outline.edges if c == index])
        for index, (offer, clause) in enumerate(zip(outline.steps, outline.words, strict=True))
    ]
    for step in steps:
        assembly.add(step, steps)
    consumed = {producer for producer, _ in outline.edges}
    for index, step in enumerate(steps):
        if index not in consumed:
            assert step.place is not None
            assembly.graph.output(step.name, step.place)
    return Assembled(
        graph=assembly.graph.build(),
        inputs=assembly.inputs,
        steps=[step.name for step in steps],
        missing=[want for step in steps for want in step.told(step.wants)],
        optional=[open_ for step in steps for open_ in step.told(step.may_have)],
        cost_mc=sum(step.offer.price_mc * step.calls for step in steps),
        time_ms=_longest(steps),
    )


def _refuse_unwanted(outline: Outline, given: Mapping[str, JsonValue]) -> None:
    """Refuse what no step takes: a misspelt name would be left out unnoticed."""
    taken = {name for offer in outline.steps for name in fields_of(offer.input_schema)}
    for name in given:
        if name in taken or name == FILES:
            continue
        near = get_close_matches(name, sorted(taken), n=1)
        others = ", ".join(sorted(taken)[:_NAMED_MAX])
        raise InputInvalid(
            f"nothing that this goal needs takes an input {name!r:.60}",
            hint=f"did you mean {near[0]!r}?" if near else f"there are {others}",
        )


def _longest(steps: Sequence[_Step]) -> int:
    """Return how long the longest path takes, when each map runs one call after another."""
    ends: list[int] = []
    for step in steps:
        begin = max((ends[p] for p in step.producers), default=0)
        ends.append(begin + step.offer.latency_ms * step.calls)
    return max(ends, default=0)


def _main(names: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the field that takes the matter: the first text, by habit called so."""
    for wanted in ("text", "prompt", "document", "content", "code", "input"):
        if wanted in names:
            return wanted
    texts = [name for name in names if kind_of(schemas[name]) in ("string", "")]
    return (texts or list(names))[0]


def _literal(clause: str) -> str:
    """Return the value that stands in ``clause`` itself: a URL, a formula, an amount."""
    for pattern in (_URL, _FORMULA, _AMOUNT):
        if found := pattern.search(clause):
            return found[0].strip(" .,")
    return ""


def _said(name: str, schema: Mapping[str, Any], clause: str) -> JsonValue:
    """Return what ``clause`` says for a field beside the matter, or None."""
    spoken = stems(clause)
    choices = schema.get("enum")
    if isinstance(choices, list):
        return next(
            (
                c
                for c in choices
                if isinstance(c, str) and stems(c)[:1] and set(stems(c)) <= set(spoken)
            ),
            None,
        )
    if kind_of(schema) in _COUNTS:
        return _counted(name, str(schema.get("description", "")), clause)
    if kind_of(schema) not in ("string", ""):
        return None
    languages = [word for word in words(clause) if word in _LANGUAGES]
    if languages and ("lang" in name or name in ("to", "target", "into")):
        coded = "pattern" in schema or "code" in str(schema.get("description", "")).lower()
        return _LANGUAGES[languages[-1]] if coded else languages[-1].capitalize()
    if name == "question":
        return clause
    found = _TO.search(clause)
    return found[1] if found and name in ("to", "target", "into", "tone", "unit") else None


def _counted(name: str, description: str, clause: str) -> int | None:
    """Return the number that stands beside what the field counts: "3 times", "times 3"."""
    # A field that is called `count` says in its description what it counts.
    counts = set(stems(name)) - _BOUNDS or set(stems(description)) - _BOUNDS
    spoken = words(clause)
    for index, word in enumerate(spoken):
        number = _NUMBERS.get(word, int(word) if word.isascii() and word.isdigit() else None)
        beside = spoken[max(0, index - 1) : index] + spoken[index + 1 : index + 2]
        if number is not None and counts & {stem(other) for other in beside}:
            return number
    return None
