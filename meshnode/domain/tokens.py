"""What a job may use of model tokens, at every hop: reserved by awards, settled after.

A plan may limit them; then each award has a cap of its own, for what its contractor uses
and for all that is used below it.  The cap counts as used until the result says what was,
and for good where nobody says: whoever lost touch with a contractor can't know.  An award
whose result would be over its cap ends without one, so no award ever counts for more than
it was given.

Zero limits nothing: so say all awards of jobs without a limit, and of older versions.
"""

from typing import TYPE_CHECKING, Final

from protocol.contract import ContractState
from protocol.messages import Result
from protocol.receipts import Receipt, tokens_used

if TYPE_CHECKING:
    from meshnode.domain.facts import Awarded
    from meshnode.domain.job import JobState
    from meshnode.domain.units import Attempt, Unit
    from protocol.messages import Award

OUT_OF_TOKENS: Final = "bounds.tokens"


def used(attempt: "Attempt") -> int:
    """Return what an award has used of its cap, or may have: all, where nobody says."""
    if attempt.delivered is not None:
        return attempt.delivered.tokens
    if attempt.error is not None and attempt.error.tokens >= 0:
        return min(attempt.error.tokens, attempt.tokens)
    return attempt.tokens


def told(award: "Award", result: Result, receipt: Receipt) -> int:
    """Return what an event says that an award has used: of its cap, so 0 where it has none."""
    return min(award.h.budget.tokens, tokens_used(result, receipt))


# --- before an award ---


def reserved(state: "JobState") -> int:
    """Return what counts as used by awards that are open: of a result, what it says."""
    return sum(used(attempt) for _, attempt in state.open_attempts() if attempt.award)


def left(state: "JobState") -> int:
    """Return what may still be reserved."""
    return state.required_plan.tokens - state.tokens_used - reserved(state)


def may_come_back(state: "JobState") -> bool:
    """Tell whether an award is out that may give back some of its cap."""
    return any(
        attempt.contract is ContractState.AWARDED for _, attempt in state.open_attempts()
    )


def calls_waiting(state: "JobState") -> int:
    """Return the calls that are to be awarded yet; a map that isn't cut counts as one."""
    count = 0
    for name in state.path:
        if name not in state.expanded:
            count += 1
            continue
        count += sum(unit.calls for unit in state.fresh[name].values())
        count += sum(unit.calls for unit in state.begun[name].values() if waits(unit))
    return count


def waits(unit: "Unit") -> bool:
    """Tell whether a unit without an output is with nobody."""
    return not any(attempt.award for attempt in unit.tried())


def share(state: "JobState", unit: "Unit", free: int, waiting: int) -> int:
    """Return the cap of the next award of ``unit``: its calls' share of what is ``free``.

    The rest stays for the calls that are ``waiting`` beside it.  A unit whose answers are
    compared leaves as much for another answer, which is asked for at once.
    """
    if not state.required_plan.tokens:
        return 0
    calls = waiting if waits(unit) else waiting + unit.calls
    if state.required_plan.theta_ppm:
        calls += unit.calls
    return min(free, max(1, free * unit.calls // max(unit.calls, calls)))


def out_of_tokens(state: "JobState") -> tuple[str, str]:
    """Return code and text of why the job can't make another award."""
    plan = state.required_plan
    whose = "award that this job is under lets" if plan.under else "job may use"
    return OUT_OF_TOKENS, (
        f"the {whose} {plan.tokens} model tokens{' be used' if plan.under else ''}, and"
        f" {state.tokens_used} were, or may have been: the owner may raise tokens_max"
    )


def award_trouble(state: "JobState", fact: "Awarded", award: "Award") -> str:
    """Return how an award that was just taken into ``state`` breaks the limit, or nothing."""
    plan = state.required_plan
    if award.h.budget.tokens != fact.tokens:
        return "the award gives another number of tokens than the event"
    if bool(plan.tokens) != bool(fact.tokens):
        return f"{fact.tokens} tokens for an award, of a job that may use {plan.tokens}"
    if left(state) < 0 and plan.tokens:
        return f"more tokens are used and promised than the job's {plan.tokens}"
    return ""


# --- after it ---


def result_trouble(award: "Award", result: Result, receipt: Receipt) -> str:
    """Return how a result is over its award's cap, or nothing."""
    cap, count = award.h.budget.tokens, tokens_used(result, receipt)
    if cap and count > cap and result.state == "completed":
        return f"it used {count} model tokens, above the cap of {cap}"
    return ""


def over_cap(cap: int, count: int) -> str:
    """Return what a contractor says of work that used more than its award's cap."""
    return (
        f"the token limit is reached: {count} model tokens were used for it, and its award"
        f" lets {cap}; whose job it is may raise tokens_max"
    )
