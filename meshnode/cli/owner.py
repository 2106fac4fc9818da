"""``meshnode pause``, ``resume`` and ``served``: the owner of the machine stays its master."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.asking import Where, answer_of, asked
from meshnode.cli.invite import seconds
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table, when

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

#: How often a node that finishes its work is looked at, seconds.
_LOOK_S: Final = 0.5
_REASONS_MAX: Final = 6
#: Counts are kept for 31 days.
_SERVED_S_MAX: Final = 31 * 86_400


def pause(
    *,
    for_: Annotated[
        str,
        typer.Option("--for", metavar="TIME", help="End by itself: 30m, 2h, 3d."),
    ] = "",
    drain: Annotated[
        bool, typer.Option("--drain", help="Return once what was taken on is finished.")
    ] = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Take on no more work for others; what was taken on is finished, your own jobs go on.

    Whoever asks is told that you paused, and until when.  It holds through a restart,
    until `meshnode resume`.

    Examples:
      meshnode pause
      meshnode pause --for 2h
      meshnode pause --drain --json
    """
    import trio

    body = {"for_s": seconds(for_)} if for_ else {}

    async def ask(client: "NodeClient") -> dict[str, Any]:
        told: dict[str, Any] = await client.call("POST", "/api/pause", body=body)
        while drain and told["working"]:
            await trio.sleep(_LOOK_S)
            told["working"] = (await client.call("GET", "/api/node"))["working"]
        return told

    told = asked(ask, Where(home, url, token_file))
    if as_json:
        say_json(told)
        return
    until_ms = told["paused"]["until_ms"]
    end = f"until {when(until_ms)}" if until_ms else "until `meshnode resume`"
    left = f", {told['working']} awards are still being done" if told["working"] else ""
    print(f"paused {end}{left}")


def resume(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """Work for others again, within the hours and quotas of the settings.

    Examples:
      meshnode resume
    """
    told = answer_of(Where(home, url, token_file), "POST", "/api/resume")
    if as_json:
        say_json(told)
    else:
        print("resumed" if told["was_paused"] else "it was not paused")


def served(
    *,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="How far back, such as 1h or 7d; at most 31d.")
    ] = "1d",
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show who had this node do what, what that earned, and why it was not chosen.

    Whole clock hours are counted.  Lost are proposals that another was preferred to, as
    far as their brokers say why; `lapsed` are those they never came back to.  Earned is
    what both sides signed for.

    Examples:
      meshnode served
      meshnode served --since 7d --json
    """
    from meshnode.cli.failure import CommandFailed

    since_s = seconds(since)
    if since_s > _SERVED_S_MAX:
        raise CommandFailed(
            f"--since {since!r} is further back than is counted", hint="at most 31d"
        )
    where = Where(home, url, token_file)
    told = answer_of(where, "GET", "/api/served", since_s=str(since_s))
    if as_json:
        say_json(told)
        return
    out = console()
    if not told["rows"]:
        print("nobody asked for anything")
    else:
        titles = (
            "caller", "is", "capability", "asked", "offered", "awards", "calls", "done",
            "failed", "mc", "run s", "last", "refused", "lost",
        )  # fmt: skip
        rows = [_row(row) for row in told["rows"]]
        right = "asked offered awards calls done failed mc"
        out.print(table(titles, rows, right=f"{right} run"))
    for quota in told["quotas"]:
        out.print(f"{quota['quota']}: {quota['used']:g} of {quota['limit']:g}", markup=False)
    if told["outstanding"]:
        print(f"{told['outstanding']} proposals are out")


# --- pieces ---------------------------------------------------------------------------


def _row(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        short(row["caller"]),
        row["standing"],
        row["capability"] or "-",
        row["asked"],
        row["offered"],
        row["awarded"],
        row["calls"],
        row["finished"],
        row["failed"] + row["rejected"],
        row["earned_mc"],
        f"{row['run_ms'] / 1000:.1f}",
        when(row["last_ms"]),
        _reasons(row["refused"]),
        _reasons(row["lost"]),
    )


def _reasons(counts: Mapping[str, int]) -> str:
    """Say the commonest reasons, such as ``quota 12, busy 3``."""
    often = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_REASONS_MAX]
    return plain(", ".join(f"{reason} {count}" for reason, count in often)) or "-"
