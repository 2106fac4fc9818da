"""``meshnode invite`` and ``meshnode invites``: let others into the mesh."""

import re
from typing import Annotated, Final

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table, when

_SPAN: Final = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def invite(
    *,
    for_: Annotated[
        str, typer.Option("--for", metavar="NAME", help="Whom it is for; shown to you only.")
    ] = "",
    uses: Annotated[int, typer.Option(metavar="N", help="How many nodes may join by it.")] = 1,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is good for, such as 30m, 24h, 7d.")
    ] = "24h",
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Make an invite: one word that holds all it takes to join this node's mesh.

    Pass it on as you would a password: whoever has it can use it.  Who joins by it is a
    member, and may invite others; `meshnode invites list` shows who came.

    Examples:
      meshnode invite --for ada
      meshnode invite --uses 20 --expires 7d --json
      meshnode up --join "$(meshnode invite)" --home two
    """
    body = {"name": for_, "uses": uses, "expires_s": float(seconds(expires))}
    told = answer_of(Where(home, url, token_file), "POST", "/api/invites", body=body)
    if as_json:
        say_json(told)
        return
    print(told["token"])
    note = console(errors=True)
    whom = f" for {plain(told['name'])}" if told["name"] else ""
    many = "1 node" if told["uses"] == 1 else f"{told['uses']} nodes"
    note.print(
        f"good for {many} until {when(told['expires_ms'], utc=True)} UTC{whom}:"
        " meshnode up --join INVITE",
        markup=False,
    )
    if told["local_only"]:
        note.print(
            "note: this node listens on this machine only, so nobody elsewhere can use it:"
            " set listen, such as /ip4/0.0.0.0/tcp/4001",
            markup=False,
        )


def list_(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """List the invites of the node that runs here, the newest first, and who came by them.

    Examples:
      meshnode invites list
      meshnode invites list --json
    """
    told = answer_of(Where(home, url, token_file), "GET", "/api/invites")
    if as_json:
        say_json(told)
        return
    rows = [
        (row["invite"], plain(row["name"], size_max=40), row["state"],
         f"{row['used']} of {row['uses']}", when(row["expires_ms"], utc=True),
         " ".join(short(peer) for peer in row["members"][:8]))
        for row in told["invites"]
    ]  # fmt: skip
    if rows:
        titles = ("invite", "for", "state", "used", "expires (UTC)", "members")
        console().print(table(titles, rows))
    else:
        print("no invites yet: see `meshnode invite --help`")


def revoke(
    id_: Annotated[
        str, typer.Argument(metavar="INVITE", help="Its id, or enough of its beginning.")
    ],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Let nobody join by an invite any more; who has joined by it stays a member.

    Examples:
      meshnode invites revoke 3f2a
    """
    from meshnode.cli.failure import CommandFailed

    listed = answer_of(Where(home, url, token_file), "GET", "/api/invites")["invites"]
    found = [row["invite"] for row in listed if id_ and row["invite"].startswith(id_)]
    if len(found) != 1:
        told = f"{len(found)} invites begin with" if found else "there is no invite"
        raise CommandFailed(
            f"{told} {id_[:64]!r}", hint="see `meshnode invites list`", told="node.not_found"
        )
    path = f"/api/invites/{found[0]}/revoke"
    answer = answer_of(Where(home, url, token_file), "POST", path)
    if as_json:
        say_json(answer)
    else:
        print(f"invite {answer['invite']} is revoked")


# --- pieces ---------------------------------------------------------------------------


def seconds(span: str) -> int:
    """Return a span of time such as ``24h`` in seconds.

    Raises:
        CommandFailed: It is none.
    """
    from meshnode.cli.failure import CommandFailed

    match = _SPAN.fullmatch(span)
    if match is None:
        raise CommandFailed(
            f"{span[:40]!r} is no span of time",
            hint="such as 90s, 30m, 24h or 7d",
            told="config.invalid",
        )
    return int(match[1]) * _SECONDS[match[2]]
