"""``meshnode peers``: who is there, and what they are to this node."""

from typing import Any

from meshnode.cli.agents import seen_line
from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table


def peers(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """List the peers that the node knows: what they are to it, and how far away.

    A stranger is no member of this node's mesh, as far as is known here: by default
    members work for one another only.  A clock that is minutes off is shown, since its
    node isn't seen by others.

    Examples:
      meshnode peers
      meshnode peers --json
    """
    told = answer_of(Where(home, url, token_file), "GET", "/api/peers")
    if as_json:
        say_json(told)
        return
    out = console()
    if told["peers"]:
        titles = ("peer", "name", "standing", "there", "rtt ms", "clock", "offers", "address")
        rows = [_row(peer) for peer in told["peers"]]
        out.print(table(titles, rows, right="rtt ms offers"))
    else:
        out.print("no peers")
    for peer in told["peers"]:
        for claim in peer.get("claims", []):
            out.print(seen_line(claim["agent"], peer["peer"], claim), markup=False)
    by = f", invited by {short(told['inviter'])}" if told["inviter"] else ""
    mesh = f"member of the mesh of {short(told['founder'])}" if by else "founder of its mesh"
    out.print(f"this node: {mesh}{by}", markup=False)
    if told["advice"]:
        console(errors=True).print(f"note: {plain(told['advice'])}", markup=False)


def _row(peer: dict[str, Any]) -> tuple[object, ...]:
    return (
        short(peer["peer"]),
        plain(peer["name"], size_max=40),
        peer["standing"],
        "yes" if peer["connected"] else "-",
        "-" if peer["round_trip_ms"] is None else peer["round_trip_ms"],
        "-" if peer["clock_ms"] is None else f"{peer['clock_ms'] / 1000:+.1f} s",
        peer["capabilities"],
        plain(peer["addresses"][0] if peer["addresses"] else "-", size_max=100),
    )
