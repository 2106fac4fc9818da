"""A connection that tells of silence, as heartbeats would, without any being sent.

Who has not heard a peer for so long takes it for gone.  With heartbeats the last one came
up to a beat before the silence began, so it is noticed within the limit, and earlier by up
to a beat.  While nothing stands in the way there is nothing to tell, and nothing is done:
that is what makes an hour of a thousand idle nodes cheap.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from protocol import limits

if TYPE_CHECKING:
    from simulations.lanes import Lane
    from simulations.links import SimStream

#: A live peer says something at least this often, seconds.
BEAT_S: Final = limits.HEARTBEAT_MS / 1000


@dataclass(frozen=True, slots=True)
class _Ear:
    lane: "Lane"
    limit_s: float
    on_silence: Callable[[], None]


class Ears:
    """Who minds silence on one link."""

    __slots__ = ("_ears",)

    def __init__(self) -> None:
        self._ears: dict[SimStream, _Ear] = {}

    def listen(
        self, stream: "SimStream", lane: "Lane", limit_s: float, on_silence: Callable[[], None]
    ) -> None:
        """Call ``on_silence`` once nothing has come to ``stream`` by ``lane`` for so long."""
        ear = self._ears[stream] = _Ear(lane, limit_s, on_silence)
        if lane.blocked or lane.void:
            self._arm(stream, ear)

    def forget(self, stream: "SimStream") -> None:
        """Tell ``stream`` nothing any more."""
        self._ears.pop(stream, None)

    def falls_silent(self, lane: "Lane") -> None:
        """Note that nothing comes by ``lane`` from now on."""
        for stream, ear in self._ears.items():
            if ear.lane is lane:
                self._arm(stream, ear)

    def _arm(self, stream: "SimStream", ear: _Ear) -> None:
        lane = ear.lane
        due_s = trio.current_time() + ear.limit_s - lane.rng.random() * BEAT_S
        lane.timetable.at(due_s, self._tell, stream, lane, lane.stalls)

    def _tell(self, stream: "SimStream", lane: "Lane", stalls: int) -> None:
        silent = lane.void or (lane.blocked and lane.stalls == stalls)
        if silent and stream in self._ears:
            lane.trace.note(f"{lane.name} is silent")
            self._ears.pop(stream).on_silence()
