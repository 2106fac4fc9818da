"""``meshnode down``: end nodes, letting them finish what they do for others."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from meshnode.adapters.running_file import HTTP_FILE, SEED_FILE, read_running
from meshnode.cli.options import Json, home_of
from meshnode.cli.printing import console, plain, say_json

_POLL_S: Final = 0.1
#: What a node that drains waits for is asked this often, seconds.
_ASK_S: Final = 3.0
#: Beside its draining, a node takes this long to close at most, seconds.
_CLOSE_S: Final = 15.0
#: Of seeds, and of nodes of older versions, that don't say how long they drain.
_DRAIN_S: Final = 30.0


def down(
    *,
    home: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="The node's folder; may be repeated, ended in order."),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Don't let it finish what it does for others.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End the node or seed that runs at each home, and wait until it has ended.

    It takes nothing new and finishes what it does for others, for as long as `drain_s`
    of its settings says; what is left then is handed back, and done elsewhere.

    Examples:
      meshnode down
      meshnode down --home one --home two --home seed
    """
    import trio

    async def end_all() -> list[dict[str, Any]]:
        return [await _end(home_of(name), now=now) for name in home or [""]]

    ended = trio.run(end_all)
    if as_json:
        say_json({"ended": ended})
    else:
        for row in ended:
            print(f"ended {row['peer_id']} at {row['home']}")


async def _end(home: Path, *, now: bool) -> dict[str, Any]:
    import trio

    from meshnode.cli.failure import CommandFailed

    path, running = _running(home)
    if running is None:
        raise CommandFailed(f"no node runs at {home}", told="cli.no_node")
    pid = running.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        raise CommandFailed(f"{path} names no process", hint="end the node yourself")
    # The file is locked by the process that wrote it, so the id is still its own.
    os.kill(pid, signal.SIGTERM)
    drain_s = running.get("drain_s", _DRAIN_S)
    patience_s = _CLOSE_S + (drain_s if isinstance(drain_s, int | float) else _DRAIN_S)
    with trio.move_on_after(patience_s):
        told_twice = False
        asked_s = trio.current_time()
        while read_running(path) is not None:
            await trio.sleep(_POLL_S)
            if trio.current_time() > asked_s + _ASK_S:
                asked_s = trio.current_time()
                await _say_waiting(home)
            if now and not told_twice:
                told_twice = True
                os.kill(pid, signal.SIGTERM)
        return {"home": str(home), "peer_id": running.get("peer_id"), "pid": pid}
    raise CommandFailed(
        f"the node at {home} has not ended after {patience_s:g} s", hint="try --now"
    )


async def _say_waiting(home: Path) -> None:
    """Say what the node is waiting for, if it is there to be asked."""
    import trio

    from meshnode.cli.client import open_client
    from meshnode.errors import MeshError

    with suppress(MeshError), trio.move_on_after(_ASK_S):
        async with open_client(home) as client:
            waiting = (await client.call("GET", "/api/node")).get("draining")
        if waiting:
            text = f"{home} waits for {waiting}; --now ends it at once"
            console(errors=True).print(plain(text), markup=False)


def _running(home: Path) -> tuple[Path, dict[str, Any] | None]:
    for name in (HTTP_FILE, SEED_FILE):
        running = read_running(home / name)
        if running is not None:
            return home / name, running
    return home / HTTP_FILE, None
