"""An explanation in plain sentences, for a hundred columns.

What peers wrote (reasons, failures) stands in them as it came: whoever prints them makes
plain text of it first.
"""

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final

import msgspec

from meshnode.domain.explanations import (
    Choice,
    Explanation,
    Part,
    Patch,
    Spent,
    Task,
    Try,
)
from meshnode.domain.facts import Judged, Ranked
from meshnode.domain.hedges import SUPERSEDED
from meshnode.domain.matching import MS_PER_MC
from meshnode.domain.sittings import Seat, Sitting
from meshnode.domain.units import CROWDED
from meshnode.domain.wording import BLAMED, count_of, sentence

#: Of a line; whoever prints it may indent it.
WIDTH: Final = 98
#: Units that are told one by one.
PARTS_TOLD_MAX: Final = 12
_TEXT_MAX: Final = 200
#: A row of a table: an amount, its unit, and then columns.
_ROW: Final = re.compile(r" *[0-9.]+ [a-z]+  ")
_PEER_SHOWN: Final = 8
#: What stands in the place of a check where answers were compared.
_VOTES: Final = re.compile(r"\d+ of \d+")

_SPENT: Final[dict[Spent, str]] = {
    "candidates": "waiting for a node that offers it and has room",
    "proposals": "asking nodes for proposals",
    "hand_over": "handing over inputs and results",
    "queue": "waiting at the node, behind other work",
    "running": "the work itself",
    "checking": "checking results",
    "failed": "attempts that failed, and the pauses after them",
    "finishing": "putting the outputs together",
}
#: Why a judge of a panel has no vote.
_NO_VOTE: Final = {
    "unheard": "gave no answer in time",
    "even": "found neither better",
    "swayed": "changed its mind when the answers were swapped, so it has no vote",
}
#: Code -> what was the matter with a sub-task that was planned anew.
_STUCK: Final = {
    "capability.not_offered": "nobody reachable offered what it needed",
    "access.not_allowed": "all who offered what it needed refused",
    "access.paused": "all who offered what it needed had paused",
    "access.closed": "all who offered what it needed were closed",
    "access.quota": "all who offered what it needed had done enough for the day",
    "output.rejected": "every output had failed its check",
    "cfp.unanswered": "nobody had proposed to do it",
}


class Section(msgspec.Struct, frozen=True):
    """A heading, and lines of at most :data:`WIDTH` characters."""

    title: str
    lines: list[str]


def in_words(told: Explanation) -> list[Section]:
    """Return the explanation as sections to be read one after the other."""
    sections = [
        ("In short", list(_summary(told))),
        ("The plan", [line for task in told.tasks for line in _task(task)]),
        ("What was planned anew", [line for each in told.patches for line in _patch(each)]),
        ("What was done", list(_parts(told))),
        ("Where the time went", list(_time(told))),
        ("What it cost", list(_cost(told))),
    ]
    if told.state == "running":
        sections.append(("What is left", list(_left(told))))
    return [
        Section(title, [part for line in lines for part in _wrapped(line)])
        for title, lines in sections
        if lines
    ]


# --- the job ---


def _summary(told: Explanation) -> Iterator[str]:
    name = f" ({told.name})" if told.name else ""
    took = _span(told.elapsed_ms)
    if told.state == "running":
        ends = "is being ended early" if told.ending else "goes on"
        yield f"Job {told.job}{name} {ends}: {took} so far, {told.spent_mc} mc spent."
        return
    yield (
        f"Job {told.job}{name} {told.state} after {took} and cost {told.spent_mc} of"
        f" {told.budget_mc} mc."
    )
    if told.state != "completed":
        yield f"Why: {_said(told.text) or told.code} [{told.code}]."
        if told.kept:
            yield (
                f"The outputs of {told.kept} of {count_of(len(told.parts), 'unit')} were"
                f" accepted: `meshnode jobs outputs {told.job} --partial` has them."
            )
    if told.patches:
        names = sorted({patch.subtask for patch in told.patches})
        yield f"Not all was done as planned: {_listed(names)} went on with another capability."
    if told.resumes:
        yield f"It went on with what job {told.resumes} had left."
    failures = [t.failure for part in told.parts for t in part.tries if t.failure is not None]
    failed = [failure for failure in failures if failure.code not in {SUPERSEDED, CROWDED}]
    if failed and told.state == "completed":
        yield f"{count_of(len(failed), 'attempt')} came to nothing on the way."


def _task(task: Task) -> Iterator[str]:
    how = f"{task.subtask}: {task.capability}"
    how += ", once for each item" if task.is_map else ", one call"
    after = f"after {_listed(task.after)}" if task.after else "from the job's inputs alone"
    checks = f"; checked: {', '.join(task.checks)}" if task.checks else ""
    if task.units is None:
        size = "its inputs are not there yet"
    elif task.is_map:
        size = f"{count_of(task.calls, 'call')} in {count_of(task.units, 'unit')}"
    else:
        size = ""
    yield f"{how}, {after}{'; ' if size else ''}{size}{checks}."


def _patch(patch: Patch) -> Iterator[str]:
    why = _STUCK.get(patch.code, "every attempt at it had failed")
    nodes = patch.considered[patch.capability]
    offered = "1 node offered it" if nodes == 1 else f"{nodes} nodes offered it"
    yield (
        f"{patch.subtask}: after {_span(patch.after_ms)} {why} [{patch.code}], so it went on"
        f" with {patch.capability} instead of {patch.was}; {offered}, and its types fitted."
    )
    misfits = [name for name, count in patch.considered.items() if not count]
    if misfits:
        yield f"  {_listed(misfits)} would not have fitted."
    if patch.kept:
        yield f"  {count_of(patch.kept, 'unit')} of it had been accepted, and stayed."


# --- units ---


def _parts(told: Explanation) -> Iterator[str]:
    parts = _most_telling(told)
    for part in parts:
        yield f"{part.unit} ({count_of(part.calls, 'call')}): {_state(part, told.state)}."
        for number, each in enumerate(part.tries):
            before = part.tries[number - 1] if number else None
            if before is not None and each.hedge:
                out = _span(each.begun_ms - before.begun_ms)
                yield f"  It was slow: after {out} another was given the same work too."
            elif before is not None and part.judged is not None:
                yield "  Another was asked too."
            elif before is not None:
                pause_ms = each.begun_ms - before.ended_ms
                yield f"  Attempt {number + 1} began {_span(pause_ms)} later."
            yield from (f"  {line}" for line in _try(each))
        if part.judged is not None:
            yield from (f"  {line}" for line in _judged(part.judged))
    if more := len(told.parts) - len(parts):
        yield f"And {count_of(more, 'unit')} more, which went without a failure or are alike."


def _judged(judged: Judged) -> Iterator[str]:
    """Tell how sure it is."""
    if not judged.votes:
        return
    chance = f"{judged.posterior_ppm / 10_000:.1f} %"
    votes = len(judged.votes)
    groups: dict[int, list[str]] = {}
    for vote in judged.votes:
        peer, _, name = vote.agent.partition("/")
        named = f"{_peer(peer)}'s {name} ({vote.credibility_ppm / 10_000:.0f} %)"
        groups.setdefault(vote.group, []).append(named)
    said = "; others by ".join(_listed(group) for group in groups.values())
    several = count_of(votes, "answer")
    if votes > 1:
        several += ", all the same" if len(groups) == 1 else f", {len(groups)} different ones"
    end = {
        "": f"another is asked for, until it is likely enough; so far it is right at {chance}",
        "agreed": f"right at {chance}, which is enough",
        "contested": f"none likely enough, the best at {chance}: all of them are kept",
        "unverified": f"right at {chance}, and nobody else could make it surer",
    }
    yield f"{several}, by {said}; in brackets how far each was believed before."
    if judged.sitting is not None:
        yield from _panel(judged, judged.sitting)
        if not judged.outcome:
            return
    yield f"It is {judged.outcome or 'open'}: {end[judged.outcome]}."


def _panel(judged: Judged, sitting: Sitting) -> Iterator[str]:
    """Tell what judges said of the two likeliest answers."""
    judges = count_of(len(sitting.seats), "judge")
    if not judged.outcome:
        yield f"None is likely enough: {judges} are asked which of the likeliest two is better."
        return
    yield (
        f"None was likely enough: {judges} were asked which of the likeliest two is better,"
        f" twice each with the two swapped, for {sitting.paid_mc} mc."
    )
    makers = [
        _listed(
            [_peer(vote.agent.partition("/")[0]) for vote in judged.votes if vote.group == name]
        )
        for name in sitting.groups
    ]
    for seat in sitting.seats:
        peer, _, name = seat.agent.partition("/")
        said = f"was for {makers[seat.vote]}'s" if seat.vote >= 0 else _NO_VOTE[_silence(seat)]
        yield f"  {_peer(peer)}'s {name} ({seat.credibility_ppm / 10_000:.0f} %) {said}"
    if sitting.favours < 0:
        yield "So the panel was of no one mind, and changes nothing."


def _silence(seat: Seat) -> str:
    """Return why a judge has no vote."""
    if not all(seat.said) or not seat.said:
        return "unheard"
    return "even" if set(seat.said) <= {"tie", "neither"} else "swayed"


def _most_telling(told: Explanation) -> list[Part]:
    """Return the units to tell of, in order: what failed or was waited for comes first."""
    path = set(told.path)
    order = sorted(
        range(len(told.parts)),
        key=lambda n: (
            not any(t.failure for t in told.parts[n].tries),
            told.parts[n].unit not in path,
            n,
        ),
    )
    return [told.parts[n] for n in sorted(order[:PARTS_TOLD_MAX])]


def _state(part: Part, job: str) -> str:
    match part.state:
        case "completed":
            paid = [each for each in part.tries if each.paid_mc is not None]
            good = [each for each in paid if each.failure is None]
            chosen = part.judged.chosen if part.judged is not None else -1
            won = next((each for each in good if each.number == chosen), good[0])
            return f"done by {_peer(won.peer)}'s {won.agent} for {won.paid_mc} mc"
        case "waiting" if job != "running":
            return "not begun when the job ended"
        case "waiting" if part.tries:
            return "the last attempt failed, and another follows"
        case "waiting":
            return "waiting for a node that offers it and has room"
        case "negotiating":
            return "asking nodes for proposals"
        case "failed":
            return "failed, and the job ended"
        case _:
            at = [_peer(each.peer) for each in part.tries if not each.ended_ms]
            return f"{part.state} at {_listed(at)}"


def _try(told: Try) -> Iterator[str]:
    if told.called:
        yield from _called(told)
    if told.by_letter:
        yield f"Nobody was there for it, so it was ordered by letter of {_peer(told.peer)}."
    if told.choice is not None:
        yield from _choice(told.choice)
    if told.awarded_ms:
        yield from _result(told)
    if told.failure is not None:
        failure = told.failure
        who = _peer(failure.peer) if failure.peer else "It"
        took = _span(told.ended_ms - told.begun_ms)
        why = _said(failure.text) or failure.code
        if failure.code == SUPERSEDED:
            yield f"{who} was stopped after {took}: {why} [{failure.code}]. It costs nothing."
            return
        if failure.code == CROWDED:
            yield f"{who} had no time for it: {why} [{failure.code}]. All were weighed again."
            return
        blamed = sentence(BLAMED[failure.blame])
        yield f"{who} failed after {took}: {why} [{failure.code}]. {blamed}"


def _called(told: Try) -> Iterator[str]:
    asked = f"{count_of(len(told.called), 'node')} asked for a proposal"
    offers = [
        f"{_peer(peer)} offered {price_mc} mc a call, in {_span(eta_ms)}"
        for peer, price_mc, eta_ms in told.offers
    ]
    refusals = [
        f"{_peer(peer)} would not: {reason}" + (f" ({_said(text)})" if text else "")
        for peer, reason, text in told.refusals
    ]
    silent = len(told.called) - len(told.offers) - len(told.refusals)
    rest = [f"{count_of(silent, 'node')} had not answered"] if silent else []
    yield f"{asked}: {'; '.join([*offers, *refusals, *rest])}."


def _choice(choice: Choice) -> Iterator[str]:
    if not choice.ranked:
        return
    first, *others = choice.ranked
    name = _peer(first.peer)
    match choice.why:
        case "only":
            yield f"{name} was the only one to choose from: {_expected(first)}."
            return
        case "price":
            late = f", though {_span(-choice.sooner_ms)} later" if choice.sooner_ms < 0 else ""
            why = f"it was {choice.cheaper_mc} mc cheaper than the next{late}"
        case "time":
            dear = f", though {-choice.cheaper_mc} mc dearer" if choice.cheaper_mc < 0 else ""
            why = f"it would be finished {_span(choice.sooner_ms)} before the next{dear}"
            why += _because(first, others[0])
        case "troubled":
            why = "the others had failed lately, or hadn't paid for their names"
        case "tie":
            why = "it was as good as the next, and a draw decided"
        case _:
            why = "the journal doesn't say why"
    many = f" of {choice.considered}" if choice.considered > len(choice.ranked) else ""
    yield f"{name} was chosen: {why}. The best {len(choice.ranked)}{many}:"
    for row in choice.ranked:
        yield f"  {_peer(row.peer)}: {_expected(row)}"
    if choice.cheaper_mc * choice.sooner_ms < 0:
        yield f"  (one mc weighs as much as {MS_PER_MC} ms)"


def _because(first: Ranked, second: Ranked) -> str:
    """Return which part of their times made most of the difference, where that is known."""
    if not first.parts_ms or not second.parts_ms:
        return ""
    parts = {
        "it works faster": second.run_ms - first.run_ms,
        "this node had less under way there": second.wait_ms - first.wait_ms,
        "it had less work of others before it": second.queue_ms - first.queue_ms,
        "it was connected already": second.dial_ms - first.dial_ms,
        "it had made an offer in advance": second.call_ms - first.call_ms,
    }
    why = max(parts, key=lambda name: parts[name])
    return f", mostly because {why}" if parts[why] > 0 else ""


def _expected(row: Ranked) -> str:
    parts = [
        f"{_span(ms)} {what}"
        for ms, what in (
            (row.run_ms, "of work"),
            (row.wait_ms, "behind this node's own"),
            (row.queue_ms, "behind others'"),
            (row.dial_ms, "to connect"),
            (row.call_ms, "to ask for a proposal"),
        )
        if ms
    ]
    inside = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    trouble = ", failed lately or hasn't paid for its name" if row.troubled else ""
    return f"{row.price_mc} mc, done in about {_span(row.finish_ms)}{inside}{trouble}"


def _result(told: Try) -> Iterator[str]:
    if not told.delivered_ms:
        if told.failure is None:
            yield f"{_peer(told.peer)}'s {told.agent} has it and has not answered yet."
        return
    away = _span(told.delivered_ms - told.awarded_ms)
    waited = f" after waiting {_span(told.queue_ms)} for its turn" if told.queue_ms else ""
    yield f"The result came after {away}; the agent ran {_span(told.run_ms)}{waited}."
    if told.verdict and _VOTES.fullmatch(told.check):
        same = f"It was found {told.verdict}: {told.check} answers said the same"
        yield f"{same}, and others were believed more." if told.detail else f"{same}."
    elif told.verdict:
        by = f" by the check {told.check}" if told.check else ""
        what = {
            "unverified": "It has the promised form; no other check was asked for.",
            "rejected": f"The check refused it{by}: {_said(told.detail)}.",
        }
        yield what.get(told.verdict, f"It was found {told.verdict}{by}.")


# --- time and money ---


def _time(told: Explanation) -> Iterator[str]:
    whole_ms = max(1, told.elapsed_ms)
    rows = sorted(told.time_ms.items(), key=lambda row: -row[1])
    for kind, ms in rows:
        if ms > 0:
            yield f"{_span(ms):>9}  {100 * ms / whole_ms:3.0f} %  {_SPENT[kind]}"
    if len(told.path) > 1:
        yield f"The end waited for these, one after the other: {', '.join(told.path)}."


def _cost(told: Explanation) -> Iterator[str]:
    if told.tokens_max:
        yield f"{told.tokens_used} of {told.tokens_max} model tokens were used."
    if not told.spent_mc:
        yield "Nothing was paid."
        return
    for task in told.tasks:
        if task.paid_mc:
            yield f"{task.paid_mc:>9} mc  for {task.subtask}"
    for peer, paid_mc in told.paid_mc.items():
        if paid_mc:
            yield f"{paid_mc:>9} mc  to {_peer(peer)}"


def _left(told: Explanation) -> Iterator[str]:
    states: dict[str, int] = {}
    for part in told.parts:
        if part.state != "completed":
            states[part.state] = states.get(part.state, 0) + 1
    units = [f"{count} {state}" for state, count in states.items()]
    uncut = [task.subtask for task in told.tasks if task.units is None]
    if units:
        yield f"Units: {', '.join(units)}."
    if uncut:
        yield f"Not begun, since their inputs are not there yet: {_listed(uncut)}."
    free_mc = told.budget_mc - told.spent_mc - told.reserved_mc
    yield (
        f"{free_mc} mc are free, {told.reserved_mc} mc are promised to work that is out;"
        f" {_span(told.left_ms)} are left until the deadline."
    )


# --- pieces ---


def _span(ms: int) -> str:
    if ms < 1_000:  # noqa: PLR2004 - milliseconds
        return f"{max(0, ms)} ms"
    if ms < 120_000:  # noqa: PLR2004 - two minutes
        return f"{ms / 1000:.1f} s"
    return f"{ms / 60_000:.1f} min"


def _peer(peer: str) -> str:
    return peer[-_PEER_SHOWN:]


def _said(text: str) -> str:
    """Return what somebody wrote as a part of a sentence."""
    return " ".join(text.split())[:_TEXT_MAX].rstrip(" .")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(line: str) -> list[str]:
    if _ROW.match(line):
        return [line]
    text = line.lstrip(" ")
    indent = " " * (len(line) - len(text))
    return wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )  # fmt: skip
