"""Work on hostile input in a process that can be killed: one script, one request, limits.

Libraries that compute what a stranger writes (an integral, a query) can take for ever or
all memory.  A thread can't be stopped and shares the node's memory; so such work runs in
a script of its own beside this module, which imports nothing of meshnode: it reads one
JSON request on stdin and writes ``{"result": …}`` or ``{"error": "…"}`` on stdout.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from meshnode.adapters.agents.child_process import Limits, run_child
from meshnode.errors import AgentError
from meshnode.ports import JsonValue


async def run_confined(
    script: str, request: Mapping[str, JsonValue], limits: Limits, *, what: str
) -> JsonValue:
    """Return what ``script`` answers to ``request``.

    Args:
        script: File name beside this module.
        request: What it reads.
        limits: Time, memory and output of the process.
        what: What is being done, for messages.

    Raises:
        AgentError: The script refused the request, or died; says why.
        AgentTimeout: It took longer than allowed.
    """
    path = Path(__file__).with_name(script)
    finished = await run_child(
        # Not from the current folder, not the user's site: only what is installed here.
        [sys.executable, "-P", "-s", "-X", "utf8", str(path)],
        stdin=json.dumps(request).encode(),
        limits=limits,
    )
    try:
        answer = msgspec.json.decode(finished.stdout)
    except msgspec.DecodeError as error:
        if finished.returncode < 0:
            reason = f"it was ended by signal {-finished.returncode}"
        else:
            last = finished.stderr_tail.splitlines()[-1:]
            reason = "it ran out of memory" if "MemoryError" in "".join(last) else "it died"
        raise AgentError(f"{what} came to nothing: {reason}", hint="ask for less") from error
    if "error" in answer:
        raise AgentError(f"{what}: {answer['error']}")
    result: JsonValue = answer["result"]
    return result
