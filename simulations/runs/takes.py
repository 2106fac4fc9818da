"""One scenario played once, with one seed: what is handed from machine to machine.

Whoever plays many of them wants an outcome for each, whatever happens: a take that breaks
is a failed outcome that says where, and not an exception that ends the others.
"""

import gc
import platform
import traceback
from collections import deque
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from meshnode.errors import MeshError
from simulations.outcome import Outcome
from simulations.player import Progress, play
from simulations.scenario import Scenario

#: Packages that are run, and what of them an outcome doesn't hang on: what only shows, what
#: a simulation replaces, and the scenarios, which count by themselves.
_CODE: Final = (
    ("protocol", ()),
    ("simulations", ("runs", "report", "scenarios")),
    ("meshnode", ("cli", "bench", "gateway", "adapters", "app.py", "aio.py", "public.py")),
)
_FRAMES_SHOWN: Final = 3


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """See the module.

    Attributes:
        scenario: What is played.
        seed: What fixes everything.
        replay: The command that plays it again.
    """

    scenario: Scenario
    seed: int
    replay: str = ""


def play_take(
    take: Take, progress: Progress | None = None, *, lines: deque[str] | None = None
) -> Outcome:
    """Play ``take`` and return what came of it, if only that it broke.

    Args:
        take: What is played.
        progress: See :func:`simulations.player.play`; ``KeyboardInterrupt`` gets through.
        lines: See there, too.
    """
    try:
        return play(
            take.scenario, seed=take.seed, progress=progress, replay=take.replay, lines=lines
        )
    except BaseExceptionGroup as group:
        if interrupted := group.subgroup((KeyboardInterrupt, SystemExit)):
            raise KeyboardInterrupt from interrupted
        return unplayed(take, _report(group))
    except Exception as exc:  # noqa: BLE001 - reported, as this take's failure
        return unplayed(take, _report(exc))
    finally:
        # A world is full of cycles, and the next one freezes what it finds: without this,
        # each seed of a process leaves ten megabytes.
        gc.collect()


def unplayed(take: Take, why: str) -> Outcome:
    """Return the outcome of a take that was not played to its end: it has no digest."""
    return Outcome(
        scenario=take.scenario.name,
        seed=take.seed,
        nodes=take.scenario.nodes,
        digest="",
        virtual_s=0.0,
        replay=take.replay,
        troubles=(why,),
    )


def _report(error: BaseException) -> str:
    """Return what broke and where, on one line; the innermost place is the last."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_SHOWN:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    code = f" ({error.code})" if isinstance(error, MeshError) else ""
    text = " ".join(f"{type(error).__name__}{code}: {error}".split())
    return f"it broke off: {text}, at {' > '.join(places)}"


# --- what makes two takes the same --------------------------------------------------------


def scenario_hash(scenario: Scenario) -> str:
    """Return the SHA-256 of a scenario, in hex: equal for those that play the same.

    Its story is for people: to mend a word there must not cost a night's outcomes.
    """
    untold = msgspec.structs.replace(scenario, story="")
    return sha256(msgspec.msgpack.encode(untold)).hexdigest()


@cache
def code_hash() -> str:
    """Return the SHA-256 of the code that is run, in hex.

    A version number says too little: a checkout changes without it.
    """
    digest = sha256(f"{platform.python_version()} {version('trio')}".encode())
    for package, left_out in _CODE:
        spec = find_spec(package)
        assert spec is not None
        root = Path(str(spec.origin)).parent
        for path in sorted(root.rglob("*")):
            within = path.relative_to(root)
            is_code = path.suffix != ".pyc" and path.is_file()
            if is_code and within.parts[0] not in left_out:
                digest.update(f"{package}/{within.as_posix()}\0".encode())
                digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
