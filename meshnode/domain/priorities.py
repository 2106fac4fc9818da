"""Which sub-task goes first when agents are scarce, and whom it is worth waiting for.

Both are what list schedulers do (HEFT: Topcuoglu, Hariri, Wu, IEEE TPDS 13(3), 2002), asked
anew whenever something happens, since estimates are estimates.  Urgent is what the longest
way to the job's end leads through.  And a slow agent that is free now is no gain over a
fast one that has its hands full and would be done with this, too, before the slow one.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from meshnode.domain.job import JobState
from meshnode.domain.matching import LATENCY_GUESS_MS, Candidate

#: An award that has been out for so often what it should take has an agent that nobody
#: waits for: once for what was before it there, once for itself, and as much again.
_PATIENCE: Final = 3

#: Capability query -> who offers it.
Offered = Mapping[str, Sequence[Candidate]]


def by_urgency(state: JobState, ready: Sequence[str], offered: Offered) -> Sequence[str]:
    """Return ``ready`` with those first whose way to the job's end is the longest.

    Args:
        state: The job.
        ready: Sub-tasks whose producers are finished, in the graph's order.
        offered: Who could do what, and how long that takes them.
    """
    begins = [name for name in ready if state.fresh.get(name) or name not in state.expanded]
    if len(begins) < 2:  # noqa: PLR2004 - one has nobody to go before
        return ready
    ways_ms: dict[str, float] = {}  # from the beginning of a sub-task to the job's end
    after_ms = dict.fromkeys(state.path, 0.0)
    for name in reversed(state.path):
        ways_ms[name] = after_ms[name] + _takes_ms(state, name, offered)
        for producer in state.producers[name]:
            after_ms[producer] = max(after_ms[producer], ways_ms[name])
    return sorted(ready, key=lambda name: -ways_ms[name])


def _takes_ms(state: JobState, name: str, offered: Offered) -> float:
    """Return how long what is left of a sub-task takes, all who could do it at work."""
    candidates = offered.get(state.tasks[name].capability, ())
    if not candidates:
        return float(LATENCY_GUESS_MS)
    latency_ms = sum(c.latency_ms or LATENCY_GUESS_MS for c in candidates) / len(candidates)
    units = [*state.fresh.get(name, {}).values(), *state.begun.get(name, {}).values()]
    slots = sum(max(1, candidate.concurrency) for candidate in candidates)
    return latency_ms * max(1, ceil(sum(unit.calls for unit in units) / slots))


def patience_ms(state: JobState, candidate: Candidate) -> int:
    """Return until when ``candidate``, which has no room, may be waited for, Unix time.

    0 for not at all: it is not this job that keeps it busy, so nothing would tell when it
    is free.  Past that time it may have stopped working; who says nothing of how long it
    takes isn't waited for.
    """
    out = [
        (attempt.at_ms, unit.calls)
        for unit, attempt in state.open_attempts()
        if attempt.award
        and attempt.delivered is None
        and (attempt.peer, attempt.agent) == (candidate.peer, candidate.agent)
    ]
    if not out:
        return 0
    at_ms, calls = min(out)
    return at_ms + _PATIENCE * calls * candidate.latency_ms
