"""Several answers to one unit: when a job wants to be surer than one answer makes it.

A job may say how sure it wants to be of answers that no check proves (``Planned.theta_ppm``).
Then an answer isn't charged when it is there: it is *judged* first, with the others that there
are, by :mod:`meshnode.domain.trust`.  A judgement is an event that holds all that it drew on,
and says who is asked next, or what the answers are worth.  Here it is
folded; :mod:`.asking` makes the awards that a judgement asks for.

Every answer has an award of its own, all open at once.  The number that tells replicas apart
is drawn by chance: an agent that saw a second number would know that it is compared, and one
that saw the first that it may not be.
"""

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from meshnode.domain.facts import Awarded, Judged, Planned
from meshnode.domain.panels import check_called, check_heard
from meshnode.domain.units import Unit
from protocol.errors import Malformed, OutOfTurn

if TYPE_CHECKING:
    from meshnode.domain.job import JobState

#: Answers to one unit, at most.
ANSWERS_MAX: Final = 7


def is_beside(unit: Unit, fact: Awarded) -> bool:
    """Tell whether an award is one more answer to a unit that has others open."""
    return bool(unit.tried()) and fact.attempt == len(unit.attempts)


def check_replica(plan: Planned, unit: Unit, fact: Awarded) -> None:
    """Refuse one that the plan doesn't allow.

    Raises:
        OutOfTurn: Says why.
    """
    tried = unit.tried()
    if not plan.theta_ppm:
        raise OutOfTurn(fact.KIND, f"an attempt of {unit.name} is open")
    if unit.settled or any(not attempt.award for attempt in tried):
        raise OutOfTurn("a replica", f"{unit.name} is settled, or called for")
    if len(tried) >= ANSWERS_MAX:
        raise OutOfTurn("a replica", f"{unit.name} has {len(tried)} answers")
    if fact.peer in {attempt.peer for attempt in tried}:
        raise OutOfTurn("a replica", f"{fact.peer[:60]} has {unit.name} already")
    if fact.replica in {attempt.replica for attempt in unit.attempts}:
        raise OutOfTurn("a replica", f"{unit.name} has a replica {fact.replica} already")


def judge(unit: Unit, fact: Judged, at_ms: int) -> None:
    """Take in a judgement; one that settles the unit says what each answer is worth.

    Raises:
        OutOfTurn: It isn't about the answers that there are.
    """
    answers = {attempt.number: attempt for attempt in unit.answers()}
    if unit.settled or unit.accepted is not None:
        raise OutOfTurn(fact.KIND, f"{unit.name} is settled")
    if sorted(vote.attempt for vote in fact.votes) != sorted(answers):
        raise OutOfTurn(fact.KIND, f"{unit.name} has other answers")
    if bool(fact.outcome) != (fact.chosen in answers):
        raise OutOfTurn(fact.KIND, f"{unit.name} has no answer {fact.chosen}")
    if fact.sitting is not None and not fact.outcome and unit.summons is not None:
        raise OutOfTurn(fact.KIND, f"{unit.name} has called a panel already")
    if (fact.sitting is not None) != (unit.summons is not None) and fact.outcome:
        raise OutOfTurn(fact.KIND, f"{unit.name} has called no panel, or waits for it")
    unit.judged, unit.judged_ms = fact, at_ms
    unit.judgements += 1
    if not fact.outcome:
        unit.summons = fact if fact.sitting is not None else unit.summons
        return
    for vote in fact.votes:
        attempt = answers[vote.attempt]
        if attempt.verdict is None or not vote.verdict:
            raise OutOfTurn(fact.KIND, f"answer {vote.attempt} of {unit.name} has no verdict")
        if vote.verdict != "unverified":
            same = sum(other.group == vote.group for other in fact.votes)
            attempt.verdict = replace(
                attempt.verdict,
                verdict=vote.verdict,
                check=f"{same} of {len(fact.votes)}",
                detail="others agreed on another answer" if vote.verdict == "rejected" else "",
            )


# --- of others' journals ---


def check_judged(state: "JobState", fact: Judged) -> None:
    """Hold a judgement, which is folded, against the plan and the awards.

    What its broker knew of the voters is its own: that isn't proved by a journal.

    Raises:
        Malformed: It says something else.
    """
    theta_ppm = state.required_plan.theta_ppm
    if not theta_ppm:
        raise Malformed("the job doesn't compare answers")
    if fact.outcome == "agreed" and fact.posterior_ppm < theta_ppm:
        raise Malformed(f"agreed at {fact.posterior_ppm} ppm, {theta_ppm} are asked for")
    unit = state.units[fact.unit]
    if fact.sitting is not None:
        _check_panel(state, unit, fact)
    attempts = unit.attempts
    for vote in fact.votes:
        attempt = attempts[vote.attempt]
        if vote.agent != f"{attempt.peer}/{attempt.agent}":
            raise Malformed(f"a vote of {vote.agent[:80]}, whom the answer isn't of")


def _check_panel(state: "JobState", unit: Unit, fact: Judged) -> None:
    """Hold a panel against what the graph says of one, and against its call."""
    if state.tasks[unit.subtask].panel is None:
        raise Malformed("a panel that the graph doesn't name")
    if fact.outcome:
        assert unit.summons is not None, "folded"
        check_heard(unit.summons, fact)
        return
    check_called(fact)
    if state.spent_mc + state.reserved_mc() > state.required_plan.budget_mc:
        raise Malformed("a panel that the budget has no room for")
