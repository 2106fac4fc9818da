"""``meshnode bench``: figures that say how fast, on which commit and machine."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, say_json, table

if TYPE_CHECKING:
    from meshnode.bench.figures import Figure

_Bench = Callable[..., "list[Figure]"]


def _benches() -> Mapping[str, _Bench]:
    from meshnode.bench import startup

    return {"startup": startup.run}


def bench(
    name: Annotated[str, typer.Argument(help="Which: startup.")],
    *,
    quick: Annotated[bool, typer.Option(help="At most a minute, fewer measurements.")] = False,
    as_json: Json = False,
) -> None:
    """Measure this installation, and hold the figures against their goals.

    Examples:
      meshnode bench startup --quick
      meshnode bench startup --json
    """
    from meshnode.bench.figures import report
    from meshnode.cli.failure import CommandFailed

    benches = _benches()
    if name not in benches:
        raise CommandFailed(
            f"there is no benchmark {name!r}",
            hint=f"there are: {', '.join(sorted(benches))}",
            told="bench.unknown",
        )
    with console(errors=True).status("measuring") as status:
        figures = benches[name](lambda what: status.update(f"measuring: {what}"), quick=quick)
    made = report(name, figures)
    if as_json:
        say_json(made)
        return
    rows = [
        (
            row["id"],
            f"{row['value']:g} {row['unit']}",
            f"≤ {row['goal']:g}",
            "yes" if row["holds"] else "no",
            row["n"],
            row["note"],
        )
        for row in made["figures"]
    ]
    out = console()
    out.print(f"{name}, commit {made['commit']}, {made['machine']}")
    out.print(table(("figure", "value", "goal", "holds", "n", "how"), rows, right="n"))
