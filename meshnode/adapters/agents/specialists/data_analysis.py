"""Questions to a table: SQL on CSV with DuckDB, in a locked process that can be killed.

The query comes from strangers: see :mod:`.data_analysis_child` for what it can't do.
"""

from typing import Annotated, Any

import msgspec

from meshnode.adapters.agents.child_process import Limits
from meshnode.adapters.agents.function import FunctionAgent
from meshnode.adapters.agents.signature import convert
from meshnode.adapters.agents.specialists import INSTALL_HINT
from meshnode.adapters.agents.specialists.confined import run_confined
from meshnode.adapters.agents.specialists.prose import Path
from meshnode.ports import Agent, Example, JsonValue

_LIMITS = Limits(timeout_s=25.0, output_bytes_max=3_000_000, memory_bytes_max=3 * 1024**3)

Csv = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=3_000_000,
        description="CSV text; the first line names the columns.",
    ),
]
Query = Annotated[
    str,
    msgspec.Meta(
        max_length=10_000,
        description=(
            "One SQL SELECT from the table `data`; empty for an overview of every column."
        ),
    ),
]
RowsMax = Annotated[int, msgspec.Meta(ge=1, le=1_000, description="Rows, at most.")]


class Column(msgspec.Struct):
    """A column of the answer and its SQL type."""

    name: str
    type: str


class Answer(msgspec.Struct):
    """What the query found.

    Attributes:
        columns: In order.
        rows: A cell for each column; dates and what JSON can't hold as text.
        truncated: There were more rows.
    """

    columns: list[Column]
    rows: list[list[str | int | float | bool | None]]
    truncated: bool


async def analyse(
    text: Csv,
    query: Query = "",
    rows_max: RowsMax = 100,
    path: Path = "",  # noqa: ARG001 - callers may name it
) -> Answer:
    """Answer a query about a CSV table, or describe its columns."""
    request: dict[str, Any] = {"text": text, "query": query, "rows_max": rows_max}
    found: JsonValue = await run_confined(
        "data_analysis_child.py", request, _LIMITS, what="the query"
    )
    return convert(found, Answer)


_SALES = "city,month,sold\nOslo,2026-01,12\nOslo,2026-02,18\nBergen,2026-01,7\n"
EXAMPLES = (
    Example(
        {
            "text": _SALES,
            "query": "SELECT city, sum(sold) AS total FROM data GROUP BY ALL ORDER BY 2 DESC",
        },
        {
            "columns": [
                {"name": "city", "type": "VARCHAR"},
                {"name": "total", "type": "HUGEINT"},
            ],
            "rows": [["Oslo", 30], ["Bergen", 7]],
            "truncated": False,
        },
    ),
    Example(
        {"text": _SALES, "query": "SELECT max(sold) AS most FROM data"},
        {
            "columns": [{"name": "most", "type": "BIGINT"}],
            "rows": [[18]],
            "truncated": False,
        },
    ),
)


def create() -> Agent:
    """Return the agent."""
    return FunctionAgent(
        analyse,
        "data.data_analysis@1",
        name="data_analysis",
        description=(
            "Analyses tabular data in CSV: totals, averages, groups, filters, rankings and"
            " statistics of every column, by an SQL query or as an overview (DuckDB)."
        ),
        examples=EXAMPLES,
        price_mc=2,
        timeout_s=30.0,
        concurrency_max=2,
        deterministic=True,
        needs=("duckdb",),
        install_hint=INSTALL_HINT,
    )
