"""``meshnode verify``: is a job's story what its signatures say?  Offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, plain, say_json, units_table

if TYPE_CHECKING:
    from meshnode.domain.provenance import Provenance

_BYTES_MAX: Final = 1024**3


def verify(
    provenance: Annotated[
        Path, typer.Argument(metavar="PROVENANCE", help="As `ask --out` and `demo` write it.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Check a finished job's signed provenance, offline.

    Every signature, hash and link is checked: who asked, who offered, who was
    awarded, who delivered what from which inputs, and what was paid.  A byte that
    was changed, cut or added is refused, with the number of the event.

    What it can't prove: that a clock was right, or that an output is true.

    Example:
      meshnode verify result/provenance.journal
    """
    from meshnode.cli.failure import CommandFailed
    from meshnode.domain.provenance import verify_provenance
    from meshnode.errors import InputInvalid
    from protocol.errors import RemoteProtocolError

    try:
        if provenance.stat().st_size > _BYTES_MAX:
            raise CommandFailed(
                f"{provenance} has over {_BYTES_MAX} bytes", hint="no journal has"
            )
        data = provenance.read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"{provenance} can't be read: {error.strerror}",
            hint="give the file that `ask --out` wrote",
            told="cli.no_file",
        ) from error
    try:
        proved = verify_provenance(data)
    except (RemoteProtocolError, InputInvalid) as error:
        raise CommandFailed(
            f"{provenance} does not hold: {plain(error)}",
            hint="don't believe it",
            told="provenance.refused",
        ) from error
    if as_json:
        say_json(summary(proved))
    else:
        _print(proved)


def summary(proved: "Provenance") -> dict[str, Any]:
    """Return what was proved, for programs."""
    return {
        "job": proved.job,
        "network": proved.network,
        "owner": proved.owner,
        "brokers": list(proved.brokers),
        "state": proved.state,
        "error": None
        if proved.state == "completed"
        else {"code": proved.code, "message": proved.text},
        "started_ms": proved.started_ms,
        "ended_ms": proved.ended_ms,
        "budget_mc": proved.budget_mc,
        "cost_mc": proved.cost_mc,
        "events": proved.events,
        "signatures": proved.signatures,
        "subtasks": [
            {
                "id": row.unit,
                "subtask": row.subtask,
                "batch": row.batch,
                "items": row.items,
                "capability": row.capability,
                "agent": row.agent,
                "node": row.peer,
                "state": row.state,
                "verdict": row.verdict,
                "check": row.check,
                "ms": row.ms,
                "cost_mc": row.cost_mc,
                "output": row.output.hex() or None,
                "attempts": row.attempts,
            }
            for row in proved.rows
        ],
        "outputs": {
            name: {"sha256": ref.artifact.hex(), "size_bytes": ref.size}
            for name, ref in proved.outputs.items()
        },
    }


def _print(proved: "Provenance") -> None:
    facts = summary(proved)
    out = console()
    out.print(units_table(facts["subtasks"]))
    text = (
        f"\nproved: job {proved.job} of {proved.owner} on network {proved.network}"
        f" {proved.state}: {proved.events} events in order,"
        f" {proved.signatures} signatures, {proved.cost_mc} of {proved.budget_mc} mc paid"
    )
    out.print(plain(text, size_max=2_000, lines=True), markup=False, soft_wrap=True)
    for name, ref in facts["outputs"].items():
        out.print(
            plain(f"output {name}: sha256 {ref['sha256']}, {ref['size_bytes']} bytes"),
            markup=False,
            soft_wrap=True,
        )
    out.print(
        "not proved: that clocks were right, or that an output is true",
        markup=False,
        soft_wrap=True,
    )
