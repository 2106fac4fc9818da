"""The command line: arguments and printing.

Commands talk to a running node through its HTTP interface; only ``up``, ``bootstrap``
and ``demo`` run nodes.  ``--help`` must be quick, so modules here import nothing heavy
at their top: libraries are imported in the functions that use them.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Final, NoReturn

import typer

from meshnode.cli import (
    agent_tests,
    agents,
    ask,
    bench,
    bootstrap,
    config,
    down,
    families,
    gold,
    inbox,
    invite,
    job_events,
    jobs,
    key_apps,
    key_ends,
    keys,
    ledger,
    mcp,
    models,
    node,
    owner,
    peers,
    reputation,
    review,
    sandbox,
    service,
    simulate,
    up,
    verify,
    version,
    wrap,
)
from meshnode.cli.failure import report

_HELP = """Put your agents and tools to work for a mesh of peers, and theirs for you.

A mesh on one machine, in four lines:
  meshnode bootstrap --home seed --seeds seeds.txt --detach
  meshnode up --home one --join @seeds.txt --with summarization --detach
  meshnode up --home desk --join @seeds.txt --detach
  meshnode ask --home desk --graph review.toml --file README.md

Every command has --json for programs, and --help with examples.
"""

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "up": up.up,
    "down": down.down,
    "ask": ask.ask,
    "node": node.node,
    "peers": peers.peers,
    "pause": owner.pause,
    "resume": owner.resume,
    "served": owner.served,
    "reputation": reputation.reputation,
    "invite": invite.invite,
    "mcp": mcp.mcp,
    "unwrap": wrap.unwrap,
    "verify": verify.verify,
    "bootstrap": bootstrap.bootstrap,
    "demo": review.demo,
    "bench": bench.bench,
    "sandbox": sandbox.sandbox,
    "service": service.service,
    "simulate": simulate.simulate,
    "version": version.version,
}

#: What a group does without a second word.
DEFAULTS: Final[Mapping[str, Callable[..., None]]] = {
    "agents": agents.agents,
    "ledger": ledger.ledger,
    "inbox": inbox.inbox,
}

#: Commands of several words.
GROUPS: Final[Mapping[str, tuple[str, Mapping[str, Callable[..., None]]]]] = {
    "agents": (
        "Who can do what: `test` runs an agent's examples, `family` tells models apart.",
        {"test": agent_tests.run_examples, "family": families.family},
    ),
    "config": (
        "A node's settings: write a file that explains them, check it, show what holds.",
        {"init": config.init, "check": config.check, "show": config.show},
    ),
    "gold": (
        "Tasks whose answer you know, to see which agents do: add, list, remove.",
        {"add": gold.add, "list": gold.list_, "remove": gold.remove},
    ),
    "inbox": (
        "Letters to and from other nodes' owners: show, send, sent, delete.",
        {"show": inbox.show, "send": inbox.send, "sent": inbox.sent, "delete": inbox.delete},
    ),
    "invites": (
        "The invites of the node that runs here: list, revoke; `meshnode invite` makes one.",
        {"list": invite.list_, "revoke": invite.revoke},
    ),
    "jobs": (
        "The jobs of the node that runs here: follow, explain, cancel, resume them.",
        {
            "list": jobs.list_,
            "show": jobs.show,
            "events": job_events.events,
            "explain": jobs.explain,
            "cancel": jobs.cancel,
            "resume": jobs.resume,
            "outputs": jobs.outputs,
        },
    ),
    "keys": (
        "The node's key: show, protect, back up, rotate, revoke; and keys for programs.",
        {
            "show": keys.show,
            "protect": keys.protect,
            "unprotect": keys.unprotect,
            "export": keys.export,
            "import": keys.import_,
            "rotate": key_ends.rotate,
            "revoke": key_ends.revoke,
            "publish": key_ends.publish,
            "ended": key_ends.ended,
            "certify": key_apps.certify,
            "pass": key_apps.pass_,
            "withdraw": key_apps.withdraw,
        },
    ),
    "ledger": (
        "Who owes whom; `ledger show` says for which receipts, `ledger settle` what you paid.",
        {
            "show": ledger.show,
            "settle": ledger.settle,
            "confirm": ledger.confirm,
            "deny": ledger.deny,
        },
    ),
    "models": (
        "The embedded models: list, install, and serve one to try things.",
        {"list": models.list_, "install": models.install, "serve": models.serve},
    ),
    "wrap": (
        "Make a model, a function or a command an agent of this machine's node.",
        {"openai": wrap.openai, "function": wrap.function, "command": wrap.command},
    ),
}


def application() -> typer.Typer:
    """Return the command line, not run yet."""
    app = typer.Typer(
        name="meshnode",
        help=_HELP,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(help=as_written(_HELP))(_nothing)
    for name, command in COMMANDS.items():
        app.command(name, help=_help(command), short_help=_first_line(command))(command)
    for name, (about, commands) in GROUPS.items():
        default = DEFAULTS.get(name)
        group = typer.Typer(
            help=_help(default) if default else about,
            short_help=about,
            rich_markup_mode=None,
            callback=default,
            invoke_without_command=default is not None,
        )
        for word, command in commands.items():
            short = _first_line(command)
            group.command(word, help=_help(command), short_help=short)(command)
        app.add_typer(group, name=name)
    return app


def _nothing() -> None:
    pass


def _help(command: Callable[..., None]) -> str:
    return as_written(getdoc(command) or "")


def _first_line(command: Callable[..., None]) -> str:
    """Return what a list of commands says of one: whole, where the library would cut it."""
    return (getdoc(command) or "").partition("\n")[0]


def as_written(text: str) -> str:
    r"""Return ``text`` with the mark (``\b``) that keeps each paragraph's lines."""
    return "\n\n".join(f"\b\n{part}" for part in text.strip().split("\n\n"))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command that ``arguments`` (default: the process's own) name, and exit.

    What goes wrong is one line: on stderr, or with ``--json`` an object on stdout.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = application()(given, standalone_mode=False, prog_name="meshnode")
    except BaseException as exc:  # noqa: BLE001 - reported: nobody is shown a traceback
        code = report(exc, as_json="--json" in given)
    sys.exit(code if isinstance(code, int) else 0)
