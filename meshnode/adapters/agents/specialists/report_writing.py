"""One Markdown report out of what the other specialists found.

Its input is made of parallel lists, because that is what maps over documents and files
give: the third summary belongs to the third document.  A list may be left out whole, and
an item may be null where its sub-task failed; the report then says so rather than
leaving it out.

All that it prints came from documents or from other nodes: it is escaped, so that no
quote can become a heading, a link or HTML.
"""

import re
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.specialists.keyword_extraction import Keywords
from meshnode.adapters.agents.specialists.language_identification import Identified
from meshnode.adapters.agents.specialists.prose import squeeze
from meshnode.adapters.agents.specialists.source_code import Finding, Findings, Severity
from meshnode.adapters.agents.specialists.summarization import Summary
from meshnode.adapters.agents.specialists.support_check import Support
from meshnode.errors import AgentError
from meshnode.ports import Agent, Example

T = TypeVar("T")

_CELL_CHARACTERS_MAX = 160
_FINDINGS_SHOWN_MAX = 50
_MISSING = "*not available*"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!])")
_SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


class Named(msgspec.Struct):
    """A document or file; its text may come along and is not read."""

    path: str


class Counts(msgspec.Struct):
    """The report in numbers; of sentences those that were checked."""

    documents: int
    files: int
    skipped: int
    high: int
    medium: int
    low: int
    sentences: int
    supported: int


class Report(msgspec.Struct):
    """The report and its numbers."""

    markdown: str
    counts: Counts


Title = Annotated[str, msgspec.Meta(description="Heading of the report.")]
Opening = Annotated[str, msgspec.Meta(description="Paragraph to begin with, may be empty.")]


class Contents(msgspec.Struct, kw_only=True):
    """What a report is made of; the lists of a group run parallel."""

    title: str
    abstract: str
    documents: list[Named]
    languages: list[Identified | None]
    summaries: list[Summary | None]
    keywords: list[Keywords | None]
    support: list[Support | None]
    files: list[Named]
    audits: list[Findings | None]
    lints: list[Findings | None]


def write(  # noqa: PLR0913, PLR0917 - one parameter for each list that a map gives
    title: Title,
    abstract: Opening = "",
    documents: list[Named] = [],  # noqa: B006 - these lists are read, never changed
    languages: list[Identified | None] = [],  # noqa: B006 - as above
    summaries: list[Summary | None] = [],  # noqa: B006 - as above
    keywords: list[Keywords | None] = [],  # noqa: B006 - as above
    support: list[Support | None] = [],  # noqa: B006 - as above
    files: list[Named] = [],  # noqa: B006 - as above
    audits: list[Findings | None] = [],  # noqa: B006 - as above
    lints: list[Findings | None] = [],  # noqa: B006 - as above
) -> Report:
    """Write a Markdown report about documents and code."""
    contents = Contents(
        title=title,
        abstract=abstract,
        documents=documents,
        languages=_parallel("languages", languages, "documents", documents),
        summaries=_parallel("summaries", summaries, "documents", documents),
        keywords=_parallel("keywords", keywords, "documents", documents),
        support=_parallel("support", support, "documents", documents),
        files=files,
        audits=_parallel("audits", audits, "files", files),
        lints=_parallel("lints", lints, "files", files),
    )
    counts = _count(contents)
    parts = [f"# {_escape(title) or 'Report'}", _escape(abstract), _overview(counts)]
    parts += _documents(contents) + _files(contents)
    return Report("\n\n".join(part for part in parts if part) + "\n", counts)


def _parallel(
    name: str, values: list[T | None], of_name: str, of: Sequence[Named]
) -> list[T | None]:
    if not values:
        return [None] * len(of)
    if len(values) != len(of):
        raise AgentError(
            f"{name} has {len(values)} items and {of_name} {len(of)}",
            hint="give one item, or null, for each",
        )
    return values


def _count(contents: Contents) -> Counts:
    examined = [each for each in (*contents.audits, *contents.lints) if each is not None]
    found = [finding.severity for each in examined for finding in each.findings]
    checked = [each for each in contents.support if each is not None]
    return Counts(
        documents=len(contents.documents),
        files=len(contents.files),
        skipped=sum(
            any(each is not None and each.skipped for each in pair)
            for pair in zip(contents.audits, contents.lints, strict=True)
        ),
        high=found.count("high"),
        medium=found.count("medium"),
        low=found.count("low"),
        sentences=sum(each.total for each in checked),
        supported=sum(each.supported for each in checked),
    )


def _overview(counts: Counts) -> str:
    rows = [("Documents", str(counts.documents)), ("Code files", str(counts.files))]
    if counts.skipped:
        rows.append(("Code files skipped", str(counts.skipped)))
    if counts.files:
        severe = ", ".join(f"{getattr(counts, level)} {level}" for level in _SEVERITIES)
        rows.append(("Findings", severe))
    if counts.sentences:
        rows.append(
            ("Summary sentences supported", f"{counts.supported} of {counts.sentences}")
        )
    return "## Overview\n\n" + _table(("What", "How many"), rows)


def _documents(contents: Contents) -> list[str]:
    if not contents.documents:
        return []
    parts = ["## Documents"]
    for document, language, summary, keywords, support in zip(
        contents.documents,
        contents.languages,
        contents.summaries,
        contents.keywords,
        contents.support,
        strict=True,
    ):
        terms = ", ".join(_escape(each.text) for each in keywords.keywords) if keywords else ""
        facts = [
            f"- Language: {_language(language)}",
            f"- Keywords: {terms or _MISSING}",
            f"- Support: {_support(support)}",
        ]
        quotes = [f"> {_escape(each)}" for each in summary.sentences] if summary else []
        parts += [
            f"### {_escape(document.path)}",
            "\n".join(facts),
            "\n>\n".join(quotes) or f"Summary: {_MISSING}",
        ]
        parts += _unsupported(support)
    return parts


def _language(language: Identified | None) -> str:
    if language is None:
        return _MISSING
    return f"{_escape(language.language)} ({language.confidence:.0%})"


def _support(support: Support | None) -> str:
    if support is None:
        return _MISSING
    return f"{support.supported} of {support.total} sentences supported"


def _unsupported(support: Support | None) -> list[str]:
    lost = [each for each in support.sentences if not each.supported] if support else []
    if not lost:
        return []
    rows = [(_cell(each.sentence), _cell(each.reason)) for each in lost]
    return ["Not supported:\n\n" + _table(("Sentence", "Why"), rows)]


def _files(contents: Contents) -> list[str]:
    if not contents.files:
        return []
    parts, clean, skipped = ["## Code"], list[str](), list[str]()
    for file, audit, lint in zip(contents.files, contents.audits, contents.lints, strict=True):
        lost = [name for name, each in (("audit", audit), ("lint", lint)) if each is None]
        reasons = {each.skipped for each in (audit, lint) if each is not None and each.skipped}
        found = [
            (source, finding)
            for source, each in (("audit", audit), ("lint", lint))
            for finding in (each.findings if each else ())
        ]
        if reasons:
            skipped.append(f"- {_escape(file.path)}: {_escape('; '.join(sorted(reasons)))}")
        elif not found and not lost:
            clean.append(f"- {_escape(file.path)}")
        if found or (lost and not reasons):
            parts.append(f"### {_escape(file.path)}")
            parts += [f"{name.capitalize()}: {_MISSING}" for name in lost]
        if found:
            parts.append(_findings(found))
    if clean:
        parts.append("### Nothing found\n\n" + "\n".join(clean))
    if skipped:
        parts.append("### Not examined\n\n" + "\n".join(skipped))
    return parts


def _findings(found: list[tuple[str, Finding]]) -> str:
    ordered = sorted(
        found,
        key=lambda each: (_SEVERITIES.index(each[1].severity), each[1].line, each[1].rule),
    )
    rows = [
        (
            str(each.line),
            each.severity,
            source,
            *map(_cell, (each.rule, each.message, each.quote)),
        )
        for source, each in ordered[:_FINDINGS_SHOWN_MAX]
    ]
    table = _table(("Line", "Severity", "By", "Rule", "Message", "Source"), rows)
    more = len(ordered) - len(rows)
    return table + (f"\n\n… and {more} more." if more else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    text = squeeze(text)
    if len(text) > _CELL_CHARACTERS_MAX:
        text = text[: _CELL_CHARACTERS_MAX - 1] + "…"
    return _escape(text)


def _escape(text: str) -> str:
    """Return ``text`` as one line of Markdown that shows as it is."""
    return _SPECIAL.sub(r"\\\1", squeeze(text)).replace("\0", "")


EXAMPLES = (
    Example(
        {
            "title": "Heat",
            "documents": [{"path": "heat.md"}],
            "summaries": [
                {"sentences": ["A pump moves heat."], "summary": "A pump moves heat."}
            ],
        },
        {
            "markdown": (
                "# Heat\n\n## Overview\n\n"
                "| What | How many |\n| --- | --- |\n| Documents | 1 |\n| Code files | 0 |\n\n"
                "## Documents\n\n### heat.md\n\n- Language: *not available*\n"
                "- Keywords: *not available*\n- Support: *not available*\n\n"
                "> A pump moves heat.\n"
            ),
            "counts": {
                "documents": 1,
                "files": 0,
                "skipped": 0,
                "high": 0,
                "medium": 0,
                "low": 0,
                "sentences": 0,
                "supported": 0,
            },
        },
    ),
    Example(
        {
            "title": "Code",
            "files": [{"path": "a.py"}],
            "audits": [{"path": "a.py", "findings": [], "total": 0}],
            "lints": [{"path": "a.py", "findings": [], "total": 0}],
        },
        {
            "markdown": (
                "# Code\n\n## Overview\n\n"
                "| What | How many |\n| --- | --- |\n| Documents | 0 |\n| Code files | 1 |\n"
                "| Findings | 0 high, 0 medium, 0 low |\n\n"
                "## Code\n\n### Nothing found\n\n- a.py\n"
            ),
            "counts": {
                "documents": 0,
                "files": 1,
                "skipped": 0,
                "high": 0,
                "medium": 0,
                "low": 0,
                "sentences": 0,
                "supported": 0,
            },
        },
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        write,
        "text.report_writing@1",
        name="report_writing",
        description=(
            "Writes one Markdown report from the results of other specialists: languages, "
            "summaries, keywords and support of documents, audits and lints of code."
        ),
        examples=EXAMPLES,
        price_mc=3,
        timeout_s=30.0,
        input_bytes_max=32 * 1024 * 1024,
        output_bytes_max=32 * 1024 * 1024,
        deterministic=True,
    )
