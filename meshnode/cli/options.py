"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

HOME_DEFAULT: Final = "~/.meshnode"
HOME_VARIABLE: Final = "MESHNODE_HOME"

Json = Annotated[
    bool, typer.Option("--json", help="One line of JSON for programs, errors too.")
]
Home = Annotated[
    str,
    typer.Option(
        "--home",
        metavar="DIR",
        help=f"The node's folder; ${HOME_VARIABLE} or {HOME_DEFAULT} by default.",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the node's HTTP interface is, if not told by --home.",
    ),
]
TokenFile = Annotated[
    str, typer.Option("--token-file", metavar="FILE", help="The node's token, with --url.")
]
Detach = Annotated[
    bool,
    typer.Option("--detach", help="Go on in the background; `meshnode down` ends it."),
]


def home_of(option: str) -> Path:
    """Return the folder that ``--home``, the environment or the default names."""
    return Path(option or os.environ.get(HOME_VARIABLE) or HOME_DEFAULT).expanduser()
