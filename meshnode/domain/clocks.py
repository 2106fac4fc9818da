"""Whose clock is wrong, from what a node measured of its peers' clocks.

Signed things carry times.  The offset that a session measures is allowed for in what
two nodes say to each other, but a record is read by everyone, by their own clocks: a
node whose clock is minutes off isn't seen by others, and doesn't see them.
"""

from collections.abc import Mapping
from statistics import median_low
from typing import Final

#: A clock that is further off than this is told of, milliseconds.
CLOCK_OFF_MS: Final = 300_000

_HINT: Final = "set it right (such as by NTP)"


def clock_trouble(offsets_ms: Mapping[str, int]) -> str:
    """Say whose clock is wrong, or nothing.

    Args:
        offsets_ms: PeerId -> that peer's clock minus this node's.
    """
    off = {peer: ms for peer, ms in offsets_ms.items() if abs(ms) > CLOCK_OFF_MS}
    if not off:
        return ""
    if 2 * len(off) > len(offsets_ms) > 1:
        middle_ms = median_low(sorted(offsets_ms.values()))
        if abs(middle_ms) > CLOCK_OFF_MS:
            return (
                f"this machine's clock is {_apart(-middle_ms)} those of its"
                f" {len(offsets_ms)} peers: {_HINT}"
            )
    peer, offset_ms = min(off.items(), key=lambda item: (-abs(item[1]), item[0]))
    text = f"the clock of peer {peer} is {_apart(offset_ms)} this machine's"
    return f"{text}: one of the two is wrong, {_HINT}"


def _apart(offset_ms: int) -> str:
    minutes = round(abs(offset_ms) / 60_000)
    told = f"{minutes} min" if minutes < 180 else f"{round(minutes / 60)} h"  # noqa: PLR2004 - hours read better from here
    return f"{told} {'ahead of' if offset_ms > 0 else 'behind'}"
