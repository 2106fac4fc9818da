"""Printing what others wrote: names, descriptions, errors and outputs of peers.

A peer's text may hold control characters that move the cursor, change colours or hide
what stands before.  Everything that isn't this program's own passes :func:`plain`.
"""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters of one cell or line that are shown.
_SHOWN_MAX: Final = 400
_PEER_SHOWN: Final = 8
#: Columns of a table that goes into a file or a pipe.
_FILE_WIDTH: Final = 240


def plain(text: object, *, size_max: int = _SHOWN_MAX, lines: bool = False) -> str:
    """Return ``text`` with nothing in it that a terminal would obey.

    Args:
        text: From anywhere.
        size_max: Characters shown.
        lines: Keep line breaks and tabs.
    """
    kept = "\n\t" if lines else ""
    safe = "".join(
        c if c in kept or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for c in str(text)[:size_max]
    )
    return safe + ("…" if len(str(text)) > size_max else "")


def short(peer: str) -> str:
    """Return the end of a PeerId, by which people tell peers apart."""
    return plain(peer[-_PEER_SHOWN:])


def when(at_ms: int, *, utc: bool = False) -> str:
    """Return a moment of Unix time, to the minute.

    Args:
        at_ms: The moment.
        utc: As everybody's clock shows it, for what is told to others or held against logs;
            else as the clock on this machine's wall does.
    """
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return (moment if utc else moment.astimezone()).strftime("%Y-%m-%d %H:%M")


def say_json(value: object) -> None:
    """Print one line for programs."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def console(*, errors: bool = False) -> "Console":
    """Return where to print for people."""
    from rich.console import Console

    made = Console(stderr=errors, highlight=False)
    if not made.is_terminal:
        made.width = _FILE_WIDTH  # nobody looks at a file's edge: cut nothing
    return made


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> "Table":
    """Return a table of plain cells; columns whose titles are words of ``right`` align so."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, justify="right" if title in right.split() else "left")
    for row in rows:
        made.add_row(*(Text(plain(cell)) for cell in row))
    return made


def units_table(rows: Sequence[Mapping[str, Any]]) -> "Table":
    """Return the table of a job's units, as ``GET /api/jobs/{id}`` or a proof has them."""
    return table(
        ("unit", "capability", "node", "state", "verdict", "calls", "ms", "mc", "output"),
        (
            (
                row["id"],
                row["capability"],
                short(row["node"]),
                row["state"],
                row["verdict"] or "-",
                row["items"],
                row["ms"],
                row["cost_mc"],
                (row["output"] or "-")[:12],
            )
            for row in rows
        ),
        right="calls ms mc",
    )
