"""When slow work is given to a second contractor too, and how often that may be.

One contractor in many is slow for reasons that nobody else sees, and the last unit of a
job decides when it ends.  A *hedge* is a second award of a unit whose first one has been
out for longer than nearly all that this broker has seen of its capability.  The first
good result counts and is paid; the other award is cancelled, and costs nothing.

What is slow is learned from results alone.  What agents declare of themselves decides
nothing here: whoever promised to be fast would have all others' work done twice.  And
however slow all may be, only a share of a job's units is hedged.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final

from meshnode.domain.attempts import unfit
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate, stands
from meshnode.domain.units import Attempt, Unit
from protocol.contract import ContractState

#: Why an attempt failed that another one outran.
SUPERSEDED: Final = "award.superseded"
#: Results of one capability that are remembered, and how many tell what is slow.
_SEEN_MAX: Final = 64
SEEN_MIN: Final = 10
#: Slow is what takes longer than this share of them did, and than so often the middle one.
_QUANTILE: Final = 0.9
_MIDDLES: Final = 2.0
#: Capabilities that are remembered; the longest unseen are forgotten first.
_CAPABILITIES_MAX: Final = 256


def hedges_max(state: JobState) -> int:
    """Return how many hedges a job of so many units may have: one at least, if any."""
    pct = state.required_plan.hedges_pct
    return max(1, len(state.units) * min(pct, 100) // 100) if pct > 0 else 0


def due_ms(unit: Unit, attempt: Attempt, slow_ms: float) -> int:
    """Return when ``unit`` is hedged if no result is there, Unix time; 0 for never.

    Args:
        unit: What was awarded.
        attempt: The open one, or the first of two.
        slow_ms: After how long a call is slow; 0 when nobody knows.
    """
    out = attempt.contract is ContractState.AWARDED and attempt.delivered is None
    # Whose text is coming is at work, however much it has to say.
    speaking = attempt.offset > 0
    slow_way = attempt.by_letter  # and its contractor can't be told that another was faster
    if (
        not slow_ms
        or not out
        or speaking
        or slow_way
        or any(each.hedge for each in unit.attempts)
    ):
        return 0
    return attempt.at_ms + ceil(slow_ms * unit.calls)


def second_choices(
    unit: Unit, offered: Iterable[Candidate], load: Mapping[str, int], *, until_ms: int
) -> list[Candidate]:
    """Return who could do ``unit`` at once and well, beside whoever has it.

    Nobody is called for a proposal: what is to save time takes an offer that stands.

    Args:
        unit: It is out, and slow.
        offered: Who has the capability.
        load: Units outstanding at each agent, by its id.
        until_ms: An offer must stand for longer than this, Unix time.
    """
    out = unfit(unit) | {attempt.peer for attempt in unit.attempts}
    return [
        each
        for each in offered
        if each.peer not in out
        and each.items_max >= unit.calls
        and stands(each, until_ms=until_ms)
        and load.get(each.agent_id, 0) < each.concurrency
        and not (each.troubled or each.probe)
    ]


class Paces:
    """How long work took lately, from its award to its result, for one call."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}  # capability -> ms for a call, oldest first

    def __len__(self) -> int:
        """Return of how many capabilities something is known."""
        return len(self._seen)

    def saw(self, capability: str, *, took_ms: int, calls: int) -> None:
        """Note that an award of ``calls`` calls was done in ``took_ms``."""
        seen = self._seen.pop(capability, None)
        if seen is None:
            seen = deque(maxlen=_SEEN_MAX)
        seen.append(took_ms / max(1, calls))
        self._seen[capability] = seen
        if len(self._seen) > _CAPABILITIES_MAX:
            del self._seen[next(iter(self._seen))]

    def slow_ms(self, capability: str) -> float:
        """Return after how long a call is slow; 0 while too little was seen to tell."""
        seen = sorted(self._seen.get(capability, ()))
        if len(seen) < SEEN_MIN:
            return 0.0
        high = seen[ceil(_QUANTILE * len(seen)) - 1]
        return max(high, _MIDDLES * seen[len(seen) // 2])
