"""Runs one query with DuckDB for :mod:`.data_analysis`; a script, never imported by a node.

The table is read first; then the database is locked: no files, no network, no
extensions, no settings.  One SELECT runs, within memory and threads.
"""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import duckdb

MEMORY: Final = "512MB"
COLUMNS_MAX: Final = 500
CELL_CHARACTERS_MAX: Final = 2_000
#: Integers beyond this are no JSON numbers that everyone reads alike (RFC 8785).
INTEGER_MAX: Final = 2**53 - 1


class RefusedError(Exception):
    """What was asked can't be done; the text is for whoever asked."""


def load(text: str) -> duckdb.DuckDBPyConnection:
    """Return a locked database with the CSV ``text`` as its table ``data``."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": MEMORY,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "temp_directory": "",
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.csv")
        path.write_text(text, "utf-8", errors="replace")
        try:
            connection.execute(
                "CREATE TABLE data AS SELECT * FROM read_csv(?, sample_size=-1)", [str(path)]
            )
        except duckdb.Error as error:
            reason = str(error).replace(str(path), "the text").splitlines()[0]
            raise RefusedError(f"the text is no CSV: {reason[:300]}") from error
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    if len(connection.table("data").columns) > COLUMNS_MAX:
        raise RefusedError(f"the table has more than {COLUMNS_MAX} columns")
    return connection


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request."""
    connection = load(request["text"])
    query = request["query"] or "SUMMARIZE data"
    if request["query"]:
        _check(connection, query)
    try:
        cursor = connection.execute(query)
        rows = cursor.fetchmany(request["rows_max"] + 1)
    except duckdb.Error as error:
        columns = ", ".join(connection.table("data").columns)
        raise RefusedError(
            f"{str(error)[:500]} (the table data has: {columns[:500]})"
        ) from error
    names = [(str(column[0]), str(column[1])) for column in cursor.description or ()]
    return {
        "columns": [{"name": name, "type": kind} for name, kind in names],
        "rows": [[_cell(cell) for cell in row] for row in rows[: request["rows_max"]]],
        "truncated": len(rows) > request["rows_max"],
    }


def _check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse what is not a single SELECT."""
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise RefusedError(f"the query can't be read: {str(error)[:300]}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise RefusedError("the query should be one SELECT from the table data")


def _cell(value: object) -> Any:  # noqa: ANN401 - a JSON value
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) <= INTEGER_MAX else str(value)
        case float():
            return value if math.isfinite(value) else None
        case _:
            return str(value)[:CELL_CHARACTERS_MAX]


def main() -> None:
    """Answer the request on stdin."""
    try:
        said: dict[str, Any] = {"result": answer(json.load(sys.stdin))}
    except RefusedError as error:
        said = {"error": str(error)}
    except duckdb.Error as error:
        said = {"error": f"the data can't be used: {str(error)[:300]}"}
    print(json.dumps(said))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
