"""``meshnode gold``: tasks whose answer you know, to see which agents do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.failure import CommandFailed
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, table
from meshnode.domain.wording import count_of

_TITLES: Final = ("gold", "capability", "inputs", "from", "given", "passed", "failed", "absent")
_RIGHT: Final = "given passed failed absent"
_BYTES_MAX: Final = 32 * 1024 * 1024
#: Characters of a file that go to the node at once.
_SENT_MAX: Final = 256 * 1024


def add(
    capability: Annotated[str, typer.Argument(metavar="CAPABILITY", help="With its version.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines.")],
    *,
    like: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="When an answer is right: exact, normalised or numeric."
        ),
    ] = "exact",
    within: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, help="Of numeric: by how much at most."
        ),
    ] = 0.0,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Give your node tasks with their right answers, to see who else knows them.

    Each line of FILE is {"inputs": {…}, "output": …}: what an agent is given, and what it
    should return. Your node asks agents for it as it asks for anything, and pays as for
    anything; what comes of it says how far an agent is believed. No node is asked the same
    one twice, so give many, and none that others could look up.

    Examples:
      meshnode gold add text.summarization@1 golds.jsonl
      meshnode gold add math.integrate@1 golds.jsonl --like numeric --within 0.001
    """
    kind: dict[str, Any] = {"kind": like}
    if within:
        kind["relative_ppm"] = round(within * 1_000_000)
    names: list[str] = []
    where = Where(home, url, token_file)
    for some in _parts(_read(file)):
        body = {"capability": capability, "golds": some, "like": kind}
        names += answer_of(where, "POST", "/api/golds", body=body)["golds"]
    if as_json:
        say_json({"golds": names})
    else:
        print(f"{count_of(len(set(names)), 'gold')} for {plain(capability)}")


def list_(
    *,
    capability: Annotated[
        str, typer.Option(metavar="NAME", help="Those of this capability only.")
    ] = "",
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the golds, with how often each was given, and how it went.

    One that an agent failed isn't given again: look whether your answer is the right one,
    and add it anew if it wasn't.

    Examples:
      meshnode gold list
      meshnode gold list --capability text.summarization@1 --json
    """
    query = {"capability": capability} if capability else {}
    golds = answer_of(Where(home, url, token_file), "GET", "/api/golds", **query)["golds"]
    if as_json:
        say_json({"golds": golds})
        return
    rows = [
        (
            gold["gold"][:8],
            gold["capability"],
            plain(json.dumps(gold["inputs"], ensure_ascii=False), size_max=40),
            "you" if gold["origin"] == "owner" else f"job {gold['origin'][:8]}",
            *(gold[name] for name in ("given", "passed", "failed", "absent")),
        )
        for gold in golds
    ]
    if rows:
        console().print(table(_TITLES, rows, right=_RIGHT))
    else:
        print("no golds: give some with `meshnode gold add CAPABILITY FILE`")


def remove(
    gold: Annotated[
        str,
        typer.Argument(metavar="GOLD", help="The beginning of its id, or a whole CAPABILITY."),
    ],
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Forget a gold, or all of a capability. Who has seen them is remembered.

    Examples:
      meshnode gold remove 3f8a12
      meshnode gold remove text.summarization@1
    """
    path = f"/api/golds/{quote(gold, safe='') or '-'}/remove"
    told = answer_of(Where(home, url, token_file), "POST", path)
    if as_json:
        say_json(told)
    else:
        print(f"{count_of(len(told['removed']), 'gold')} removed")


# --- pieces ---------------------------------------------------------------------------


def _read(path: Path) -> list[dict[str, Any]]:
    """Return what the lines of a file hold.

    Raises:
        CommandFailed: It can't be read, or a line is no gold; says which.
    """
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise CommandFailed(f"{path} has over {_BYTES_MAX} bytes", hint="give it in parts")
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as exc:
        raise CommandFailed(f"{path} can't be read: {exc}") from exc
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            gold = json.loads(line)
        except ValueError as exc:
            raise CommandFailed(f"{path}, line {number} is not JSON: {exc}") from exc
        if not isinstance(gold, dict) or gold.keys() != {"inputs", "output"}:
            raise CommandFailed(
                f"{path}, line {number} is no gold", hint='{"inputs": {…}, "output": …}'
            )
        found.append(gold)
    if not found:
        raise CommandFailed(f"{path} has no golds", hint="one on each line")
    return found


def _parts(golds: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the golds, some at a time."""
    some: list[dict[str, Any]] = []
    size = 0
    for gold in golds:
        length = len(json.dumps(gold))
        if some and size + length > _SENT_MAX:
            yield some
            some, size = [], 0
        some.append(gold)
        size += length
    yield some
