"""Task graphs as people write them: TOML or JSON text to a graph, and back to JSON.

::

    name = "review"

    [subtasks.summaries]
    capability = "text.summarization@1"
    each = ["text"]
    inputs.text = "@documents/*/text"       # the job's input `documents`, a place in it
    checks = [{ kind = "quoted", output = "/sentences/*", input = "/text" }]

    [subtasks.report]
    capability = "text.report_writing@1"
    instead = ["text.reporting"]            # what may do it when nobody does that
    inputs.title = { value = "My report" }  # a constant
    inputs.summaries = "summaries/summary"  # another sub-task's output, a place in it

    [outputs]
    report = "report/markdown"

A source is text, ``@input/pointer`` or ``subtask/pointer``, or a table:
``{value = …}``, ``{input = …}`` or ``{task = …}``, with ``pointer`` and ``readers``.
What can't be read is refused with the sub-task, its line, and what to do.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn, cast

import msgspec

from meshnode.domain.graphs import check_shape
from meshnode.domain.values import canonical, parse
from meshnode.errors import GraphError, InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import EXACT, Check, Likeness, Panel, Source, SubTask, TaskGraph

_GRAPH_KEYS: Final = ("name", "subtasks", "outputs", "v")
_SUBTASK_KEYS: Final = tuple(f for f in SubTask.__struct_fields__ if f != "id")
_SOURCE_KEYS: Final = ("value", "input", "task", "pointer", "readers")
_READERS: Final = Source(kind="value").readers


def parse_graph(text: str, *, where: str) -> TaskGraph:
    """Return the graph in ``text``: JSON if it opens with ``{``, else TOML.

    Args:
        text: The file.
        where: Its name, for messages.

    Raises:
        GraphError: Names file, line or sub-task, and what to do.
    """
    read = _read_json if text.lstrip().startswith("{") else _read_toml
    return graph_of(read(text, where), where=where, text=text)


def graph_of(value: JsonValue, *, where: str, text: str = "") -> TaskGraph:
    """Return the graph that ``value`` describes in the friendly form.

    Args:
        value: As JSON has it.
        where: Name of its source, for messages.
        text: What it was read from, to name lines.

    Raises:
        GraphError: As :func:`parse_graph`.
    """
    return _Reader(where, text).graph(value)


def graph_to_value(graph: TaskGraph) -> dict[str, JsonValue]:
    """Return ``graph`` in the friendly form."""
    return {
        "name": graph.name,
        "subtasks": {task.id: _subtask_to_value(task) for task in graph.subtasks},
        "outputs": {name: _source_to_value(source) for name, source in graph.outputs.items()},
    }


def graph_to_json(graph: TaskGraph) -> str:
    """Return ``graph`` as JSON text that :func:`parse_graph` reads."""
    return json.dumps(graph_to_value(graph), indent=2, ensure_ascii=False) + "\n"


# --- text to values ----------------------------------------------------------------


def _read_toml(text: str, where: str) -> JsonValue:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise GraphError(f"{where} is not TOML: {exc}", hint="mend that line") from exc
    except RecursionError as exc:
        raise GraphError(f"{where} is nested too deep") from exc


def _read_json(text: str, where: str) -> JsonValue:
    try:
        return cast(
            "JsonValue",
            json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant),
        )
    except json.JSONDecodeError as exc:
        raise GraphError(
            f"{where} is not JSON: {exc.msg} (at line {exc.lineno}, column {exc.colno})",
            hint="mend that line",
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise GraphError(f"{where} is not JSON: {exc}") from exc


def _unique(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Refuse a name that stands twice: the first one would be lost without a word."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name[:60]!r} stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


# --- values to a graph -------------------------------------------------------------


class _Reader:
    """Reads one file; knows its name and text for messages."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        self.text = text
        self.task = ""

    def graph(self, value: object) -> TaskGraph:
        """Read the whole."""
        table = self._table(value, "the graph")
        self._known(table, _GRAPH_KEYS, "the graph")
        tasks = self._table(table.get("subtasks", {}), "subtasks")
        if not tasks:
            self._refuse("there are no sub-tasks", hint="write one as [subtasks.NAME]")
        subtasks = []
        for name, part in tasks.items():
            self.task = name
            subtasks.append(self._subtask(name, part, tasks))
        self.task = ""
        outputs = self._table(table.get("outputs", {}), "outputs")
        if not outputs:
            self._refuse(
                "there are no outputs", hint='name what the job returns: [outputs] x = "TASK"'
            )
        graph = TaskGraph(
            name=self._text(table.get("name", ""), "name"),
            subtasks=subtasks,
            outputs={
                name: self._source(f"output {name!r}", source, tasks)
                for name, source in outputs.items()
            },
            v=self._number(table.get("v", 1), "v"),
        )
        self._check(graph)
        return graph

    def _check(self, graph: TaskGraph) -> None:
        try:
            check_shape(graph)
        except GraphError as exc:
            named = [t.id for t in graph.subtasks if f"sub-task {t.id!r}" in str(exc)]
            line = self._line(named[0]) if named else ""
            raise GraphError(f"{self.where}{line}: {exc}", hint=exc.hint) from exc

    def _subtask(self, name: str, value: object, tasks: Mapping[str, object]) -> SubTask:
        table = self._table(value, "it")
        self._known(table, _SUBTASK_KEYS, "a sub-task")
        if "capability" not in table:
            self._refuse(
                "it names no capability", hint='such as capability = "text.summarization@1"'
            )
        inputs = self._table(table.get("inputs", {}), "inputs")
        numbers = {
            key: self._number(table[key], key)
            for key in ("batch_items_max", "timeout_ms", "attempts_max")
            if key in table
        }
        return SubTask(
            id=name,
            capability=self._text(table["capability"], "capability"),
            inputs={
                field: self._source(f"input {field!r}", source, tasks)
                for field, source in inputs.items()
            },
            each=self._each(table.get("each", []), inputs),
            checks=[self._a_check(check) for check in self._list(table, "checks")],
            instead=self._texts(table.get("instead", []), "instead"),
            like=self._likeness(table.get("like", {})),
            panel=self._panel(table["panel"]) if table.get("panel") is not None else None,
            **numbers,
        )

    def _each(self, value: object, inputs: Mapping[str, object]) -> list[str]:
        fields = self._texts(value, "each")
        for field in fields:
            if field not in inputs:
                self._refuse(
                    f"each names {field!r}, which is not among its inputs"
                    + _nearest(field, inputs),
                    hint="map over an input",
                )
        return fields

    def _a_check(self, value: object) -> Check:
        table = self._table(value, "a check")
        self._known(table, Check.__struct_fields__, "a check")
        fields = dict(table)
        if "value" in fields:
            fields["value"] = self._constant("a check", fields["value"])
        fields["like"] = self._likeness(fields.get("like", {}))
        try:
            return msgspec.convert(fields, Check, builtin_types=(bytes,))
        except msgspec.ValidationError as exc:
            self._refuse(
                f"a check: {exc}", hint="kind is quoted, recompute, expected or program"
            )

    def _likeness(self, value: object) -> Likeness:
        table = {"kind": value} if isinstance(value, str) else self._table(value, "like")
        self._known(table, Likeness.__struct_fields__, "like")
        try:
            return msgspec.convert(dict(table), Likeness)
        except msgspec.ValidationError as exc:
            self._refuse(f"like: {exc}", hint="kind is exact, normalised, numeric or embedding")

    def _panel(self, value: object) -> Panel:
        table = {"question": value} if isinstance(value, str) else self._table(value, "panel")
        self._known(table, Panel.__struct_fields__, "panel")
        try:
            return msgspec.convert(dict(table), Panel)
        except msgspec.ValidationError as exc:
            self._refuse(f"panel: {exc}", hint="a question, or capability and question")

    # --- sources ---

    def _source(self, what: str, value: object, tasks: Mapping[str, object]) -> Source:
        if isinstance(value, str):
            name, slash, rest = value.removeprefix("@").partition("/")
            kind = "input" if value.startswith("@") else "task"
            table: Mapping[str, Any] = {kind: name, "pointer": slash + rest}
        elif isinstance(value, Mapping):
            table = value
        else:
            self._refuse(
                f"{what} is {value!r:.60}",
                hint=f"a constant is written {{ value = {value!r:.40} }}",
            )
        self._known(table, _SOURCE_KEYS, what)
        kinds = [kind for kind in ("value", "input", "task") if kind in table]
        if len(kinds) != 1:
            self._refuse(
                f"{what} draws from {' and '.join(kinds) or 'nothing'}",
                hint="give one of value, input and task",
            )
        return self._from_table(what, kinds[0], table, tasks)

    def _from_table(
        self, what: str, kind: str, table: Mapping[str, Any], tasks: Mapping[str, object]
    ) -> Source:
        pointer = self._text(table.get("pointer", ""), f"{what}, pointer")
        readers = self._texts(table.get("readers", _READERS), f"{what}, readers")
        if kind == "value":
            data = self._constant(what, table["value"])
            return Source(kind="value", value=data, pointer=pointer, readers=readers)
        name = self._text(table[kind], f"{what}, {kind}")
        if kind == "input":
            return Source(kind="input", name=name, pointer=pointer, readers=readers)
        if name not in tasks:
            self._refuse(
                f"{what} draws from sub-task {name[:60]!r}, which does not exist"
                + _nearest(name, tasks),
                hint="a job input is written with @ in front",
            )
        return Source(kind="task", name=name, pointer=pointer, readers=readers)

    def _constant(self, what: str, value: JsonValue) -> bytes:
        try:
            return canonical(value)
        except (InputInvalid, TypeError, ValueError) as exc:
            self._refuse(f"{what}: {value!r:.60} is no JSON value: {exc}")

    # --- pieces ---

    def _known(self, table: Mapping[str, object], keys: Iterable[str], what: str) -> None:
        known = list(keys)
        for key in table:
            if key not in known:
                self._refuse(
                    f"{what} has no {str(key)[:60]!r}{_nearest(key, known)}",
                    hint=f"it has {', '.join(known)}",
                )

    def _table(self, value: object, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._refuse(f"{what} should be a table, not {value!r:.60}")
        return value

    def _list(self, table: Mapping[str, Any], key: str) -> list[Any]:
        value = table.get(key, [])
        if not isinstance(value, list):
            self._refuse(f"{key} should be a list, not {value!r:.60}")
        return value

    def _text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            self._refuse(f"{what} should be text, not {value!r:.60}")
        return value

    def _texts(self, value: object, what: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(f"{what} should be a list of texts, not {value!r:.60}")
        return list(value)

    def _number(self, value: object, what: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self._refuse(f"{what} should be a whole number, not {value!r:.60}")
        return value

    def _refuse(self, trouble: str, *, hint: str = "") -> NoReturn:
        task = f"sub-task {self.task[:60]!r}, " if self.task else ""
        raise GraphError(f"{self.where}{self._line(self.task)}: {task}{trouble}", hint=hint)

    def _line(self, task: str) -> str:
        """Return ``, line N`` where ``task`` begins, if that can be told."""
        name = re.escape(task)
        headings = (
            rf"^\s*\[\s*subtasks\s*\.\s*['\"]?{name}['\"]?\s*\]",
            rf'"{name}"\s*:\s*\{{',
        )
        for heading in headings if task else ():
            if found := re.search(heading, self.text, re.MULTILINE):
                begin = found.start() + len(found[0]) - len(found[0].lstrip())
                return f", line {self.text.count(chr(10), 0, begin) + 1}"
        return ""


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# --- a graph to values -------------------------------------------------------------


def _subtask_to_value(task: SubTask) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] = {"capability": task.capability}
    if task.inputs:
        value["inputs"] = {name: _source_to_value(task.inputs[name]) for name in task.inputs}
    if task.each:
        value["each"] = list(task.each)
    if task.checks:
        value["checks"] = [_check_to_value(check) for check in task.checks]
    if task.instead:
        value["instead"] = list(task.instead)
    if task.like != EXACT:
        value["like"] = _likeness_to_value(task.like)
    if task.panel is not None:
        value["panel"] = {"capability": task.panel.capability, "question": task.panel.question}
    plain = SubTask(id="", capability="", inputs={})
    for key in ("batch_items_max", "timeout_ms", "attempts_max"):
        if getattr(task, key) != getattr(plain, key):
            value[key] = getattr(task, key)
    return value


def _check_to_value(check: Check) -> JsonValue:
    fields = {"kind": check.kind, "output": check.output, "input": check.input}
    value: dict[str, JsonValue] = {key: text for key, text in fields.items() if text}
    if check.value:
        value["value"] = parse(check.value)
    if check.like != EXACT:
        value["like"] = _likeness_to_value(check.like)
    return value


def _likeness_to_value(like: Likeness) -> JsonValue:
    said: dict[str, JsonValue] = {
        name: getattr(like, name)
        for name in Likeness.__struct_fields__
        if name == "kind" or getattr(like, name) != getattr(EXACT, name)
    }
    return like.kind if len(said) == 1 else said


def _source_to_value(source: Source) -> JsonValue:
    given = source.readers != _READERS
    if source.kind != "value" and not given:
        return ("@" if source.kind == "input" else "") + source.name + source.pointer
    table: dict[str, JsonValue] = {}
    table[source.kind] = parse(source.value) if source.kind == "value" else source.name
    if source.pointer:
        table["pointer"] = source.pointer
    if given:
        table["readers"] = list(source.readers)
    return table
