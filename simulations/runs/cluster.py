"""Play takes on a Dask cluster: many machines, from where one command runs.

What a worker of the cluster runs is what every machine runs
(:func:`simulations.runs.workers.play_takes`): a process of its own for each take.  Worlds
can't share a process (they pin Trio and the collector), and a take that dies or lasts too
long takes no worker of the cluster along.

Dask's client has a thread of its own with its own event loop; nothing of it is seen here.
"""

import re
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from meshnode.errors import ConfigError
from simulations.outcome import Outcome
from simulations.runs.messages import ENCODER
from simulations.runs.takes import Take, code_hash, unplayed
from simulations.runs.workers import Told, play_takes

if TYPE_CHECKING:
    from distributed import Future

_CONNECT_S: Final = 5
#: Dask's client takes anything, and dies of some of it later.
_ADDRESS: Final = re.compile(r"([a-z]+://)?(\[[0-9a-f:]+\]|[^\s/:]+):\d+")
#: Takes that wait at the scheduler: enough for a large cluster, few enough to be sent.
_OUT_MAX: Final = 2000


def play_on_cluster(
    takes: Iterable[Take], address: str, *, limit_s: float
) -> Generator[Outcome]:
    """Play ``takes`` on the cluster at ``address``, and yield what came of each, as they end.

    Args:
        takes: What is played.
        address: Of the scheduler, such as ``tcp://10.0.0.1:8786``.
        limit_s: A take that lasts longer is ended, and has failed.

    Raises:
        ConfigError: Dask isn't installed here, ``address`` is none, nobody is there, it has
            no workers, or they run other code.
    """
    try:
        from distributed import Client, as_completed  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise ConfigError(
            "--cluster needs Dask, which is not installed",
            hint="pip install 'meshnode[cluster]'",
        ) from exc
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"{address!r} is no address", hint="say tcp://HOST:PORT")
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"no Dask scheduler answers at {address}", hint="start one with `dask scheduler`"
        ) from exc
    with client:
        _check(client.run(code_hash, on_error="return"), address)
        todo = iter(takes)
        out: dict[object, Take] = {}
        ended = as_completed(loop=client.loop)
        while True:
            while len(out) < _OUT_MAX and (take := next(todo, None)) is not None:
                future = client.submit(
                    play_apart, msgspec.msgpack.encode(take), limit_s, pure=False
                )
                out[future.key] = take
                ended.add(future)
            if not out:
                return
            future = next(ended)
            yield _outcome(future, out.pop(future.key))


def play_apart(take: bytes, limit_s: float) -> bytes:
    """Play a take in a process of its own; runs in a thread of a cluster's worker."""
    given = msgspec.msgpack.decode(take, type=Take)
    (outcome,) = play_takes([given], workers=1, told=_wanted(), limit_s=limit_s)
    return ENCODER.encode(outcome)


def _wanted() -> Told:
    """Return what ends this take, with its process, when nobody waits for it any more."""
    from distributed import get_worker  # noqa: PLC0415 - an extra

    worker = get_worker()
    key = worker.get_current_task()

    def told(seed: int, done_s: float, all_s: float) -> None:
        del seed, done_s, all_s
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing":
            raise KeyboardInterrupt("nobody waits for it any more")

    return told


def _check(found: Mapping[str, object], address: str) -> None:
    """See that there are workers, and that they run this code.

    Raises:
        ConfigError: There are none, or they don't.
    """
    if not found:
        raise ConfigError(
            f"the cluster at {address} has no workers",
            hint=f"start some with `dask worker {address}`",
        )
    for worker, code in found.items():
        if code != code_hash():
            what = code if isinstance(code, Exception) else "it runs other code"
            raise ConfigError(
                f"worker {worker} can't play: {what}",
                hint="install the same meshnode, Python and trio there",
            )


def _outcome(future: "Future[bytes]", take: Take) -> Outcome:
    try:
        return msgspec.msgpack.decode(future.result(), type=Outcome)
    except Exception as exc:  # noqa: BLE001 - reported, as this take's failure
        return _report(take, exc)


def _report(take: Take, error: Exception) -> Outcome:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return unplayed(take, f"the cluster did not play it: {text}")
