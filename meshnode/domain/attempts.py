"""What became of an attempt that nobody took up: whether it counts, and what is told.

Owners refuse for reasons of their own (60-contracts.md): this broker may not call, the
node is paused, closed, has done enough for today, is owed enough, or has enough out that
isn't accepted.  None of that is a failed try, and none of it gets better by asking again at
once: who refused so is left alone until it may help.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.domain import admission, elections, ledger
from meshnode.domain.facts import Failed
from meshnode.domain.matching import Candidate
from meshnode.domain.trust import buyers
from meshnode.domain.units import CROWDED, Attempt, Unit
from protocol.graph import SubTask

#: Why this broker gives somebody no work, of its own account.
NOT_BELIEVED: Final = "not_believed"
#: Reason of a refusal -> code of the failure it makes.
CODES: Final = {
    admission.NOT_ALLOWED: "access.not_allowed",
    admission.PAUSED: "access.paused",
    admission.CLOSED: "access.closed",
    admission.QUOTA: "access.quota",
    ledger.CREDIT: ledger.EXHAUSTED,
    buyers.UNSETTLED: buyers.UNPAID,
}
#: Pause before attempt n+1: doubles from the first to the last of these.
BACKOFF_MS: Final = (0, 100, 400, 1_600, 5_000)
#: Of a pause up to this share more: units that failed together don't come back together.
_SPREAD: Final = 0.5
#: Pause after an attempt that nobody took up, at least.
BUSY_PAUSE_MS: Final = 500
#: It doubles after so many of them, up to the most: a mesh that has no time is asked ever
#: more rarely, and what may come to nothing lasts for about five minutes.
_BUSY_EACH: Final = 8
_BUSY_PAUSE_MS_MAX: Final = 8_000
#: While all that are known refuse this broker, somebody else may be found, milliseconds.
BARRED_GRACE_MS: Final = 3_000
#: Refusals of those who are told, of all that refuse.
_TOLD_MAX: Final = 3

_NOT_BELIEVED: Final = "trust.blocked"
_BUSY: Final = "node.busy"
_AWAY: Final = "transport.unreachable"
#: Of attempts for which nobody was there: that mends itself, or another is looked for soon.
_GONE: Final = frozenset({_AWAY, "cfp.unanswered"})
_TOO_LARGE: Final = "artifact.too_large"
#: Failures after which the same peer isn't asked for this unit again.
DISQUALIFYING: Final = frozenset(
    {
        "agent.failed",
        "agent.timeout",
        "agent.output_invalid",
        _TOO_LARGE,
        "output.rejected",
        "peer.protocol",
        "refused.items",
    }
)
#: Failures of results that this broker can't check or keep, if it blames itself for them: its
#: copy of an input is gone, or there is no room here.  They are nobody's tries, and few:
#: each is work that nobody is paid for.
INPUTS_GONE: Final = "check.inputs_gone"
_BROKERS_OWN: Final = frozenset({INPUTS_GONE, _TOO_LARGE})
UNCHECKED_MAX: Final = 2
#: Failures of awards that nobody took.
UNTRIED: Final = frozenset({_BUSY, CROWDED, _AWAY, elections.CHANGED, *CODES.values()})
#: Attempts that may come to nothing because the contractor could not have an input, beside
#: the tries: a link that is bad for some seconds must not use those up.  With the pauses
#: they last about half a minute.
UNFETCHED_MAX: Final = 8
#: Awards that nobody took, and calls without an answer, don't count as tries, but they end.
IDLE_MAX: Final = 60
#: Who has been away for so many is looked for this often, milliseconds: for a week without
#: filling a journal.
AWAY_PAUSE_MS: Final = 60_000
#: What it means that all who were called refuse for the same reason.
_UNANIMOUS: Final = {**CODES, "busy": _BUSY, _BUSY: _BUSY, admission.ITEMS: "refused.items"}


@dataclass(frozen=True, slots=True)
class Barred:
    """Who offers something and won't do it for this broker now.

    Attributes:
        peer: PeerId.
        reason: As it told it.
        text: For people.
        back_ms: When asking again may help, Unix time; 0 when nobody knows.
    """

    peer: str
    reason: str
    text: str = ""
    back_ms: int = 0


def is_try(attempt: Attempt) -> bool:
    """Tell whether a contractor failed at it, rather than had no time or not the inputs."""
    error = attempt.error
    return (
        error is not None
        and bool(attempt.award)
        and error.code not in UNTRIED
        and error.blame != "artifact"
        and not is_brokers_own(error)
    )


def is_no_show(failure: Failed) -> bool:
    """Tell whether a contractor didn't do what it was awarded, rather than wouldn't."""
    refused = failure.code in UNTRIED and failure.code != _AWAY
    return bool(failure.peer) and failure.blame == "peer" and not refused


def is_brokers_own(failure: Failed) -> bool:
    """Tell whether this broker failed, when the contractor had done its part."""
    return failure.blame == "broker" and failure.code in _BROKERS_OWN


@dataclass(frozen=True, slots=True)
class Failures:
    """How often a unit failed, by what it means for the next attempt.

    Attributes:
        tries: At a contractor.
        unfetched: For want of an input.
        unchecked: At this broker, which could not check or keep the result.
        idle: Because nobody took it, or answered.
    """

    tries: int
    unfetched: int
    unchecked: int
    idle: int

    @classmethod
    def of(cls, unit: Unit) -> "Failures":
        """Count those of ``unit``."""
        tries = sum(map(is_try, unit.counted()))
        failures = unit.failures()
        unfetched = sum(failure.blame == "artifact" for failure in failures)
        unchecked = sum(map(is_brokers_own, failures))
        idle = len(failures) - tries - unfetched - unchecked
        return cls(tries, unfetched, unchecked, idle)

    def are_enough(self, tries_max: int, *, patient: bool = False) -> bool:
        """Tell whether no further attempt is made.

        Args:
            tries_max: At a contractor.
            patient: The job waits for nodes that are away.
        """
        return (
            self.tries >= tries_max
            or self.unfetched > UNFETCHED_MAX
            or self.unchecked > UNCHECKED_MAX
            or (self.idle > IDLE_MAX and not patient)
        )

    def rest_ms(self, last: Attempt, share: float) -> int:
        """Return how long the unit rests after ``last``, which failed; see :func:`pause_ms`."""
        if last.turned:
            return 0  # by who is busy, and another may not be
        if last.error is not None and last.error.blame == "artifact":
            return pause_ms(self.tries + self.unfetched, tried=True, share=share)
        if self.idle > IDLE_MAX:
            return AWAY_PAUSE_MS + int(AWAY_PAUSE_MS * _SPREAD * share)
        gone = last.error is not None and last.error.code in _GONE
        idle = 0 if gone else self.idle
        return pause_ms(self.tries, tried=is_try(last), share=share, idle=idle)


def inputs_were_lost(unit: Unit) -> bool:
    """Tell whether an input could not be had from its maker: then the broker's copy serves."""
    errors = [attempt.error for attempt in unit.attempts]
    return any(error is not None and error.blame == "artifact" for error in errors)


def pause_ms(tries: int, *, tried: bool, share: float = 0.0, idle: int = 0) -> int:
    """Return how long a unit rests before its next attempt.

    Args:
        tries: Attempts at which a contractor failed.
        tried: The last attempt was one of them; else nobody took it up.
        share: From 0 to 1: how much of the spread is added.
        idle: Attempts that nobody took up.
    """
    pause = BACKOFF_MS[min(tries, len(BACKOFF_MS) - 1)]
    if not tried:
        busy = BUSY_PAUSE_MS << (max(0, idle - 1) // _BUSY_EACH)
        pause = max(pause, min(busy, _BUSY_PAUSE_MS_MAX))
    return pause + int(pause * _SPREAD * share)


def share_of(job: str, unit: Unit) -> float:
    """Return the share of the spread that ``unit`` rests for now, evenly from 0 to 1.

    Drawn from names and not by chance: the same state must give the same steps again.
    """
    name = f"{job}/{unit.name}/{len(unit.attempts)}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") / 2**32


def is_last(unit: Unit, *, is_gold: bool) -> bool:
    """Tell whether no other attempt at a unit that failed is made, so that its job ends.

    No agent takes such an input; and a gold that its agent has no time for would come back
    where a usual task goes elsewhere.
    """
    last = unit.attempts[-1]
    blame = last.error.blame if last.error is not None else ""
    return blame == "input" or (is_gold and last.turned)


def failed(unit: Unit) -> set[str]:
    """Return the peers that failed at ``unit``; who only was busy has said until when."""
    return {
        attempt.error.peer
        for attempt in unit.counted()
        if attempt.error is not None and not attempt.turned
    }


def unfit(unit: Unit) -> set[str]:
    """Return the peers that aren't asked for ``unit`` again: it failed there, or won't fit."""
    out = {f.peer for f in unit.failures() if f.code in DISQUALIFYING}
    for attempt in unit.counted():
        for peer, refusal in attempt.refusals.items():
            if refusal.reason == admission.ITEMS:
                out.add(peer)
    return out


def soonest_ms(barred: Sequence[Barred]) -> int:
    """Return when the first of ``barred`` is back, Unix time; 0 when nobody says."""
    return min((each.back_ms for each in barred if each.back_ms), default=0)


def no_proposal(attempt: Attempt) -> tuple[str, str]:
    """Return code and text for a call that nobody proposed for."""
    reasons = sorted({refusal.reason for refusal in attempt.refusals.values()})
    code = _UNANIMOUS.get(reasons[0], "") if len(reasons) == 1 else ""
    said = sorted({refusal.text for refusal in attempt.refusals.values() if refusal.text})
    told = ", ".join(reasons) or "no answer"
    told += f" ({'; '.join(said[:_TOLD_MAX])})" if said else ""
    text = f"none of {len(attempt.called)} candidates proposed: {told}"
    return code or "cfp.unanswered", text


def unaffordable(unit: Unit, candidates: Sequence[Candidate], free_mc: int) -> tuple[str, str]:
    """Return code and text for a unit that none of ``candidates`` can be paid for.

    Args:
        unit: What was to be awarded.
        candidates: Who could do it; one at least.
        free_mc: What is left of the job's budget.
    """
    cheapest_mc = min(candidate.price_mc for candidate in candidates) * unit.calls
    if cheapest_mc > free_mc:
        return "budget.exceeded", (
            f"sub-task {unit.name} costs {cheapest_mc} mc or more and {free_mc} mc of the"
            " budget are left"
        )
    within = {c.peer for c in candidates if c.price_mc * unit.calls <= free_mc}
    return ledger.exhausted(unit.name, within)


def refused_by_all(
    task: SubTask, barred: Sequence[Barred], failures: Sequence[Failed] = ()
) -> tuple[str, str]:
    """Return code and text for a sub-task that all who offer what it needs refuse to do."""
    who = f"the nodes that offer {task.capability} (sub-task {task.id!r})"
    if all(each.reason == admission.NOT_ALLOWED for each in barred):
        return CODES[admission.NOT_ALLOWED], (
            f"{who} work for members of their mesh only: ask the owner of {barred[0].peer}"
            " for an invite (`meshnode invite`), then `meshnode up --join INVITE`"
        )
    if failures and any(each.reason == NOT_BELIEVED for each in barred):
        last = failures[-1]  # what they did wrong here tells more than that it was too often
        return last.code, f"all who offer {task.capability} failed, the last: {last.text}"
    if all(each.reason == NOT_BELIEVED for each in barred):
        return _NOT_BELIEVED, (
            f"{who} were wrong too often to be given work: {', '.join(b.peer for b in barred)};"
            " see `meshnode reputation`"
        )
    # Whoever is back first matters most; who can't be waited for comes last.
    order = sorted(barred, key=lambda each: (not each.back_ms, each.back_ms, each.peer))
    said = "; ".join(
        f"{each.peer[-8:]}: {each.text or each.reason}" for each in order[:_TOLD_MAX]
    )
    more = f"; and {len(order) - _TOLD_MAX} more" if len(order) > _TOLD_MAX else ""
    own = {admission.NOT_ALLOWED, NOT_BELIEVED}
    first = next((each for each in order if each.reason not in own), order[0])
    return CODES.get(first.reason, _NOT_BELIEVED), f"{who} take nothing on now: {said}{more}"
