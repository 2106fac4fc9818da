"""``python -m bootstrap``: a seed without the rest of the command line.

For machines that only ever run a seed; ``meshnode bootstrap`` does the same and more.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from bootstrap.seeds import write_seeds
from meshnode.app import serve_seed
from meshnode.config import NodeConfig
from meshnode.errors import ConfigError, MeshError
from protocol.signing import is_network

if TYPE_CHECKING:
    from meshnode.app import Served


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a seed until a signal ends it; return the status to exit with."""
    options = _options(arguments)
    say = _Say(as_json=options.json, seeds=options.seeds)
    try:
        if not is_network(options.network):
            raise ConfigError(f"{options.network!r} is no network id", hint="use a-z 0-9 _ . -")
        plain = NodeConfig()
        config = NodeConfig(
            network=options.network,
            home=options.home,
            listen=tuple(options.listen or plain.listen),
            join=tuple(options.join or ()),
        )

        async def serve() -> None:
            await serve_seed(config, ready=say.ready, inviting=not options.no_invite)

        trio.run(serve)
    except MeshError as error:
        say.failed(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _Say:
    """What is printed."""

    def __init__(self, *, as_json: bool, seeds: str) -> None:
        self._as_json = as_json
        self._seeds = seeds

    def ready(self, served: "Served") -> None:
        """Say where the seed is."""
        addresses = list(served.node.addresses)
        if self._seeds:
            write_seeds(Path(self._seeds), addresses, invite=served.invite)
        if self._as_json:
            told = {"event": "ready", "peer_id": served.node.peer, "addresses": addresses}
            self._line({**told, "invite": served.invite})
        else:
            lines = [*addresses, served.invite] if served.invite else addresses
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    def failed(self, error: MeshError) -> None:
        """Say why there is none."""
        if self._as_json:
            told = {"code": error.code, "message": str(error), "hint": error.hint}
            self._line({"error": told})
        else:
            sys.stderr.write(" ".join(f"error: {error.line()}".split()) + "\n")

    @staticmethod
    def _line(value: object) -> None:
        sys.stdout.write(json.dumps(value) + "\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bootstrap",
        description="Run a seed: it holds the directory for others and prints its addresses.",
        epilog="example: python -m bootstrap --listen /ip4/0.0.0.0/tcp/4001 --seeds seeds.txt",
    )
    parser.add_argument(
        "--home", default="~/.meshnode-seed", help="folder of its key and store"
    )
    parser.add_argument("--network", default=NodeConfig().network, help="which mesh")
    parser.add_argument("--listen", action="append", metavar="ADDR", help="multiaddr")
    parser.add_argument("--join", action="append", metavar="ADDR", help="another seed")
    parser.add_argument("--seeds", default="", metavar="FILE", help="write a seed list there")
    parser.add_argument("--no-invite", action="store_true", help="addresses only")
    parser.add_argument("--json", action="store_true", help="one line of JSON when ready")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
