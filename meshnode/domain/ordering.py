"""When a unit goes by letter: to a node that is away and does work that is ordered so.

A letter may take hours, and nobody else has the unit meanwhile.  So whoever is there comes
first, for as long as the job waits for nodes that are away, and only what the owner lets go
by letter does.  Each node is ordered a unit of once.

A job with standbys orders nothing: what came back would be sealed to a node that may be
gone for good, and its heirs would wait for it in vain.
"""

from typing import Final

from meshnode.domain.attempts import Failures, unfit
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.step_kinds import View
from meshnode.domain.units import Unit

#: An order whose time is over, and nothing came of it.
UNANSWERED: Final = "order.unanswered"
#: Failures of units that nobody could be asked for.
_UNREACHED: Final = frozenset(
    {"cfp.unanswered", "transport.unreachable", "peer.lost", "request.timeout"}
)
#: So long a broker that was restarted looks around, milliseconds.
_LOOK_MS: Final = 5_000
#: With less time than this left, no letter is worth it, milliseconds.
_LEAST_MS: Final = 60_000


def choices(
    state: JobState, unit: Unit, view: View, *, now_ms: int, patience_ms: int
) -> list[Candidate]:
    """Return who may be sent ``unit`` by letter now; nobody while it is waited for others.

    Args:
        state: The job's.
        unit: It is not out.
        view: Who is there, and who is known to take orders.
        now_ms: Unix time.
        patience_ms: So long nodes that are away are waited for.
    """
    plan = state.required_plan
    if not plan.by_letter_ms or state.elected is not None:
        return []
    task = state.tasks[unit.subtask]
    out = unfit(unit)
    offered = [c for c in view.candidates.get(task.capability, ()) if c.peer not in out]
    failures = unit.failures()
    untried = bool(offered) and not (failures and failures[-1].code in _UNREACHED)
    if untried or any(candidate.alive for candidate in offered):
        return []
    if now_ms < awaited_ms(state, unit, view, patience_ms=patience_ms):
        return []
    late = plan.deadline_ms - now_ms < _LEAST_MS
    if late or Failures.of(unit).tries >= task.attempts_max:
        return []
    out |= {attempt.peer for attempt in unit.counted() if attempt.by_letter}
    return [
        candidate
        for candidate in view.by_letter.get(task.capability, ())
        if candidate.peer not in out and candidate.items_max >= unit.calls
    ]


def awaited_ms(state: JobState, unit: Unit, view: View, *, patience_ms: int) -> int:
    """Return until when ``unit`` waits for nodes that are away, Unix time.

    A broker that was restarted looks around before it lets anything go by letter.
    """
    producers = state.producers[unit.subtask]
    ends = [state.units[name].ended_ms for one in producers for name in state.expanded[one]]
    ready_ms = unit.started_ms or max([state.planned_ms, *ends])
    looks = state.required_plan.by_letter_ms > 0
    return max(ready_ms + patience_ms, view.since_ms + _LOOK_MS if looks else 0)
