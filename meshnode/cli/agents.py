"""``meshnode agents``: who can do what."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.asking import Where, asked
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, short, table

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

_POLL_S: Final = 0.5


def agents(
    context: typer.Context,
    *,
    capability: Annotated[
        str,
        typer.Option(
            metavar="C", help="Only this capability, or what is more special than it."
        ),
    ] = "",
    near: Annotated[
        str, typer.Option(metavar="WORDS", help="The nearest to these words in meaning.")
    ] = "",
    count: Annotated[
        int, typer.Option(metavar="N", min=0, help="Fail unless so many are there.")
    ] = 0,
    wait: Annotated[
        float, typer.Option(metavar="S", min=0.0, help="Wait so many seconds for --count.")
    ] = 0.0,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Look everywhere, and list only those that answer now."),
    ] = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the agents that the node knows, its own included.

    Examples:
      meshnode agents
      meshnode agents --capability text.summarization@1
      meshnode agents --near "make a long text short"
      meshnode agents --capability text --probe
      meshnode agents --capability code --count 3 --wait 30 --json
    """
    if context.invoked_subcommand:
        return
    from meshnode.cli.failure import CommandFailed

    async def ask(client: "NodeClient") -> dict[str, Any]:
        query = {"capability": capability} if capability else {}
        if near:
            query["near"] = near
        if probe:
            query["probe"] = "1"
        return await _until(client, query, count, wait)

    found = asked(ask, Where(home, url, token_file))
    listed = found["agents"]
    if len(listed) < count:
        raise CommandFailed(
            f"{len(listed)} agents offer {capability or 'something'}, {count} were asked for",
            hint=plain(found.get("advice") or "wait longer, or start more nodes"),
            told="capability.not_offered",
        )
    if as_json:
        say_json(found)
    elif listed:
        _print(listed)
    else:
        print(_nobody(capability, found.get("nearest", [])))
    if not as_json and found.get("advice"):
        console(errors=True).print(f"note: {plain(found['advice'])}", markup=False)


async def _until(
    client: "NodeClient", query: dict[str, str], count: int, wait_s: float
) -> dict[str, Any]:
    import trio

    end_s = trio.current_time() + wait_s
    while True:
        found: dict[str, Any] = await client.call("GET", "/api/agents", **query)
        if len(found["agents"]) >= count or trio.current_time() >= end_s:
            return found
        await trio.sleep(_POLL_S)


def _nobody(capability: str, nearest: list[str]) -> str:
    near = f"; nearest: {', '.join(plain(name) for name in nearest)}" if nearest else ""
    return f"nobody offers {capability or 'anything'}{near}"


def _print(listed: list[dict[str, Any]]) -> None:
    scored = any("near" in row for row in listed)
    rows = (
        (
            *([f"{row.get('near', 0):.2f}"] if scored else []),
            row["capability"],
            row["name"],
            short(row["peer"]),
            "yes" if row["alive"] else "?",
            row["price_mc"],
            row["latency_ms"] or "-",
            plain(row["description"], size_max=80),
            plain(checked_by(row), size_max=60),
        )
        for row in listed
    )
    titles = [*(["near"] if scored else []), "capability", "agent", "node", "alive"]
    titles += ["mc", "ms", "what it does", "checked by"]
    console().print(table(titles, rows, right="near mc ms"))
    for row in listed:
        if row.get("seen", {}).get("text"):
            console().print(seen_line(row["name"], row["peer"], row["seen"]), markup=False)


def checked_by(row: dict[str, Any]) -> str:
    """Return by what the answers of an agent can be checked or compared, as it says."""
    kinds = ["schema", *(["recompute"] if row.get("deterministic") else [])]
    kinds += row.get("checks", [])
    like = row.get("like") or {}
    return ", ".join([*kinds, *([f"like {like['kind']}"] if like else [])])


def seen_line(agent: str, peer: str, seen: dict[str, Any]) -> str:
    """Return what was seen of an agent beside what it claims, as a line."""
    return f"{plain(agent, size_max=64)} at {short(peer)} {plain(seen['text'])}"
