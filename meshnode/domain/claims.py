"""When what a node would say of itself is worth telling everyone.

A record goes to every node of the mesh.  Its measured latency moves with every call, so
a record for each movement would flood the mesh with work done (seen in simulation: a
working node signed one every five seconds).  Small movements wait for the next record.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from protocol.records import Capability, Measured

#: A latency is told anew when it is so many times what was told, or that part of it.
TELLING_RATIO: Final = 1.5
_NOTHING: Final = Measured()


def says_news(told: Sequence[Capability], now: Sequence[Capability]) -> bool:
    """Tell whether ``now`` differs from what was ``told`` by more than small movements."""
    if len(told) != len(now):
        return True
    return any(_differs(one, other) for one, other in zip(told, now, strict=True))


def _differs(told: Capability, now: Capability) -> bool:
    if told == now:
        return False
    if _unmeasured(told) != _unmeasured(now):
        return True
    before, after = told.measured, now.measured
    if _whole(before) != _whole(after):
        return True
    shorter, longer = sorted((before.latency_ms, after.latency_ms))
    return longer > shorter * TELLING_RATIO  # the first that is measured, too


def _whole(measured: Measured) -> tuple[int, ...]:
    """Return what has no small movements."""
    return (
        measured.tokens_per_s,
        measured.context_tokens,
        measured.tried,
        measured.right,
    )


def _unmeasured(capability: Capability) -> Capability:
    return msgspec.structs.replace(capability, measured=_NOTHING)
