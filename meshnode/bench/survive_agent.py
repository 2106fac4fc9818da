"""What the nodes do for each other that ``meshnode bench survive`` kills."""

import os
from typing import Final

import trio

from meshnode.adapters.agents.function import agent

#: In the environment of a contractor: how long one call takes, seconds.
WORK: Final = "SURVIVE_WORK_S"
#: Unless it says so: long enough to be killed in.
_WORK_S: Final = 0.1


@agent("bench.shout@1", price_mc=3, concurrency_max=4, timeout_s=20.0)
async def shout(text: str) -> str:
    """Return the text in capitals, a little later."""
    await trio.sleep(float(os.environ.get(WORK, _WORK_S)))
    return text.upper()
