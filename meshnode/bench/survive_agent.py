"""What the nodes do for each other that ``meshnode bench survive`` kills."""

import trio

from meshnode.adapters.agents.function import agent

#: Of one call, seconds: long enough to be killed in.
_WORK_S = 0.1


@agent("bench.shout@1", price_mc=3, concurrency_max=4, timeout_s=20.0)
async def shout(text: str) -> str:
    """Return the text in capitals, a little later."""
    await trio.sleep(_WORK_S)
    return text.upper()
