"""``meshnode reputation``: who is believed how far, and from what."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table, when

_TITLES: Final = (
    *("agent", "node", "capability", "credible", "in time", "for", "against"),
    *("heard", "seen", "is"),
)
_RIGHT: Final = "credible for against heard seen"
_BUYERS: Final = ("buyer", "node", "cap", "out", "lost", "settled", "fairness")
_EVIDENCE: Final = ("when", "learned", "job", "unit", "verdict", "mc", "ms", "source")
#: What may become of an agent's answers.
_STATES: Final[Mapping[str, str]] = {
    "banned": "banned",
    "blocked": "gets no work",
    "owes golds": "owes golds",
    "alone": "believed alone",
    "with others": "needs others",
}


def reputation(
    agent: Annotated[
        str,
        typer.Argument(
            metavar="[AGENT]",
            help="PEER/NAME, or PEER for all agents of a node: a PeerId, the end of one, or"
            " an invited name. Without it, all agents are listed.",
            show_default=False,
        ),
    ] = "",
    *,
    capability: Annotated[
        str, typer.Option(metavar="NAME", help="List those of this capability only.")
    ] = "",
    limit: Annotated[
        int, typer.Option(metavar="N", min=0, max=2_000, help="So many pieces of evidence.")
    ] = 20,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
    buyers: Annotated[
        bool,
        typer.Option(
            "--buyers",
            help="List who has work done here: what each may have before it pays for it.",
        ),
    ] = False,
) -> None:
    """Say how far each agent is believed; of one, what that is made of.

    Credibility is the chance that an agent's next answer is right, from 0 to 1:
    for / (for + against), in units of one answer shown to be right or wrong, with 1 for
    and 1.5 against to begin with. So who is new stands at 0.40; a member of your mesh, if
    only members may call, at 0.80; and nobody above 0.98.

    It is this node's own opinion. What it saw counts most: gold tasks and checks a whole
    unit, agreement with others 0.4. What others' receipts say is heard, weighed by how far
    they are believed, and never more than 12 units.

    Evidence is forgotten as more comes, half of it after 50 units. All of it is in the
    node's store, and the number follows from it.

    Examples:
      meshnode reputation
      meshnode reputation --capability text.summarization@1
      meshnode reputation 4kFhqXWz/summarizer
      meshnode reputation 4kFhqXWz --limit 100 --json
      meshnode reputation --buyers
    """
    node = Where(home, url, token_file)
    if buyers:
        _say_buyers(answer_of(node, "GET", "/api/buyers"), as_json=as_json)
        return
    if agent:
        path = f"/api/reputation/{quote(agent)}"
        told = answer_of(node, "GET", path, limit=str(limit))
    else:
        query = {"capability": capability} if capability else {}
        told = answer_of(node, "GET", "/api/reputation", **query)
    if as_json:
        say_json(told)
    elif agent:
        for account in told["accounts"]:
            _say_account(account)
    elif told["agents"]:
        rows = [_row(row) for row in told["agents"]]
        console().print(table(_TITLES, rows, right=_RIGHT))
    else:
        print("no agent is known here yet")


def _say_buyers(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(told)
    elif told["buyers"]:
        rows = [
            (
                short(row["peer"]),
                plain(row["name"], size_max=40) or row["peer_is"],
                "-" if row["cap_mc"] is None else row["cap_mc"],
                *(row[name] for name in ("out_mc", "lost_mc", "settled_mc")),
                f"{row['fairness']:.2f}",
            )
            for row in told["buyers"]
        ]
        console().print(table(_BUYERS, rows, right=" ".join(_BUYERS[2:])))
    else:
        print("nobody had work done here that costs something")


def _row(row: Mapping[str, Any]) -> tuple[object, ...]:
    peer, _, name = row["agent"].partition("/")
    return (
        f"{short(peer)}/{plain(name, size_max=64)}",
        plain(row["name"], size_max=40) or row["peer_is"],
        row["capability"],
        f"{row['credibility']:.3f}",
        f"{row['availability']:.2f}",
        f"{row['seen_for']:.2f}",
        f"{row['seen_against']:.2f}",
        f"+{row['heard_for']:.2f} −{row['heard_against']:.2f}",
        row["events"],
        _state(row),
    )


def _state(row: Mapping[str, Any]) -> str:
    overclaims = "; overclaims" if row.get("overclaims") else ""
    return _STATES[row["state"]] + overclaims


def _say_account(account: Mapping[str, Any]) -> None:
    print(f"{plain(account['agent'])} in {plain(account['capability'])}: ", end="")
    print(_state(account))
    for line in account["lines"]:
        print(f"  {plain(line)}")
    if account["evidence"]:
        print("  what was learned last:")
        rows = [_evidence(event) for event in account["evidence"]]
        console().print(table(_EVIDENCE, rows, right="mc ms"))
    print()


def _evidence(event: Mapping[str, Any]) -> tuple[object, ...]:
    receipt = event["receipt"] or {}
    return (
        when(event["at_ms"]),
        event["kind"].replace("_", " "),
        receipt.get("job", "-"),
        receipt.get("unit", "-"),
        receipt.get("verdict", "-"),
        receipt.get("paid_mc", "-"),
        receipt.get("latency_ms", "-"),
        event["source"][:12] or "-",
    )
