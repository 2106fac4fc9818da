"""Sees whether code reads anything of the world: clock, chance, files, sockets, settings.

A profile hook hears of every call while the code runs.  Python code may come only from
:data:`ALLOWED`, and C functions not from the modules that reach outside.  So it isn't a list of
functions to forget one of: what isn't known to be pure is reported.
C code that calls C code by itself (``functools.partial(time.time)``) isn't heard.
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[3]
#: Where Python code may come from: ours, and the standard library's pure parts.
ALLOWED = (
    str(ROOT / "meshnode" / "domain"),
    str(ROOT / "protocol"),
    str(Path(__file__).parent),
    "<string>",  # what dataclasses generate
)
PURE = {
    "collections", "dataclasses", "enum", "functools", "graphlib", "re", "typing", "types",
    "weakref",
}  # fmt: skip
#: Modules of C functions that reach outside, or whose answers differ from run to run.
OUTSIDE = {
    "_datetime", "_io", "_random", "_socket", "_ssl", "_thread", "io", "nt", "os", "posix",
    "random", "select", "signal", "socket", "time",
}  # fmt: skip
OUTSIDE_NAMES = {"open", "id", "input", "print", "__import__"}
OUTSIDE_TYPES = {"Random", "SystemRandom", "datetime", "date", "socket", "SimpleQueue"}


def outside_calls(act: Callable[[], object]) -> list[str]:
    """Run ``act`` and return the calls in it that reach outside."""
    seen: list[str] = []

    def hear(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            module = frame.f_globals.get("__name__", "")
            if not name.startswith(ALLOWED) and module.split(".")[0] not in PURE:
                seen.append(f"{module}.{frame.f_code.co_name}")
        elif event == "c_call":
            owner = getattr(arg, "__self__", None)
            kind = owner if isinstance(owner, type) else type(owner)
            module = getattr(arg, "__module__", None) or getattr(owner, "__name__", "")
            name = getattr(arg, "__name__", "")
            if module in OUTSIDE or name in OUTSIDE_NAMES or kind.__name__ in OUTSIDE_TYPES:
                seen.append(f"{module or kind.__name__}.{name}")

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # who listens to collections looks at clocks
    sys.setprofile(hear)
    try:
        act()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return [call for call in seen if call != "sys.setprofile"]
