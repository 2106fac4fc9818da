"""What the demo shows: the graph filling in live, and the report's account of who did what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from meshnode.domain.provenance import Provenance

_BAR_WIDTH = 24


def live(
    job: Mapping[str, Any] | None, nodes: Sequence[str], elapsed_s: float
) -> RenderableType:
    """Return the picture of a job as ``GET /api/jobs/{id}`` tells it.

    Args:
        job: The answer, or None before there is a job.
        nodes: Names of the mesh's processes.
        elapsed_s: Since the demo began.
    """
    head = Text(f"{len(nodes)} processes: {', '.join(nodes)}   {elapsed_s:.0f} s", style="dim")
    if job is None:
        return Group(head, Text("finding each other…"))
    table = Table(expand=False)
    for title in ("sub-task", "progress", "items", "nodes", "verdict", "mc"):
        table.add_column(title, justify="right" if title in {"items", "mc"} else "left")
    for name, rows in grouped(job["subtasks"]).items():
        table.add_row(*_row(name, rows))
    return Group(head, table)


def grouped(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the units of each sub-task, in the order in which they came."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["subtask"]), []).append(row)
    return groups


def _row(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[RenderableType, ...]:
    items = sum(row["items"] for row in rows)
    done = sum(
        row["items"] if row["state"] == "completed" else row["items_done"] for row in rows
    )
    finished = all(row["state"] == "completed" for row in rows)
    style = "green" if finished else "yellow" if done else "dim"
    filled = _BAR_WIDTH * done // items if items else _BAR_WIDTH * finished
    bar = Text("━" * filled, style=style) + Text("━" * (_BAR_WIDTH - filled), style="grey23")
    nodes = sorted({str(row["node_name"]) for row in rows if row.get("node_name")})
    verdicts = sorted({str(row["verdict"]) for row in rows if row.get("verdict")})
    cost = sum(row["cost_mc"] or 0 for row in rows)
    return name, bar, f"{done}/{items}", ", ".join(nodes), ", ".join(verdicts), str(cost)


def account(
    provenance: Provenance, name_of: Callable[[str], str], left_out: Sequence[tuple[str, str]]
) -> str:
    """Return the Markdown that says how a report was made, from its verified provenance."""
    seconds = (provenance.ended_ms - provenance.started_ms) / 1000
    lines = [
        "",
        "## How this report was made",
        "",
        f"Job `{provenance.job}` in mesh `{provenance.network}`.",
        f"{len(provenance.rows)} awards, {provenance.signatures} signatures checked,",
        f"{provenance.cost_mc} mc charged, {seconds:.1f} s.",
        "",
        "`verified` means that a deterministic check passed (named beside it).",
        "`unverified` means that none did, not that it is wrong.",
        "",
        "| sub-task | capability | node | ms | mc | verdict | signed |",
        "|---|---|---|--:|--:|---|---|",
    ]
    for row in provenance.rows:
        verdict = f"{row.verdict} ({row.check})" if row.check else row.verdict
        node = f"{name_of(row.peer)} `{row.peer[-8:]}`"
        cells = (row.unit, row.capability, node, row.ms, row.cost_mc, verdict, "✓")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if left_out:
        lines += ["", "Left out:", ""]
        lines += [f"- `{path}`: {why}" for path, why in left_out]
    return "\n".join(lines) + "\n"


def dealings(peer: str, lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return what a node got and made of a job, by the job's events."""
    found = {"awarded": 0, "refused": 0, "outvoted": 0, "taken": 0, "paid_mc": 0}
    its: set[tuple[str, int]] = set()
    for line in lines:
        key = (line.get("unit", ""), line.get("attempt", -1))
        match line.get("kind"):
            case "awarded" if line["peer"] == peer:
                its.add(key)
                found["awarded"] += 1
            case "verified" if key in its:
                found["refused"] += line["verdict"] == "rejected"
            case "judged":
                found["outvoted"] += sum(
                    vote["agent"].startswith(f"{peer}/") and vote.get("verdict") == "rejected"
                    for vote in line.get("votes", ())
                )
            case "charged" if key in its:
                found["paid_mc"] += line["paid_mc"]
                found["taken"] += line["paid_mc"] > 0
            case _:
                pass
    return found
