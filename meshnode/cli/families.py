"""``meshnode agents family``: of which model family agents are, by their answers."""

from typing import Annotated

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, table


def family(
    capability: Annotated[str, typer.Argument(metavar="C", help="Such as text.chat@1.")],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Ask agents of a capability a dozen questions, and tell their model families.

    Examples:
      meshnode agents family text.chat@1
      meshnode agents family text.chat@1 --json

    Each question is paid like any task, at most eight agents are asked, and what they are is
    known for a week.  Agents that begin alike are one model, whatever they declare.
    """
    told = answer_of(Where(home, url, token_file), "POST", f"/api/families/{capability}")
    if as_json:
        say_json(told)
        return
    rows = [
        (plain(row["agent"]), plain(row["declared"]) or "-", plain(row["family"]) or "unknown")
        for row in told["agents"]
    ]
    out = console()
    if rows:
        out.print(table(["agent", "declares", "answers like"], rows))
    else:
        out.print("nobody answered", markup=False)
