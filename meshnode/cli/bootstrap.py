"""``meshnode bootstrap``: run a seed, by which nodes find the mesh."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from meshnode.cli.options import Detach, Json
from meshnode.cli.up import Join, Listen, Log, Network, ready_line, show_ready

if TYPE_CHECKING:
    from meshnode.app import Served

HOME_DEFAULT: Final = "~/.meshnode-seed"


def bootstrap(
    *,
    home: Annotated[
        str, typer.Option(metavar="DIR", help=f"The seed's folder; {HOME_DEFAULT}.")
    ] = HOME_DEFAULT,
    network: Network = "",
    listen: Listen = None,
    join: Join = None,
    seeds: Annotated[
        str, typer.Option(metavar="FILE", help="Write the seed's addresses there: a seed list.")
    ] = "",
    no_invite: Annotated[
        bool,
        typer.Option("--no-invite", help="Addresses only: whoever joins by them is no member."),
    ] = False,
    log: Log = "",
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run a seed: it holds the directory for others, hosts no agents and takes no jobs.

    Its key, in its home, and so its PeerId, stay the same; with a fixed port its
    address does too.  What it prints and writes into the seed list is an invite, good
    for 1,000 nodes and 30 days: nodes that join by it are members of the seed's mesh.

    Examples:
      meshnode bootstrap --listen /ip4/0.0.0.0/tcp/4001
      meshnode bootstrap --seeds seeds.txt --detach
      meshnode up --join @seeds.txt
    """
    from bootstrap.seeds import write_seeds
    from meshnode.cli.settings import Given, settings

    given = Given(home=home, network=network, listen=listen or (), join=join or (), log=log)
    told = settings(given)
    if detach:
        from meshnode.cli.detach import start_detached

        show_ready(start_detached(sys.argv[1:], told), as_json=as_json)
        return
    import trio

    from meshnode.app import serve_seed
    from meshnode.cli.logs import keep_log

    async def serve() -> None:
        async with trio.open_nursery() as nursery:

            def ready(served: "Served") -> None:
                if seeds:
                    path = Path(seeds).expanduser()
                    write_seeds(path, served.node.addresses, invite=served.invite)
                show_ready(ready_line(served), as_json=as_json)
                nursery.start_soon(keep_log, served.node.events, told.log)

            await serve_seed(told, ready=ready, inviting=not no_invite)
            nursery.cancel_scope.cancel()

    trio.run(serve)
