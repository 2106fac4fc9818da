"""``meshnode node``: what the node that runs here says of itself."""

from typing import Any

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json


def node(
    *, home: Home = "", url: Url = "", token_file: TokenFile = "", as_json: Json = False
) -> None:
    """Say who the running node is, where others join it, and whom it is connected to.

    Examples:
      meshnode node
      meshnode node --home two --json
    """
    told = answer_of(Where(home, url, token_file), "GET", "/api/node")
    if as_json:
        say_json(told)
        return
    out = console()
    lines = [
        f"peer     {told['peer_id']}",
        f"network  {told['network']}",
        *(f"listen   {address}" for address in told["addresses"]),
        f"agents   {', '.join(told['agents']) or 'none'}",
        f"peers    {len(told['connected'])} connected",
        f"others   {_others(told)}",
    ]
    for line in lines:
        out.print(plain(line), markup=False, soft_wrap=True)


def _others(told: dict[str, Any]) -> str:
    """Say whether the node works for others."""
    working = f"{told['working']} awards in hand"
    return f"{told['closed']['text']}; {working}" if told["closed"] else f"welcome; {working}"
