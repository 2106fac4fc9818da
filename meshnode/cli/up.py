"""``meshnode up``: run a node."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.config import CONFIG_FILE
from meshnode.cli.options import Detach, Home, Json, home_of
from meshnode.cli.printing import console, plain, say_json

if TYPE_CHECKING:
    from meshnode.app import Served
    from meshnode.config import NodeConfig


Config = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="TOML, HOME/node.toml by default; options and environment come first.",
    ),
]
Network = Annotated[str, typer.Option(metavar="ID", help="Which mesh; `meshnode`.")]
Listen = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDR", help="Multiaddr to listen on; may be repeated."),
]
Join = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INVITE", help="An invite, an address of a node, or @FILE: a seed list."
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="SPECIALIST", help="Host a built-in agent."),
]
Function = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE:NAME", help="Host a Python function made with @agent."),
]
Http = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where to serve HTTP; a free local port.")
]
NoDht = Annotated[bool, typer.Option("--no-dht", help="Don't use the DHT.")]
Mdns = Annotated[
    bool, typer.Option("--mdns", help="Find nodes of the mesh on the local network.")
]
Log = Annotated[
    str,
    typer.Option("--log", metavar="FORM", help="human or json: what is logged on stderr."),
]
NoCatalogue = Annotated[bool, typer.Option("--no-catalogue", help="Don't exchange catalogues.")]

#: An invite is as long as it is.
_LINE_SHOWN: Final = 4_096


def up(
    *,
    config: Config = "",
    home: Home = "",
    network: Network = "",
    listen: Listen = None,
    join: Join = None,
    with_: With = None,
    function: Function = None,
    http: Http = "",
    mdns: Mdns = False,
    no_dht: NoDht = False,
    no_catalogue: NoCatalogue = False,
    log: Log = "",
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run a node: host agents for others, and take jobs from `meshnode ask`.

    Examples:
      meshnode up
      meshnode up --join mesh1:3Ab... --with summarization
      meshnode up --home two --join @seeds.txt --function my_agents:word_count
      meshnode up --config node.toml --listen /ip4/0.0.0.0/tcp/4001 --detach

    Specialists: abstract_writing, data_analysis, json_extraction, keyword_extraction,
      language_identification, lint, math, prompt_injection_detection, report_writing,
      security_audit, sentiment, summarization, support_check, unit_conversion.
    `meshnode config init` writes HOME/node.toml, which explains every setting;
      $MESHNODE_HTTP__PORT sets port of its table [http].

    SIGTERM (or Ctrl-C) lets the node finish what it does for others; a second one
    stops it at once.  With --json one line is printed when the node is ready.  What
    happens is logged on stderr, or as table [log] of the settings says.
    """
    from meshnode.cli.settings import Given, settings

    found = home_of(home) / CONFIG_FILE
    told = settings(
        Given(
            file=config or (str(found) if found.is_file() else ""),
            home=str(home_of(home)) if home else "",
            network=network,
            listen=listen or (),
            join=join or (),
            specialists=with_ or (),
            functions=function or (),
            http=http,
            log=log,
            mdns=mdns,
            dht=not no_dht,
            catalogue=not no_catalogue,
        )
    )
    if detach:
        from meshnode.cli.detach import start_detached

        show_ready(start_detached(sys.argv[1:], told), as_json=as_json)
    else:
        _run(told, as_json=as_json)


def _run(told: "NodeConfig", *, as_json: bool) -> None:
    import trio

    from meshnode.app import serve_node
    from meshnode.cli.logs import keep_log

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # where `--function module:name` is looked for, as Python does

    async def serve() -> None:
        async with trio.open_nursery() as nursery:

            def ready(served: "Served") -> None:
                show_ready(ready_line(served), as_json=as_json)
                nursery.start_soon(keep_log, served.node.events, told.log)

            await serve_node(told, ready=ready)
            nursery.cancel_scope.cancel()

    trio.run(serve)


def ready_line(served: "Served") -> dict[str, Any]:
    """Return what is said when a node is ready."""
    line: dict[str, Any] = {
        "event": "ready",
        "peer_id": served.node.peer,
        "addresses": list(served.node.addresses),
    }
    if served.invite:
        line["invite"] = served.invite
    if served.http:
        line |= {"http": served.http, "token_file": str(served.token_file)}
    if served.note:
        line["note"] = served.note
    return line


def show_ready(ready: Mapping[str, Any], *, as_json: bool) -> None:
    """Say that a node is ready, and where."""
    if as_json:
        say_json(ready)
        return
    lines = [
        f"peer    {ready['peer_id']}",
        *(f"listen  {place}" for place in ready["addresses"]),
    ]
    if "http" in ready:
        lines.append(f"http    {ready['http']}  (token in {ready['token_file']})")
    if "invite" in ready:
        lines.append(f"join    meshnode up --join {ready['invite']}")
    elif "http" in ready:
        lines.append("invite  meshnode invite")
    else:
        lines.append(f"join    meshnode up --join {ready['addresses'][0]}")
    out = console()
    out.print("ready", style="bold green")
    for line in lines:
        # Not wrapped and not framed: addresses are there to be copied.
        out.print(plain(line, size_max=_LINE_SHOWN), markup=False, soft_wrap=True)
    if "note" in ready:
        note = plain(ready["note"], size_max=_LINE_SHOWN)
        out.print(f"note    {note}", style="yellow", markup=False, soft_wrap=True)
