"""What a job has cost, rolled up: by sub-task, by node, and all of it.

Read from the fold alone, so that the sums are those of the journal's charges: an attempt
that came to nothing, was rejected or outrun has no cost, and shows as a try.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from meshnode.domain.bounds import few, spent
from meshnode.domain.job import JobState
from protocol.receipts import Spent

#: Of what contractors say that others did for a job, so much is shown by name.
BELOW_ROWS_MAX: Final = 256
BELOW_BYTES_MAX: Final = 32 * 1024


@dataclass(slots=True)
class Cost:
    """Of one sub-task, or of one node.

    Attributes:
        paid_mc: Charged.
        reserved_mc: Promised to awards that are out.
        units: Batches whose output was accepted.
        awards: How many were made for that; the more, the worse it went.
        run_ms: How long what was accepted took its makers.
    """

    paid_mc: int = 0
    reserved_mc: int = 0
    units: int = 0
    awards: int = 0
    run_ms: int = 0


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a job.

    Attributes:
        subtasks: Sub-task id -> its cost, in the order of the graph's path.
        nodes: PeerId -> what it was awarded and paid, in the order of the first awards.
        total: All of it.
        below: What contractors had others do for it, and paid out of that: by level (1 for
            what they awarded themselves), sub-task and node, as their receipts say; what is
            more than can be shown is added up by level.
    """

    subtasks: dict[str, Cost]
    nodes: dict[str, Cost]
    total: Cost
    below: list[Spent]


def costs_of(state: JobState) -> Costs:
    """Return what the job has cost so far."""
    told = spent(state) if state.required_plan.subtasks else []
    below = [msgspec.structs.replace(row, level=row.level - 1) for row in told if row.level > 1]
    below = few(below, rows_max=BELOW_ROWS_MAX, bytes_max=BELOW_BYTES_MAX)
    costs = Costs({name: Cost() for name in state.path}, {}, Cost(), below)
    for unit in state.units.values():
        for attempt in unit.attempts:
            if not attempt.award:
                continue
            node = costs.nodes.setdefault(attempt.peer, Cost())
            for cost in (costs.subtasks[unit.subtask], node, costs.total):
                cost.awards += 1
                if attempt.open:
                    cost.reserved_mc += attempt.price_cap_mc
                if attempt is unit.accepted:
                    cost.units += 1
                    cost.paid_mc += attempt.paid_mc or 0
                    cost.run_ms += attempt.delivered.run_ms if attempt.delivered else 0
    return costs
