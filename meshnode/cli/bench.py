"""``meshnode bench``: figures that say how fast, on which commit and machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, plain, say_json, table

if TYPE_CHECKING:
    from meshnode.bench.figures import Figure, Told

_Bench = Callable[..., "list[Figure]"]
_Given = dict[str, str | bool]

#: From here on digits are grouped.
_GROUPED: Final = 10_000
_NAMES: Final = (
    "artifact",
    "broker",
    "contract",
    "makespan",
    "plan",
    "session",
    "simulation",
    "startup",
    "survive",
    "trust",
)
#: Benches that an option is for.
_OPTIONS: Final = {
    "agents": ("plan",),
    "requests": ("plan",),
    "verbose": ("plan",),
    "html": ("trust",),
    "peers": ("session", "contract", "artifact", "broker"),
    "profile": ("session", "artifact"),
}


def _benches() -> Mapping[str, _Bench]:
    from meshnode.bench import (
        artifact,
        broker,
        contract,
        makespan,
        plan,
        session,
        simulation,
        startup,
        survive,
        trust,
    )

    return {
        "artifact": artifact.run,
        "broker": broker.run,
        "contract": contract.run,
        "makespan": makespan.run,
        "plan": plan.run,
        "session": session.run,
        "simulation": simulation.run,
        "startup": startup.run,
        "survive": survive.run,
        "trust": trust.run,
    }


def bench(
    name: Annotated[str, typer.Argument(help=f"Which: {', '.join(_NAMES)}.")],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="At most a minute, fewer measurements.")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers/--no-peers",
            help="Measure what users would pick instead beside it, or not.",
        ),
    ] = True,
    profile: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="session, artifact: leave a cProfile of our side in FILE."
        ),
    ] = "",
    requests: Annotated[
        str, typer.Option(metavar="FILE", help="plan: requests to plan, JSON lines.")
    ] = "",
    agents: Annotated[
        str, typer.Option(metavar="FILE", help="plan: the agents that they are about, JSON.")
    ] = "",
    verbose: Annotated[
        bool, typer.Option("--verbose", help="plan: tell each request that went wrong.")
    ] = False,
    html: Annotated[
        str, typer.Option(metavar="FILE", help="trust: leave a page with its curves in FILE.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Measure this installation, and hold the figures against their goals.

    session   a call to a remote agent: our session, AutoGen, gRPC, py-libp2p, TCP
    contract  from award to receipt at both sides, beside the A2A SDK; what negotiating adds
    artifact  64 MiB from one node to another, beside stock py-libp2p; what the broker moves
    broker    sub-tasks per second, beside Dask distributed
    makespan  how long jobs take, by their longest path and by HEFT's schedule
    startup   how fast things start, and the memory of a node at rest
    plan      whether goals in plain words become the right graphs
    simulation  a thousand nodes for an hour, a market of ten thousand, many seeds
    survive   what is lost when nodes are killed at random, and at every crash point
    trust     who can be believed in a market of cheats, beside EigenTrust and others

    What users would pick instead is measured in the same run, in turns with ours: on a
    machine that others use, ratios hold and milliseconds don't.  Those packages go into
    an environment of their own, once, with pip, in the cache folder.

    Examples:
      meshnode bench session --quick
      meshnode bench session --quick --no-peers --profile session.prof
      meshnode bench artifact --json
      meshnode bench plan --verbose
      meshnode bench plan --requests requests.jsonl --agents agents.json --json
      meshnode bench trust --quick --html trust.html

    A file of requests has lines {"request": "…", "capabilities": ["…"], "edges":
    [["from", "to"]]}, one of agents is a list of {"capability", "description",
    "examples", "input_schema", "output_schema"}.
    """
    files = (("requests", requests), ("agents", agents), ("profile", profile), ("html", html))
    more: tuple[tuple[str, str | bool], ...] = (*files, ("verbose", verbose))
    given: _Given = {option: value for option, value in more if value}
    if not peers:
        given["peers"] = False
    _measure(name, given, quick=quick, as_json=as_json)


def _measure(name: str, given: _Given, *, quick: bool, as_json: bool) -> None:
    from meshnode.bench.figures import report
    from meshnode.cli.failure import CommandFailed

    benches = _benches()
    if name not in benches:
        raise CommandFailed(
            f"there is no benchmark {name!r}",
            hint=f"there are: {', '.join(sorted(benches))}",
            told="bench.unknown",
        )
    for option in given:
        if name not in _OPTIONS[option]:
            shown = "--no-peers" if option == "peers" else f"--{option}"
            raise CommandFailed(
                f"{shown} is for `meshnode bench {'|'.join(_OPTIONS[option])}`",
                hint="leave it out",
            )
    with _progress(verbose="verbose" in given) as told:
        figures = benches[name](told, quick=quick, **given)
    made = report(name, figures)
    if as_json:
        say_json(made)
        return
    _print(made, figures)


@contextmanager
def _progress(*, verbose: bool) -> Iterator["Told"]:
    """Show what is being measured on standard error, with a bar where its end is known."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    errors = console(errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("measuring", total=None)

        def told(what: str, share: float | None = None, /) -> None:
            if verbose and ": wanted " in what:
                errors.print(plain(what), markup=False)
                return
            total = None if share is None else 1.0
            shown = plain(f"measuring: {what}").replace("[", "(")
            progress.update(task, description=shown, total=total, completed=share or 0.0)

        yield told


def _print(made: dict[str, Any], figures: "list[Figure]") -> None:
    out = console()
    out.print(f"{made['name']}, commit {made['commit']}, {made['machine']}")
    rows = [_row(row, figure) for row, figure in zip(made["figures"], figures, strict=True)]
    out.print(table(("figure", "value", "goal", "holds", "n", "how"), rows, right="n"))


def _row(row: Mapping[str, Any], figure: "Figure") -> tuple[object, ...]:
    value = "–" if row["value"] is None else f"{_number(row['value'])} {row['unit']}"
    goal = "" if row["goal"] is None else f"{'≥' if figure.at_least else '≤'} {row['goal']:g}"
    holds = {True: "yes", False: "no", None: "–"}[row["holds"]]
    return (row["id"], value, goal, holds, row["n"], row["note"])


def _number(value: float) -> str:
    """Return a number as people read it: no exponent, and no digits that mean nothing."""
    return f"{value:,.0f}" if abs(value) >= _GROUPED else f"{value:.4g}"
