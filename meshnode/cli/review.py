"""``meshnode demo``: the arguments; what it does is :mod:`meshnode.cli.demo`'s."""

from pathlib import Path
from typing import Annotated, Any

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, say_json, units_table


def demo(
    *,
    path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to review; this program's own by default."),
    ] = None,
    nodes: Annotated[int, typer.Option(metavar="N", help="Processes, 5 or more.")] = 7,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where report and provenance are kept.")
    ] = Path("meshnode-demo"),
    kill_broker: Annotated[
        bool,
        typer.Option(
            "--kill-broker", help="Kill the desk in the middle: a standby finishes its job."
        ),
    ] = False,
    liar: Annotated[
        bool,
        typer.Option("--liar", help="One more node lies: the review is done twice, to see."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Review a real folder with a mesh of processes on this machine.

    A seed, specialists and a desk are started as processes of their own and find each
    other through the DHT.  Documents are identified, summarised, keyword-extracted and
    support-checked, code is audited and linted, and one report comes out, with its
    signed provenance.

    Examples:
      meshnode demo
      meshnode demo --path docs --nodes 5 --out review
      meshnode demo --kill-broker
      meshnode demo --liar

    With --liar, a cheap node makes its audits and lints up.  The desk recomputes lints,
    and asks several for what it can't recompute; who lied isn't paid, is believed less,
    and is asked less the second time.
    """
    import trio

    from meshnode.cli.demo import Options, run_demo

    options = Options(
        path=path,
        nodes=nodes,
        out=out,
        as_json=as_json,
        kill_broker=kill_broker,
        liar=liar,
    )
    result = trio.run(run_demo, options)
    if as_json:
        say_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    rows = [{"items": "-", **row} for row in result["subtasks"]]
    print_ = console().print
    print_(units_table(rows))
    print_(
        f"\n{result['processes']} processes, {len(rows)} awards, {result['signatures']}"
        f" signatures verified, {result['cost_mc']} mc, {result['elapsed_s']:.1f} s",
        markup=False,
    )
    if len(result["brokers"]) > 1:
        print_(f"its brokers, one after the other: {', '.join(result['brokers'])}")
    if "liar" in result:
        _print_liar(result["liar"])
    print_(f"report: {result['report']}", markup=False)
    print_(f"check it yourself: meshnode verify {result['provenance']}", markup=False)


def _print_liar(told: dict[str, Any]) -> None:
    """Tell what became of the node that lied."""
    print_ = console().print
    for number, row in enumerate(told["jobs"], 1):
        print_(
            f"the liar in review {number}: {row['awarded']} awards, {row['refused']} refused by"
            f" a check, {row['outvoted']} outvoted, {row['taken']} taken, {row['paid_mc']} mc",
            markup=False,
        )
    for row in told["reputation"]:
        believed = f"{row['credibility']:.0%}, {row['state']}"
        print_(f"the liar's {row['capability']} is believed {believed}", markup=False)
