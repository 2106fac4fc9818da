"""Whom a broker asks for another answer, where a job wants to be surer than one makes it.

A judgement (:mod:`.replicas`) says whom to ask, and how many answers are wanted; this makes
the awards of it, while there are offers, room and money, and asks for the next judgement.
Nobody is called for a proposal but for the first answer: others take offers that stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.domain.facts import Ranked
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate, has_room, stands, untroubled
from meshnode.domain.purse import Purse
from meshnode.domain.step_kinds import View
from meshnode.domain.units import Attempt, Unit
from protocol.contract import ContractState

#: Whom a decision saw, and how.
Pair = tuple[Candidate, Ranked]

#: Judgements of one unit, after which the answers that there are must do.
JUDGEMENTS_MAX: Final = 20
#: Who is to be asked and can't be is looked for so long, then others are.
LOOK_MS: Final = 2_000
#: Before the job's deadline the answers that there are must do: so long, or a tenth of all.
MARGIN_MS: Final = 5_000
_MARGIN_SHARE: Final = 10


@dataclass(frozen=True, slots=True)
class Asking:
    """What a unit whose answers are compared needs now.

    Attributes:
        candidates: Who is asked, each for an answer of its own.
        judge: It is to be judged.
        last: With the answers that there are, since there will be no others.
        wake_ms: When to look again, Unix time; 0 for when something happens.
    """

    candidates: tuple[Candidate, ...] = ()
    judge: bool = False
    last: bool = False
    wake_ms: int = 0


def are_compared(state: JobState, unit: Unit) -> bool:
    """Tell whether a unit's answers wait for each other, and it isn't decided yet."""
    return bool(state.required_plan.theta_ppm) and not unit.settled


def charge_order(unit: Unit) -> list[Attempt]:
    """Return the open attempts, the one whose output counts last.

    It closes the unit, and whoever else is to be paid must be before that.
    """
    chosen = unit.judged.chosen if unit.judged is not None else -1
    return sorted(unit.tried(), key=lambda attempt: attempt.number == chosen)


def kept_mc(state: JobState, view: View) -> int:
    """Return what answers beside the first may not be bought from: all else that is to be done.

    What it costs at least: a map that isn't cut yet counts as one call.
    """
    kept = 0
    for name in state.path:
        offered = view.candidates.get(state.tasks[name].capability, ())
        if not offered or state.finished(name):
            continue
        units = state.fresh[name].values() if name in state.expanded else ()
        calls = sum(each.calls for each in units) if name in state.expanded else 1
        kept += calls * min(candidate.price_mc for candidate in offered)
    return kept


def margin_ms(state: JobState) -> int:
    """Return from when on a job goes by the answers that it has, Unix time."""
    plan = state.required_plan
    whole_ms = plan.deadline_ms - state.planned_ms
    return plan.deadline_ms - min(MARGIN_MS, whole_ms // _MARGIN_SHARE)


def asking(
    state: JobState, unit: Unit, view: View, purse: Purse, *, now_ms: int, until_ms: int
) -> Asking:
    """Return what a unit needs that has an attempt open, and isn't settled.

    Args:
        state: Its job's.
        unit: See there.
        view: Who offers what.
        purse: What may be given away.
        now_ms: Unix time.
        until_ms: An offer must stand for longer than this to be awarded under, Unix time.
    """
    judged = unit.judged
    answers, tried = unit.answers(), unit.tried()
    if judged is None:  # its first award was made when nobody was known
        return Asking(judge=len(answers) == len(tried))
    if judged.sitting is not None:  # its panel is asked, and sees to when it must end
        return Asking(judge=True)
    out = [attempt for attempt in tried if attempt not in answers]
    end_ms = margin_ms(state)
    if answers and (now_ms >= end_ms or unit.judgements >= JUDGEMENTS_MAX):
        return Asking(judge=True, last=True)
    wake_ms = end_ms if answers else 0
    if any(attempt.contract is not ContractState.AWARDED for attempt in out):
        return Asking(wake_ms=wake_ms)  # it is called for, or being checked
    missing = judged.wanted - len(tried)
    if missing <= 0:
        new = {vote.attempt for vote in judged.votes} != {each.number for each in answers}
        return Asking(judge=new and not out, wake_ms=wake_ms)
    offered = view.candidates.get(state.tasks[unit.subtask].capability, ())
    kept = kept_mc(state, view)
    # Before room and offers: those who are for last aren't asked because others are busy.
    there = untroubled(_there(unit, purse.within(unit, offered, kept_mc=kept)))
    standing = [one for one in there if stands(one, until_ms=until_ms)]
    ready = [one for one in standing if has_room(one, purse.load)]
    chosen: list[Candidate] = []
    for one in ready if purse.has_award else ():
        if len(chosen) < missing and purse.within(unit, [one], kept_mc=kept):
            chosen.append(one)
            kept += one.price_mc * unit.calls  # all of them together must be affordable
    if chosen or out or (standing and purse.has_award):
        return Asking(tuple(chosen), wake_ms=wake_ms)  # an event makes room where there is none
    look_ms = unit.judged_ms + LOOK_MS
    used_up = not purse.has_award and purse.is_out() is not None  # waiting brings nothing back
    if there and not used_up and now_ms < look_ms:
        return Asking(wake_ms=look_ms)
    return Asking(judge=True, last=used_up or not there)


def _there(unit: Unit, offered: Sequence[Candidate]) -> list[Candidate]:
    """Return who is there, was not asked for ``unit``, and is to be, in that order."""
    ask = () if unit.judged is None else unit.judged.ask
    known = {candidate.agent_id: candidate for candidate in offered}
    tried = {attempt.peer for attempt in unit.attempts}
    found = []
    for agent in ask:
        candidate = known.get(agent)
        if candidate is None or candidate.peer in tried or candidate.items_max < unit.calls:
            continue
        found.append(candidate)
        tried.add(candidate.peer)
    return found


def in_order(unit: Unit, ranked: list[Pair]) -> list[Pair]:
    """Return ``ranked`` in the order in which the unit's judgement asks, others after it."""
    if unit.judged is None:
        return ranked
    place = {agent: number for number, agent in enumerate(unit.judged.ask)}
    return sorted(ranked, key=lambda row: place.get(row[0].agent_id, len(place)))
