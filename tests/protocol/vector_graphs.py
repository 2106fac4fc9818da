"""Vectors of task graphs."""

from collections.abc import Callable, Iterator
from typing import Any

from protocol import codec
from protocol.graph import Check, Likeness, Panel, Source, encode_graph
from tests.protocol import samples
from tests.protocol.vector_answers import MALFORMED, Case, ok


def graph_cases() -> Iterator[Case]:
    """Task graphs; an accepted one has one order."""
    subtask, graph = samples.subtask, samples.graph

    def one(**fields: Any) -> bytes:
        return encode_graph(graph(subtask("a", **fields)))

    def drawing(**fields: Any) -> bytes:
        return one(inputs={"x": Source(**fields)})

    yield "a map and what draws from it", {}, encode_graph(graph()), ok(["audit", "report"])
    diamond = graph(subtask("d", "b", "c"), subtask("c", "a"), subtask("b", "a"), subtask("a"))
    yield "a diamond, ties by id", {}, encode_graph(diamond), ok(["a", "b", "c", "d"])
    fields = codec.decode(encode_graph(graph(subtask("a"))))
    assert isinstance(fields, dict)
    yield "a field of a later version", {}, codec.encode(fields | {"zz": 0}), ok(["a"])
    for why, data in (
        ("version 2", codec.encode(fields | {"v": 2})),
        ("no sub-task", codec.encode(fields | {"subtasks": []})),
        ("no output", codec.encode(fields | {"outputs": {}})),
        ("a cycle", encode_graph(graph(subtask("a", "b"), subtask("b", "a")))),
        ("a sub-task that draws from itself", encode_graph(graph(subtask("a", "a")))),
        ("a dangling edge", encode_graph(graph(subtask("a", "ghost")))),
        ("two sub-tasks of one id", encode_graph(graph(subtask("a"), subtask("a")))),
        ("an id in capitals", encode_graph(graph(subtask("A")))),
        ("no capability", one(capability="")),
        ("maps over what is not an input", one(each=["ghost"])),
        ("maps twice over one field", one(each=["text", "text"])),
        ("no attempt", one(attempts_max=0)),
        ("11 attempts", one(attempts_max=11)),
        ("a negative timeout", one(timeout_ms=-1)),
        ("a constant without a value", drawing(kind="value")),
        ("a job input that can't be named", drawing(kind="input", name="a/b")),
        ("a pointer without its slash", drawing(kind="input", name="x", pointer="a")),
        ("a pointer with half an escape", drawing(kind="input", name="x", pointer="/~")),
        ("a source of a kind that is not", codec.encode(_with_kind(fields, "web"))),
        ("keys out of order", b"\x81" + b"\xa1v\x01" + b"\xa1a\x01"),
    ):
        yield why, {}, data, MALFORMED
    yield "what may be done instead", {}, one(instead=["text", "code.lint@2"]), ok(["a"])
    none = {**fields["subtasks"][0], "instead": []}
    yield "nothing, said", {}, codec.encode(fields | {"subtasks": [none]}), ok(["a"])
    for why, names in (
        ("instead of it something without a name", [""]),
        ("instead of it five others", [f"text@{n}" for n in range(1, 6)]),
    ):
        yield why, {}, one(instead=names), MALFORMED
    yield from _check_cases(one, fields)
    yield from _panel_cases(one, fields)


def _check_cases(one: Callable[..., bytes], fields: dict[str, Any]) -> Iterator[Case]:
    """What outputs are held against, and when two of them say the same."""
    near = Likeness("numeric", relative_ppm=1_000_000, absolute_ppm=2**53 - 1, alike_pct=0)
    cases = b'[{"args":[2],"call":"double","gives":4}]'
    for why, check in (
        (
            "a value that is expected",
            Check(kind="expected", output="/n", value=b"4", like=near),
        ),
        ("a program with cases of its own", Check(kind="program", output="/code", value=cases)),
        ("a program with cases in the input", Check(kind="program", input="/cases")),
        ("a recomputed number that is near", Check(kind="recompute", like=near)),
    ):
        yield why, {}, one(checks=[check]), ok(["a"])
    yield "answers that mean the same", {}, one(like=Likeness("embedding")), ok(["a"])
    yield "16 checks", {}, one(checks=[Check(kind="recompute")] * 16), ok(["a"])
    plain = {"kind": "quoted", "output": "", "input": "", "value": b"", "like": {}}
    silent = {**fields["subtasks"][0], "checks": [plain], "like": {"kind": "exact"}}
    yield (
        "likeness, said and silent",
        {},
        codec.encode(fields | {"subtasks": [silent]}),
        ok(["a"]),
    )
    meaning = Likeness("embedding")
    for why, check in (
        ("expects nothing", Check(kind="expected")),
        ("a value to recompute", Check(kind="recompute", value=b"4")),
        ("a value to be quoted", Check(kind="quoted", value=b'"x"')),
        ("quoted nearly", Check(kind="quoted", like=Likeness("normalised"))),
        ("expected in meaning", Check(kind="expected", value=b'"x"', like=meaning)),
        ("recomputed in meaning", Check(kind="recompute", like=meaning)),
        ("off by more than all", Check(kind="recompute", like=Likeness("numeric", 1_000_001))),
        ("off by less than nothing", Check(kind="recompute", like=Likeness("numeric", 0, -1))),
    ):
        yield f"a check: {why}", {}, one(checks=[check]), MALFORMED
    yield "17 checks", {}, one(checks=[Check(kind="recompute")] * 17), MALFORMED
    for alike_pct in (-1, 101):
        like = Likeness("embedding", alike_pct=alike_pct)
        yield f"alike from {alike_pct} hundredths on", {}, one(like=like), MALFORMED
    task = fields["subtasks"][0]
    for why, wrong in (
        ("a check of a kind that is not", task | {"checks": [{"kind": "believed"}]}),
        ("likeness of a kind that is not", task | {"like": {"kind": "sounds"}}),
    ):
        yield why, {}, codec.encode(fields | {"subtasks": [wrong]}), MALFORMED


def _panel_cases(one: Callable[..., bytes], fields: dict[str, Any]) -> Iterator[Case]:
    """Who is asked when nothing else decides."""
    task = fields["subtasks"][0]
    silent = codec.encode(fields | {"subtasks": [task | {"panel": None}]})
    yield "a panel", {}, one(panel=Panel(question="Which is truer?")), ok(["a"])
    yield "a panel of others", {}, one(panel=Panel(capability="code.judging")), ok(["a"])
    yield "the longest question", {}, one(panel=Panel(question="q" * 2_000)), ok(["a"])
    yield "no panel, said", {}, silent, ok(["a"])
    longer = one(panel=Panel(question="q" * 2_001))
    yield "a question of 2,001 characters", {}, longer, MALFORMED
    yield "a panel of nobody", {}, one(panel=Panel(capability="")), MALFORMED
    wrong = codec.encode(fields | {"subtasks": [task | {"panel": "all"}]})
    yield "a panel that is a word", {}, wrong, MALFORMED


def _with_kind(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    source = {"kind": kind, "name": "x"}
    task = {"id": "a", "capability": "text@1", "inputs": {"x": source}}
    return fields | {"subtasks": [task]}
