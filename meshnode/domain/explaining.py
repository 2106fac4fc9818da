"""Why a job went as it did, from its journal alone.

A second walk over the events, for people: the fold keeps what a broker needs to go on,
this keeps when each thing happened and what was decided by what.  It holds for a job that
runs as for one that has ended, and for a journal that somebody else wrote.

Where the time went is told along the chain of units that the end waited for: each unit's
time begins when the last of its producers was done, so the parts add up to the whole.
What a contractor says of itself (its queue, its run) counts for no more than the time
between award and result.  In words: :mod:`meshnode.domain.explaining_words`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from meshnode.domain.explanations import (
    SPENT,
    Choice,
    Explanation,
    Part,
    Patch,
    Spent,
    Task,
    Try,
    Why,
)
from meshnode.domain.facts import (
    Awarded,
    Called,
    Charged,
    Delivered,
    Done,
    Expanded,
    Fact,
    Failed,
    Judged,
    Planned,
    Proposed,
    Ranked,
    Refused,
    Replanned,
    Verified,
    from_event,
)
from meshnode.domain.hedges import SUPERSEDED
from meshnode.domain.job import JobState
from meshnode.domain.matching import MS_PER_MC
from meshnode.domain.sittings import Seat
from meshnode.domain.units import Unit
from protocol.journal import Event
from protocol.messages import Metering
from protocol.signing import peek


def explain(job: str, events: Iterable[Event], *, now_ms: int) -> Explanation:
    """Return why a job went as it did.

    Args:
        job: Its id.
        events: Of its journal, from the first on.
        now_ms: Unix time; for a job that goes on.

    Raises:
        OutOfTurn: They are not a job's journal.
        Malformed: An event is of a kind or shape that this version doesn't know.
    """
    walk = _Walk(job)
    for event in events:
        walk.take(event)
    return walk.explanation(now_ms)


def chosen(ranked: Sequence[Ranked], considered: int) -> Choice:
    """Return why the first of ``ranked`` was preferred to the second."""
    rows = list(ranked)
    if not rows[1:]:  # nobody to compare with
        why: Why = "only" if rows and considered <= 1 else "unknown"
        return Choice(ranked=rows, considered=considered, why=why)
    first, second = rows[0], rows[1]
    cheaper_mc, sooner_ms = (
        second.price_mc - first.price_mc,
        second.finish_ms - first.finish_ms,
    )
    if second.troubled and not first.troubled:
        why = "troubled"
    elif not cheaper_mc and not sooner_ms:
        why = "tie"
    elif max(MS_PER_MC * cheaper_mc, sooner_ms) <= 0:
        why = "unknown"  # the next one was as good or better, by what is told here
    elif MS_PER_MC * cheaper_mc + sooner_ms == 0:
        why = "tie"
    else:
        why = "price" if MS_PER_MC * cheaper_mc >= sooner_ms else "time"
    return Choice(
        ranked=rows,
        considered=considered,
        why=why,
        cheaper_mc=cheaper_mc,
        sooner_ms=sooner_ms,
    )


class _Metered(msgspec.Struct, frozen=True):
    """Of a result: what it took."""

    metering: Metering = Metering()


_METERED: Final = msgspec.msgpack.Decoder(_Metered)


class _Walk:
    """One pass over the events."""

    def __init__(self, job: str) -> None:
        self._state = JobState(job)
        self._at_ms = 0
        self._parts: dict[str, Part] = {}
        self._cut_ms: dict[str, int] = {}  # sub-task -> when its units came to be
        self._patches: list[Patch] = []

    def take(self, event: Event) -> None:
        """Fold ``event``, and note when it was."""
        self._state.apply(event)
        # A clock that was set back moves nothing: an event comes no earlier than the last.
        self._at_ms = max(self._at_ms, event.at_ms)
        fact = from_event(event)
        if isinstance(fact, Planned | Done):
            return
        if isinstance(fact, Expanded):
            self._cut_ms[fact.subtask] = self._at_ms
            for name in self._state.expanded[fact.subtask]:
                unit = self._state.units[name]
                self._parts[name] = Part(unit=name, subtask=unit.subtask, calls=unit.calls)
            return
        if isinstance(fact, Replanned):
            self._patches.append(self._patch(fact))
            return
        name = getattr(fact, "unit", "")
        if isinstance(fact, Judged):
            self._judge(self._parts[name], fact)
        elif name:
            self._advance(self._parts[name], self._state.units[name], fact)

    def _patch(self, fact: Replanned) -> Patch:
        return Patch(
            subtask=fact.subtask,
            was=fact.was,
            capability=fact.capability,
            code=fact.code,
            considered=dict(sorted(fact.considered.items())),
            after_ms=self._at_ms - self._state.planned_ms,
            kept=len(self._state.outputs(fact.subtask)),
        )

    def _judge(self, part: Part, fact: Judged) -> None:
        part.judged = fact
        for vote in fact.votes if fact.outcome else ():
            told, attempt = part.tries[vote.attempt], self._state.units[part.unit].attempts
            if (found := attempt[vote.attempt].verdict) is not None:
                told.verdict, told.check, told.detail = found.verdict, found.check, found.detail

    def _advance(self, part: Part, unit: Unit, fact: Fact) -> None:
        attempt = unit.attempts[getattr(fact, "attempt", -1)]
        if attempt.number == len(part.tries):
            part.tries.append(
                Try(number=attempt.number, begun_ms=self._at_ms, hedge=attempt.hedge)
            )
        told = part.tries[attempt.number]
        match fact:
            case Called():
                told.called, part.state = sorted(fact.cfps), "negotiating"
            case Proposed():
                told.offers.append((fact.peer, fact.price_mc, fact.eta_ms))
            case Refused():
                told.refusals.append((fact.peer, fact.reason, fact.text))
            case Awarded():
                told.awarded_ms, part.state = self._at_ms, "running"
                told.peer, told.agent = fact.peer, fact.agent
                told.by_letter = attempt.by_letter
                told.choice = chosen(fact.ranked, fact.considered)
            case Delivered():
                told.delivered_ms, part.state = self._at_ms, "checking"
                metering = _METERED.decode(peek(fact.result).p).metering
                told.queue_ms, told.run_ms = metering.queue_ms, metering.run_ms
            case Verified():
                told.verdict, told.check, told.detail = fact.verdict, fact.check, fact.detail
            case Charged():
                told.paid_mc = fact.paid_mc
                self._close(part, unit, told)
            case Failed():
                self._close(part, unit, told)
            case _:
                pass

    def _close(self, part: Part, unit: Unit, told: Try) -> None:
        """An attempt has ended: paid, failed, rejected, or outrun by another."""
        told.ended_ms, told.failure = self._at_ms, unit.attempts[told.number].error
        if unit.accepted is not None or not unit.tried():
            part.state = "completed" if unit.accepted is not None else "waiting"

    # --- putting it together ---

    def explanation(self, now_ms: int) -> Explanation:
        """Return what was found."""
        state, plan = self._state, self._state.required_plan
        done = state.done
        end_ms = self._at_ms if done else max(self._at_ms, now_ms)
        time_ms: dict[Spent, int] = dict.fromkeys(SPENT, 0)
        path = self._path(end_ms)
        for kind, ms in self._spans(path, end_ms):
            time_ms[kind] += ms
        for part in self._parts.values() if done else ():
            part.state = "failed" if part.tries and part.state == "waiting" else part.state
        return Explanation(
            job=state.job,
            name=state.graph.name if state.graph else "",
            resumes=plan.resumes,
            state=done.state if done else "running",
            code=done.code if done else "",
            text=done.text if done else "",
            ending=done is None and state.cancelled is not None,
            budget_mc=plan.budget_mc,
            spent_mc=state.spent_mc,
            reserved_mc=state.reserved_mc(),
            tokens_max=plan.tokens,
            tokens_used=state.tokens_used,
            deadline_ms=plan.deadline_ms,
            elapsed_ms=end_ms - state.planned_ms,
            left_ms=0 if done else max(0, plan.deadline_ms - end_ms),
            events=state.seq,
            kept=state.kept(),
            tasks=[self._task(name) for name in state.path],
            patches=self._patches,
            parts=[*self._parts.values()],
            paid_mc=self._paid(),
            time_ms=time_ms,
            path=[name for name in reversed(path) if name in self._parts],
        )

    def _task(self, name: str) -> Task:
        state = self._state
        task = state.tasks[name]
        parts = [part for part in self._parts.values() if part.subtask == name]
        over = state.done is not None
        judges_mc = sum(seat.paid_mc for part in parts for seat in _seats(part, over=over))
        return Task(
            subtask=name,
            capability=task.capability,
            after=sorted(state.producers[name]),
            is_map=bool(task.each),
            units=len(parts) if name in state.expanded else None,
            calls=sum(part.calls for part in parts),
            checks=[check.kind for check in task.checks],
            paid_mc=judges_mc + sum(told.paid_mc or 0 for part in parts for told in part.tries),
        )

    def _paid(self) -> dict[str, int]:
        paid: dict[str, int] = {}
        for part in self._parts.values():
            for told in part.tries:
                if told.paid_mc is not None:
                    paid[told.peer] = paid.get(told.peer, 0) + told.paid_mc
            for seat in _seats(part, over=self._state.done is not None):
                peer = seat.agent.partition("/")[0]
                paid[peer] = paid.get(peer, 0) + seat.paid_mc
        return dict(sorted(paid.items()))

    # --- time ---

    def _path(self, end_ms: int) -> list[str]:
        """Return what the end waited for, the last first: units, or a sub-task without any."""
        state = self._state
        # The last thing that was at work; whatever comes after it in the graph never began.
        begun = [name for name in state.path if name in state.expanded]
        waiting = [
            name
            for name in state.path
            if name not in state.expanded
            and all(self._is_over(producer) for producer in state.producers[name])
        ]
        last = max([*begun, *waiting], key=lambda name: self._over_ms(name, end_ms), default="")
        path: list[str] = []
        while last:
            path.append(self._last_unit(last, end_ms) or last)
            last = max(
                state.producers[last], key=lambda name: (self._over_ms(name, end_ms), name),
                default="",
            )  # fmt: skip
        return path

    def _is_over(self, subtask: str) -> bool:
        return self._state.finished(subtask)

    def _last_unit(self, subtask: str, end_ms: int) -> str:
        """Return the unit of ``subtask`` that ended last, or one that goes on."""
        names = self._state.expanded.get(subtask, [])
        return max(names, key=lambda name: self._unit_over_ms(name, end_ms), default="")

    def _unit_over_ms(self, name: str, end_ms: int) -> int:
        tries = self._parts[name].tries
        over = self._state.units[name].accepted is not None
        return max(one.ended_ms for one in tries if one.failure is None) if over else end_ms

    def _over_ms(self, subtask: str, end_ms: int) -> int:
        """Return when ``subtask`` was done; ``end_ms`` if it isn't."""
        if subtask not in self._state.expanded:
            return end_ms
        unit = self._last_unit(subtask, end_ms)
        return self._unit_over_ms(unit, end_ms) if unit else self._cut_ms[subtask]

    def _ready_ms(self, subtask: str, end_ms: int) -> int:
        producers = self._state.producers[subtask]
        over = [self._over_ms(name, end_ms) for name in producers]
        return max(over, default=self._state.planned_ms)

    def _spans(self, path: Sequence[str], end_ms: int) -> Iterator[tuple[Spent, int]]:
        """Yield the time of each step of ``path``; together they are all of it."""
        last_ms = self._state.planned_ms
        for name in path:
            subtask = self._parts[name].subtask if name in self._parts else name
            ready_ms = self._ready_ms(subtask, end_ms)
            over_ms = self._over_ms(subtask, end_ms)
            last_ms = max(last_ms, over_ms)
            tries = self._parts[name].tries if name in self._parts else []
            yield from _of_tries(tries, ready_ms, over_ms)
        yield "finishing", end_ms - last_ms


def _of_tries(tries: Sequence[Try], ready_ms: int, over_ms: int) -> Iterator[tuple[Spent, int]]:
    """Yield where the time from ``ready_ms`` to ``over_ms`` went."""
    at_ms = ready_ms
    waiting: Spent = "candidates"
    for told, until_ms in _in_turn(tries, over_ms):
        yield waiting, max(0, told.begun_ms - at_ms)
        begun_ms, waiting = told.begun_ms, "failed"
        for kind, ms in _of_try(told, until_ms):
            begun_ms += ms
            if begun_ms > at_ms:  # with a hedge, the one before it may have gone on so far
                yield kind, begun_ms - max(at_ms, begun_ms - ms)
                at_ms = begun_ms
    yield waiting, over_ms - at_ms


def _seats(part: Part, *, over: bool) -> Sequence[Seat]:
    """Return the judges that were paid for a unit, or may have been once the job is over."""
    judged = part.judged
    if judged is None or judged.sitting is None:
        return ()
    if judged.outcome:
        return judged.sitting.seats
    return judged.sitting.lost.seats if over else ()


def _in_turn(tries: Sequence[Try], over_ms: int) -> Iterator[tuple[Try, int]]:
    """Yield the tries that the unit's end depended on, each with until when.

    One that was outrun counts until the faster one began; a hedge that was, not at all.
    """
    for told, after in zip_longest(tries, tries[1:]):
        ended_ms = told.ended_ms or over_ms
        outrun = told.failure is not None and told.failure.code == SUPERSEDED
        if not outrun:
            yield told, min(ended_ms, over_ms)
        elif not told.hedge and after is not None:
            yield told, after.begun_ms


def _of_try(told: Try, ended_ms: int) -> Iterator[tuple[Spent, int]]:
    """Yield where the time of an attempt went."""
    if told.failure is not None:
        yield "failed", ended_ms - told.begun_ms
        return
    if not told.awarded_ms:
        yield "proposals", ended_ms - told.begun_ms
        return
    yield "proposals", told.awarded_ms - told.begun_ms
    if not told.delivered_ms:
        yield "running", ended_ms - told.awarded_ms  # it may wait there: nobody has said
        return
    away_ms = told.delivered_ms - told.awarded_ms
    run_ms = min(told.run_ms, away_ms)
    queue_ms = min(told.queue_ms, away_ms - run_ms)
    yield "running", run_ms
    yield "queue", queue_ms
    yield "hand_over", away_ms - run_ms - queue_ms
    yield "checking", ended_ms - told.delivered_ms
