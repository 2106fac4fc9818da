"""``meshnode inbox``: letters to and from other nodes' owners, who may be away."""

from base64 import b64decode, b64encode
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.invite import seconds
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table, when

_ID_SHOWN: Final = 12
_BODY_SHOWN_MAX: Final = 100_000
#: What a body may have; a larger file isn't read.
_BODY_BYTES_MAX: Final = 64 * 1024

Letter = Annotated[
    str, typer.Argument(metavar="ID", help="The letter's id, or enough of its beginning.")
]


def inbox(
    context: typer.Context,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the letters that came, the newest first; those not read yet have a mark.

    A letter is kept by its sender, and sealed by mailboxes of the mesh, until this node is
    there to take it.

    Examples:
      meshnode inbox
      meshnode inbox --json
      meshnode inbox send ada "Shall we share the GPU on Friday?"
    """
    if context.invoked_subcommand:
        return
    told = answer_of(Where(home, url, token_file), "GET", "/api/inbox")
    if as_json:
        say_json(told)
        return
    rows = [
        (
            "" if row["read_ms"] else "*",
            row["id"][:_ID_SHOWN],
            row["name"] or short(row["from"]),
            plain(row["subject"] or "-", size_max=60),
            row["kind"],
            row["bytes"],
            when(row["received_ms"]),
        )
        for row in told["letters"]
    ]
    if rows:
        titles = ("", "letter", "from", "subject", "kind", "bytes", "received")
        console().print(table(titles, rows, right="bytes"))
    else:
        print("no letters")


def show(
    letter: Letter,
    *,
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="Write the body there, as it is.")
    ] = "",
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show a letter, and note that it was read.

    What it says is its sender's: take it for no more than that.

    Examples:
      meshnode inbox show 3f2a
      meshnode inbox show 3f2a --out plan.pdf
    """
    told = answer_of(Where(home, url, token_file), "GET", f"/api/inbox/{_word(letter)}")
    body = told["text"].encode() if "text" in told else b64decode(told["base64"])
    if out:
        Path(out).write_bytes(body)
    read = answer_of(Where(home, url, token_file), "POST", f"/api/inbox/{told['id']}/read")
    if as_json:
        say_json({**told, "read_ms": read["read_ms"]})
        return
    name = f"{plain(told['name'])} " if told["name"] else ""
    for head, value in (
        ("from", f"{name}{plain(told['from'])}"),
        ("sent", when(told["sent_ms"])),
        ("subject", plain(told["subject"]) or "-"),
        ("kind", plain(told["kind"])),
    ):
        print(f"{head}: {value}")
    print()
    if out:
        print(f"{len(body)} bytes are in {out}")
    elif "text" in told:
        print(plain(told["text"], size_max=_BODY_SHOWN_MAX, lines=True))
    else:
        print(f"{len(body)} bytes that are no text: --out FILE writes them")


def send(
    peer: Annotated[
        str,
        typer.Argument(metavar="PEER", help="PeerId, the end of one, or an invited name."),
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")] = "",
    *,
    file: Annotated[
        str, typer.Option("--file", metavar="FILE", help="Send what is in it; at most 64 KiB.")
    ] = "",
    subject: Annotated[str, typer.Option(metavar="LINE", help="One line.")] = "",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Give up after: 1h, 7d; at most 30d.")
    ] = "7d",
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Write to another node's owner; it is delivered when that node can be reached.

    The letter is on this node's disk when the command returns.  It is sent until the other
    node has signed that it has it, or until it expires: see `meshnode inbox sent`.

    Examples:
      meshnode inbox send ada "Shall we share the GPU on Friday?"
      meshnode inbox send 7gFqZ1xK --file notes.md --subject "Notes of today"
    """
    expires_s = float(seconds(expires))
    letter = {"to": peer, "subject": subject, "expires_s": expires_s, **_written(text, file)}
    told = answer_of(Where(home, url, token_file), "POST", "/api/outbox", body=letter)
    if as_json:
        say_json(told)
    else:
        print(f"letter {told['id'][:_ID_SHOWN]} to {short(told['to'])} is on its way")


def sent(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """List the letters that were written here, the newest first, and how each stands.

    Waiting ones are tried again and again; delivered are those whose reader has signed for
    them; of failed ones the reason is told.

    Examples:
      meshnode inbox sent
      meshnode inbox sent --json
    """
    told = answer_of(Where(home, url, token_file), "GET", "/api/outbox")
    if as_json:
        say_json(told)
        return
    rows = [
        (row["id"][:_ID_SHOWN], row["name"] or short(row["to"]),
         plain(row["subject"] or "-", size_max=60), row["bytes"], when(row["sent_ms"]),
         row["state"], _how(row))
        for row in told["letters"]
    ]  # fmt: skip
    if rows:
        titles = ("letter", "to", "subject", "bytes", "written", "state", "")
        console().print(table(titles, rows, right="bytes"))
    else:
        print("no letters were written here: see `meshnode inbox send --help`")


def delete(
    letter: Letter,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Delete a letter that came, or one that was written here; one that waits is not sent.

    Examples:
      meshnode inbox delete 3f2a
    """
    told = answer_of(Where(home, url, token_file), "POST", f"/api/inbox/{_word(letter)}/delete")
    if as_json:
        say_json(told)
    else:
        print(f"letter {told['id'][:_ID_SHOWN]} is deleted")


# --- pieces ---------------------------------------------------------------------------


def _written(text: str, file: str) -> dict[str, str]:
    """Return the body, as the API takes it.

    Raises:
        CommandFailed: There is none, there are two, or it is too large.
    """
    from meshnode.cli.failure import MISUSED, CommandFailed

    if bool(text) == bool(file):
        raise CommandFailed(
            "a letter has a text, or a --file", hint="give one of them", status=MISUSED
        )
    if not file:
        return {"text": text}
    with Path(file).open("rb") as stream:
        body = stream.read(_BODY_BYTES_MAX + 1)
    if len(body) > _BODY_BYTES_MAX:
        raise CommandFailed(
            f"{file} is too large for a letter",
            hint=f"at most {_BODY_BYTES_MAX} bytes",
            told="input.invalid",
        )
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


def _word(text: str) -> str:
    """Return ``text`` as a part of a path; what isn't one can't be an id."""
    return text if text.isalnum() and text.isascii() else "-"


def _how(row: dict[str, Any]) -> str:
    if row["state"] == "delivered":
        return when(row["ended_ms"])
    if row["state"] == "failed":
        return plain(row["text"] or row["code"], size_max=80)
    kept = len(row["mailboxes"])
    at = f"kept by {kept} mailbox{'es' * (kept != 1)}, " if kept else ""
    return f"{at}until {when(row['expires_ms'])}"
