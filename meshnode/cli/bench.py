"""``meshnode bench``: figures that say how fast, on which commit and machine."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, plain, say_json, table

if TYPE_CHECKING:
    from meshnode.bench.figures import Figure

_Bench = Callable[..., "list[Figure]"]


def _benches() -> Mapping[str, _Bench]:
    from meshnode.bench import contract, plan, startup

    return {
        "broker": contract.run_broker,
        "contract": contract.run,
        "plan": plan.run,
        "startup": startup.run,
    }


def bench(
    name: Annotated[str, typer.Argument(help="Which: broker, contract, plan, startup.")],
    *,
    quick: Annotated[bool, typer.Option(help="At most a minute, fewer measurements.")] = False,
    requests: Annotated[
        str, typer.Option(metavar="FILE", help="plan: requests to plan, JSON lines.")
    ] = "",
    agents: Annotated[
        str, typer.Option(metavar="FILE", help="plan: the agents that they are about, JSON.")
    ] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="plan: tell each request that went wrong.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure this installation, and hold the figures against their goals.

    Examples:
      meshnode bench startup --quick
      meshnode bench startup --json
      meshnode bench plan --verbose
      meshnode bench plan --requests requests.jsonl --agents agents.json --json

    A file of requests has lines {"request": "…", "capabilities": ["…"], "edges":
    [["from", "to"]]}, one of agents is a list of {"capability", "description",
    "examples", "input_schema", "output_schema"}.
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
    more = {"requests": requests, "agents": agents, "verbose": verbose}
    given = {option: value for option, value in more.items() if value}
    if given and name != "plan":
        raise CommandFailed(
            f"--{next(iter(given))} is for `meshnode bench plan`", hint="leave it out"
        )
    errors = console(errors=True)
    with errors.status("measuring") as status:

        def told(what: str) -> None:
            if verbose and ": wanted " in what:
                errors.print(plain(what), markup=False)
            else:
                status.update(f"measuring: {what}")

        figures = benches[name](told, quick=quick, **given)
    made = report(name, figures)
    if as_json:
        say_json(made)
        return
    _print(made, figures)


def _print(made: dict[str, Any], figures: "list[Figure]") -> None:
    rows = [
        (
            row["id"],
            f"{row['value']:g} {row['unit']}",
            f"{'≥' if figure.at_least else '≤'} {row['goal']:g}",
            "yes" if row["holds"] else "no",
            row["n"],
            row["note"],
        )
        for row, figure in zip(made["figures"], figures, strict=True)
    ]
    out = console()
    out.print(f"{made['name']}, commit {made['commit']}, {made['machine']}")
    out.print(table(("figure", "value", "goal", "holds", "n", "how"), rows, right="n"))
