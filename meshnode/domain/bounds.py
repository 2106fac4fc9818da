"""What a job may have done below its own awards, and what was.

A contractor may have part of its work done by others, as the broker of a job of its own:
in money, sub-tasks, depth and time that job is bounded by the award that it is under.  An
award reserves what it gives before it is made; what its receipt accounts for is what it
used, and the rest comes back.  What nobody accounts for counts as used: whoever lost
touch with a contractor can't know what that has begun.

Money needs nothing here: a job under an award has the award's money as its budget.  Model
tokens are bounded in :mod:`meshnode.domain.tokens`.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import msgspec

from meshnode.domain import tokens
from protocol.limits import NUMBER_MAX, SPENT_ROWS_MAX, SPENT_TEXT_SIZE_MAX
from protocol.receipts import Spent
from protocol.signing import peek

if TYPE_CHECKING:
    from meshnode.domain.facts import Awarded
    from meshnode.domain.job import JobState
    from meshnode.domain.units import Attempt, Unit
    from protocol.messages import Award

#: Codes of failures of awards that were never begun: nothing can have been done below.
_NEVER_BEGUN: Final = (
    "access.",
    "broker.changed",
    "credit.",
    "node.busy",
    "node.crowded",
    "refused.",
    "transport.unreachable",
)

OUT_OF_AWARDS: Final = "bounds.subtasks"
#: Rows of a receipt that name who did what: a broker takes receipts of 8 KiB.
_ROWS_BYTES_MAX: Final = 5 * 1024


def was_begun(attempt: "Attempt") -> bool:
    """Tell whether an award may have been begun: its failure doesn't say that it wasn't.

    Where there is a receipt it was, whatever code its contractor gives the failure.
    """
    error = attempt.error
    return error is None or error.below >= 0 or not error.code.startswith(_NEVER_BEGUN)


def below(attempt: "Attempt") -> int:
    """Return the awards made below one that is over, or what may have been."""
    if attempt.delivered is not None:
        return attempt.delivered.below
    if attempt.error is not None and attempt.error.below >= 0:
        return attempt.error.below
    return attempt.subtasks


# --- before an award ---


def own_awards(state: "JobState") -> int:
    """Return what an award of this job itself takes from the sub-tasks that it has."""
    return 1 if state.required_plan.under else 0


def reserved(state: "JobState") -> int:
    """Return how many sub-tasks are promised to awards that are out."""
    own = own_awards(state)
    return sum(own + attempt.subtasks for _, attempt in state.open_attempts() if attempt.award)


def left(state: "JobState") -> int:
    """Return how many sub-tasks may still be promised."""
    return state.required_plan.subtasks - state.subtasks_used - reserved(state)


def grant(state: "JobState", unit: "Unit", free: int) -> int:
    """Return how many sub-tasks the next award of ``unit`` may give, of ``free``.

    What the job's own units still need of them stays: one for each that isn't out, and one
    for this award, be it the unit's second.  The rest is shared among the units of a map, or
    those awarded last would have none.
    """
    plan = state.required_plan
    if plan.hops <= 1:
        return 0
    if plan.under:
        free -= _waiting(state) + (not _is_waiting(unit))
    share = max(1, free // max(1, len(state.fresh.get(unit.subtask, ()))))
    return max(0, min(plan.fan_out, free, share))


def _waiting(state: "JobState") -> int:
    """Return how many units are to be awarded yet, the next one among them."""
    count = 0
    for subtask in state.path:
        if subtask not in state.expanded:
            count += 1
            continue
        count += len(state.fresh[subtask])
        for unit in state.begun[subtask].values():
            count += _is_waiting(unit)
    return count


def _is_waiting(unit: "Unit") -> bool:
    return not any(attempt.award for attempt in unit.tried())


def out_of_awards(state: "JobState") -> tuple[str, str]:
    """Return code and text of why the job can't make another award."""
    plan = state.required_plan
    return OUT_OF_AWARDS, (
        f"the award that this job is under lets {plan.subtasks} sub-tasks be handed on, and"
        f" {state.subtasks_used} were: the owner may raise subtasks_max or fan_out_max"
    )


def award_trouble(state: "JobState", fact: "Awarded", award: "Award") -> str:
    """Return how an award that was just taken into ``state`` breaks its bounds, or nothing."""
    plan, budget = state.required_plan, award.h.budget
    if budget.subtasks != fact.subtasks or budget.cost_mc > fact.price_cap_mc:
        return "the award gives another budget than the event"
    if award.h.hops >= max(1, plan.hops):
        return f"the award has {award.h.hops} hops, the job {plan.hops}"
    if fact.subtasks > plan.fan_out:
        return f"{fact.subtasks} sub-tasks for one award, {plan.fan_out} is the most"
    if left(state) < 0:
        return f"more sub-tasks are promised than the job's {plan.subtasks}"
    return tokens.award_trouble(state, fact, award)


# --- after it ---


class _Receipt(msgspec.Struct, frozen=True):
    """Of a receipt in this node's own journal: its signature stands there."""

    below: list[Spent] = msgspec.field(default_factory=list)


class _Metering(msgspec.Struct, frozen=True):
    tokens_in: int = 0
    tokens_out: int = 0


class _Result(msgspec.Struct, frozen=True):
    metering: _Metering = _Metering()


_RECEIPTS: Final = msgspec.msgpack.Decoder(_Receipt)
_RESULTS: Final = msgspec.msgpack.Decoder(_Result)


def spent(state: "JobState") -> list[Spent]:
    """Return what was done for a job, by level, sub-task and node: its own awards first.

    The awards of all rows are those that it used, its own among them.
    """
    rows: dict[tuple[int, str, str], Spent] = {}
    for unit in state.units.values():
        for attempt in unit.attempts:
            if attempt.award and was_begun(attempt):
                for row in _of_attempt(unit.subtask, attempt):
                    key = (row.level, row.subtask, row.peer)
                    rows[key] = _sum(rows[key], row) if key in rows else row
    return [rows[key] for key in sorted(rows)]


def _of_attempt(subtask: str, attempt: "Attempt") -> Iterator[Spent]:
    made = attempt.delivered
    if made is None:
        count = tokens.used(attempt)  # nobody tells whose they were
        yield Spent(level=1, subtask=subtask, peer=attempt.peer, awards=1, tokens=count)
        if count := below(attempt):
            yield Spent(level=2, subtask=subtask, peer="", awards=count)
        return
    metering = _RESULTS.decode(peek(made.result).p).metering
    yield Spent(
        level=1,
        subtask=subtask,
        peer=attempt.peer,
        cost_mc=(attempt.paid_mc or 0) if attempt.error is None else 0,
        awards=1,
        tokens=min(NUMBER_MAX, metering.tokens_in + metering.tokens_out),
    )
    for row in _RECEIPTS.decode(peek(made.receipt).p).below:
        way = f"{subtask}/{row.subtask}" if row.subtask else subtask
        yield msgspec.structs.replace(
            row, level=row.level + 1, subtask=way[:SPENT_TEXT_SIZE_MAX]
        )


def _sum(one: Spent, other: Spent) -> Spent:
    """Add two rows up; what others say may be any number, and a sum must be one too."""
    return msgspec.structs.replace(
        one,
        cost_mc=min(NUMBER_MAX, one.cost_mc + other.cost_mc),
        awards=min(NUMBER_MAX, one.awards + other.awards),
        tokens=min(NUMBER_MAX, one.tokens + other.tokens),
    )


def rolled_up(states: Sequence["JobState"]) -> list[Spent]:
    """Return what was done in all of ``states``, in as many rows as a receipt holds."""
    rows: dict[tuple[int, str, str], Spent] = {}
    for state in states:
        for row in spent(state):
            key = (row.level, row.subtask, row.peer)
            rows[key] = _sum(rows[key], row) if key in rows else row
    listed = [rows[key] for key in sorted(rows)]
    return few(listed, rows_max=SPENT_ROWS_MAX, bytes_max=_ROWS_BYTES_MAX)


def few(rows: Sequence[Spent], *, rows_max: int, bytes_max: int) -> list[Spent]:
    """Return ``rows``, or as many as that allows and what is left added up by level.

    What contractors say of those below them is theirs to make long: whoever shows it, or
    passes it on, holds no more of it than this.
    """
    fitting = _fitting(rows, bytes_max)
    if len(rows) <= rows_max and fitting == len(rows):
        return list(rows)
    rest: dict[int, Spent] = {}
    told = min(fitting, rows_max - len({row.level for row in rows}))
    for row in rows[told:]:
        nameless = msgspec.structs.replace(row, subtask="", peer="")
        level = row.level
        rest[level] = _sum(rest[level], nameless) if level in rest else nameless
    return [*rows[:told], *rest.values()]


def _fitting(rows: Sequence[Spent], bytes_max: int) -> int:
    """Return how many of ``rows``, from the first on, are no more than so many bytes."""
    sizes = accumulate(len(msgspec.msgpack.encode(row)) for row in rows)
    return sum(size <= bytes_max for size in sizes)
