"""``meshnode ledger``: who owes whom, and for which receipts."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table, when

_TITLES: Final = ("peer", "name", "is", "owes", "owed", "earned", "spent", "paid", "got")
_PAYMENT: Final = ("key", "peer", "what", "mc", "state", "when", "note", "it says")
_RIGHT: Final = "owes owed earned spent paid got"


def ledger(
    context: typer.Context,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the peers that owe this node, and those that it owes, in millicredits.

    A balance is between two nodes: what each earned by receipts that both signed, less
    what was settled between their owners.

    Examples:
      meshnode ledger
      meshnode ledger show PEER
      meshnode ledger --json
    """
    if context.invoked_subcommand:
        return
    told = answer_of(Where(home, url, token_file), "GET", "/api/ledger")
    if as_json:
        say_json(told)
        return
    if not told["peers"] and not told["to_confirm"]:
        print("nobody owes anybody anything")
        return
    out = console()
    if told["to_confirm"]:
        out.print(table(_PAYMENT, [_payment(row) for row in told["to_confirm"]], right="mc"))
        print("did these come? `meshnode ledger confirm KEY`, or deny\n")
    out.print(table(_TITLES, [_row(peer) for peer in told["peers"]], right=_RIGHT))
    print(f"owed to this node: {told['owed_mc']} mc; it owes: {told['owing_mc']} mc")
    limits = told["limits"]
    for name, what in (("owed_max_mc", "one peer may owe"), ("owing_max_mc", "it may owe one")):
        if limits[name] is not None:
            print(f"{what} {limits[name]} mc (ledger.{name})")


def show(
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="PeerId, the end of one, or an invited name.")
    ],
    *,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=10_000, help="So many, the newest.")
    ] = 100,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show what one peer owes or is owed, and for which receipts and settlements.

    Those that are past `host.history_s` are no longer listed; the balance holds them.

    Examples:
      meshnode ledger show 4kFhqXWz
      meshnode ledger show 4kFhqXWz --limit 20 --json
    """
    node = Where(home, url, token_file)
    told = answer_of(node, "GET", f"/api/ledger/{_part(peer)}", limit=str(limit))
    if as_json:
        say_json(told)
        return
    print(_balance(told))
    if told["payments"]:
        rows = [_payment(row) for row in told["payments"]]
        console().print(table(_PAYMENT, rows, right="mc"))
    if told["postings"]:
        titles = ("when", "what", "mc", "job", "unit", "note", "award")
        rows = [_posting(posting) for posting in told["postings"]]
        console().print(table(titles, rows, right="mc"))


def settle(
    peer: Annotated[
        str, typer.Argument(metavar="PEER", help="PeerId, the end of one, or an invited name.")
    ],
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", min=1, help="Millicredits.")],
    *,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="By which the other owner finds the payment.")
    ],
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Say that you paid a peer outside the mesh; it comes off once its owner has confirmed.

    Nothing is paid by this: with `ledger.settlement` "manual", both ledgers note what
    owners did.  The same note again is the same payment, and asks how it stands.

    Examples:
      meshnode ledger settle 4kFhqXWz 3000 --note "transfer of 3 May"
      meshnode ledger settle 4kFhqXWz 3000 --note "transfer of 3 May" --json
    """
    body = {"amount_mc": amount, "note": note}
    told = answer_of(
        Where(home, url, token_file), "POST", f"/api/ledger/{_part(peer)}/settle", body=body
    )
    _say_payment(told, as_json=as_json)


def confirm(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The beginning of it will do.")],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Confirm that a payment came, of which a peer says that it made it.

    Examples:
      meshnode ledger confirm 3f8a12
    """
    path = f"/api/payments/{_part(key)}/confirm"
    _say_payment(answer_of(Where(home, url, token_file), "POST", path), as_json=as_json)


def deny(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The beginning of it will do.")],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Say that a payment did not come, of which a peer says that it made it.

    Examples:
      meshnode ledger deny 3f8a12
    """
    path = f"/api/payments/{_part(key)}/deny"
    _say_payment(answer_of(Where(home, url, token_file), "POST", path), as_json=as_json)


# --- pieces ---------------------------------------------------------------------------


def _part(text: str) -> str:
    """Return ``text`` as one part of a URL's path."""
    return quote(text, safe="") or "-"


def _row(peer: Mapping[str, Any]) -> tuple[object, ...]:
    due_mc = peer["due_mc"]
    return (
        short(peer["peer"]),
        plain(peer["name"], size_max=40) or "-",
        peer["standing"],
        max(0, due_mc),
        max(0, -due_mc),
        peer["earned_mc"],
        peer["spent_mc"],
        peer["paid_mc"],
        peer["received_mc"],
    )


def _payment(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        row["key"][:12],
        short(row["peer"]),
        row["kind"],
        row["amount_mc"],
        row["state"],
        when(row["at_ms"]),
        plain(row["note"], size_max=60),
        plain(row["text"], size_max=100) or "-",
    )


def _say_payment(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(told)
        return
    row = told["payment"]
    why = f" ({plain(row['text'])})" if row["text"] else ""
    meanings = {
        "sent": "not told yet: it is tried again",
        "noted": "its owner is to confirm it",
        "settled": "settled",
        "refused": "refused",
        "lapsed": "lapsed: it was never told in time",
    }
    print(f"payment {row['key'][:12]} of {row['amount_mc']} mc: {meanings[row['state']]}{why}")
    print(_balance(told))


def _balance(told: Mapping[str, Any]) -> str:
    name, due_mc = short(told["peer"]), told["due_mc"]
    if not due_mc:
        return f"{name} and this node owe each other nothing"
    return (
        f"{name} owes this node {due_mc} mc" if due_mc > 0 else f"you owe {name} {-due_mc} mc"
    )


def _posting(posting: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        when(posting["at_ms"]),
        posting["kind"],
        posting["amount_mc"],
        posting["job"] or "-",
        posting["unit"] or "-",
        plain(posting["note"], size_max=60) or "-",
        posting["key"][:12],
    )
