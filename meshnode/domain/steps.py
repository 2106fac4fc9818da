"""What a broker does next: a pure function of a job's state, the time and a view.

Steps are levels, not edges: the same state gives the same steps again until an
event changes it, so whoever carries them out skips what it is doing already, and a
broker that restarts simply asks what to do next.

The view holds what isn't the job's: who offers what, who is alive, how loaded they
are.  Whatever a decision draws on is in the step and goes into the event.
"""

from collections.abc import Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

from meshnode.domain import bounds
from meshnode.domain.asking import are_compared, asking, charge_order, in_order
from meshnode.domain.attempts import (
    BARRED_GRACE_MS,
    BUSY_PAUSE_MS,
    Failures,
    failed,
    is_last,
    no_proposal,
    refused_by_all,
    share_of,
    soonest_ms,
    unfit,
)
from meshnode.domain.batches import cut
from meshnode.domain.closing import closing
from meshnode.domain.facts import Failed, Ranked
from meshnode.domain.hedges import due_ms, hedges_max, second_choices
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate, has_room, proposed, stands, untroubled
from meshnode.domain.ordering import awaited_ms, choices
from meshnode.domain.patches import patches_max
from meshnode.domain.priorities import by_urgency, patience_ms
from meshnode.domain.purse import Purse
from meshnode.domain.replanning import LOOK_MS, can_be_patched, patch
from meshnode.domain.step_kinds import (
    Attend,
    Call,
    Charge,
    End,
    Expand,
    Finish,
    GiveUp,
    Judge,
    MakeAward,
    Step,
    Stop,
    Verify,
    View,
    Wake,
)
from meshnode.domain.units import SINGLE, Attempt, Unit
from protocol.contract import ContractState
from protocol.graph import SubTask
from protocol.limits import EVENTS_MAX, FAN_OUT_MAX

#: A CFP is answered within this, or not at all.
CFP_WINDOW_MS: Final = 2_000
#: Candidates that are called at once.
CALLED_MAX: Final = 4
#: How long a capability may have no provider before the job fails for it.
PROVIDER_GRACE_MS: Final = 20_000
#: Of a journal's events so many are left for ending the job: a longer journal is none.
EVENTS_RESERVED: Final = 5_000
#: An offer that was asked for is waited for, and looked for again after this.
OFFER_PATIENCE_MS: Final = 250
#: An award under a standing offer must reach the contractor before the offer lapses.
OFFER_MARGIN_MS: Final = 5_000


def next_steps(state: JobState, now_ms: int, view: View) -> list[Step]:
    """Return what to do now, in order; the last is a :class:`Wake` if only time can help.

    Args:
        state: The job's fold.
        now_ms: Unix time.
        view: Candidates and load; whatever is decided by it is in the step.
    """
    if state.plan is None or state.done is not None:
        return []
    if state.cancelled is not None:
        return list(closing(state, state.cancelled))
    if now_ms >= state.plan.deadline_ms:
        return [End("deadline", "the job's deadline has passed")]
    if state.seq >= EVENTS_MAX - EVENTS_RESERVED:
        return [End("journal.full", f"the job has {state.seq} events: split it into several")]
    return _Planner(state, now_ms, view).steps()


class _Planner:
    """One pass over a running job."""

    def __init__(self, state: JobState, now_ms: int, view: View) -> None:
        self.state = state
        self.now_ms = now_ms
        self.view = view
        self.purse = Purse(state, view)
        self.out: list[Step] = []
        self.hedges = hedges_max(state) - state.hedges  # that are left
        self.patches = patches_max(state.required_plan) - len(state.patches)  # likewise
        self.stuck: End | None = None  # how the job ends, unless a patch helps
        self.full: dict[str, int] = {}  # capability -> calls of a unit that found no room
        self.wake_ms = state.required_plan.deadline_ms
        self._patience_ms = max(PROVIDER_GRACE_MS, state.required_plan.patience_ms)

    def steps(self) -> list[Step]:
        """Walk the graph in order and collect what each sub-task needs."""
        state = self.state
        for unit in state.outrun.values():
            self.out += [Stop(unit.name, attempt.number) for attempt in unit.tried()]
        finished = {name for name in state.path if state.finished(name)}
        ready = [
            name
            for name in state.path
            if name not in finished and state.producers[name] <= finished
        ]
        for name in by_urgency(state, ready, self.view.candidates):
            self._subtask(state.tasks[name])
            if ends := [step for step in self.out if isinstance(step, End)]:
                return [*ends[:1]]
        if len(finished) == len(state.path) and not state.outrun:
            return [Finish("completed", "", "")]
        self.out.append(Wake(self.wake_ms))
        return self.out

    def _subtask(self, task: SubTask) -> None:
        count, self.stuck = len(self.out), None
        if task.id not in self.state.expanded:
            self._expand(task)
        else:
            self._units(task)
        if self.stuck is not None:
            self._go_on(task, self.stuck, begun=len(self.out) > count)

    def _go_on(self, task: SubTask, end: End, *, begun: bool) -> None:
        """Patch the plan for a sub-task that can't be done as it is, or end the job.

        Args:
            task: The sub-task.
            end: How the job ends if nobody else can do it.
            begun: Another unit of it has a step in this pass.
        """
        state = self.state
        if self.patches <= 0 or not can_be_patched(state, task.id):
            self.out.append(end)
            return
        made = patch(state, task, self.view, end.reason)
        units = [state.units[name] for name in state.expanded.get(task.id, ())]
        if made is not None:
            # What is at work goes on as it was planned; what comes of it wakes the broker.
            if not begun and not any(unit.current for unit in units):
                self.out.append(made)
                self.patches -= 1
            return
        # A broker that was restarted doesn't know yet who is there.
        known = bool(self.view.candidates.get(task.capability))
        look_ms = max(
            max((unit.ended_ms for unit in units), default=0) + LOOK_MS,
            self.view.since_ms + (LOOK_MS if known else self._patience_ms),
        )
        if self.now_ms < look_ms:
            self._wake(look_ms)
        else:
            self.out.append(end)

    # --- batches ---

    def _expand(self, task: SubTask) -> None:
        again = self.state.required_plan.again.get(task.id)
        if again is not None or not task.each:
            self.out.append(Expand(task.id, tuple(again.sizes) if again else (SINGLE,)))
            return
        offered = self.view.candidates.get(task.capability, ())
        made = cut(self.state, task, offered or self.view.by_letter.get(task.capability, ()))
        if made is None:
            self._provider_missing(task)
        else:
            self.out.append(made)

    # --- units ---

    def _units(self, task: SubTask) -> None:
        """See to the units that are being tried, and begin others while there is room.

        A job may have a thousand units, and this is asked after each event: it looks at
        those that were begun, and at no more fresh ones than could begin now.
        """
        begun = self.state.begun[task.id].values()
        running = sum(unit.at_work for unit in begun)
        fresh = islice(self.state.fresh[task.id].values(), max(0, FAN_OUT_MAX - running))
        for unit in sorted([*begun, *fresh], key=attrgetter("batch")):
            tried = unit.tried()
            self._tried(unit, tried)
            room = FAN_OUT_MAX - running
            if self.state.required_plan.theta_ppm and tried:
                running += 0 if unit.settled else self._compare(unit, room)
            elif room <= 0:
                continue
            elif self.state.required_plan.theta_ppm:
                running += self._first(task, unit)
            elif self._hedge(task, unit, tried[0]) if tried else self._begin(task, unit):
                running += 1

    def _tried(self, unit: Unit, tried: Sequence[Attempt]) -> None:
        """See to what is open; of two results, the first good one is the unit's."""
        if self.state.required_plan.theta_ppm:  # every one of them is one of its answers
            for attempt in charge_order(unit):
                self._attempt(unit, attempt)
            return
        there = [attempt for attempt in tried if attempt.delivered is not None]
        checked = [attempt for attempt in there if attempt.verdict is not None]
        first = (checked or there)[:1]
        for attempt in tried:
            if attempt.delivered is None or attempt in first:
                self._attempt(unit, attempt)

    def _hedge(self, task: SubTask, unit: Unit, attempt: Attempt) -> bool:
        """Award a slow unit to another too, if that may be; tell whether it is.

        Only when nothing of its sub-task waits: then a slow unit is what holds up the rest.
        """
        slow_ms = self.view.slow_ms.get(task.capability, 0.0)
        at_ms = due_ms(unit, attempt, slow_ms)
        may_be = self.hedges > 0 and self.purse.has_award
        if not at_ms or not may_be or self.state.fresh[task.id]:
            return False
        if self.now_ms < at_ms:
            self._wake(at_ms)
            return False
        offered = self.view.candidates.get(task.capability, ())
        until_ms = self.now_ms + OFFER_MARGIN_MS
        ranked = self.purse.affordable(
            unit, second_choices(unit, offered, self.purse.load, until_ms=until_ms)
        )
        if not ranked:
            return False
        best = ranked[0][0]
        self._award(unit, len(unit.attempts), best, best.offer, ranked, hedge=True)
        self.hedges -= 1
        return True

    def _first(self, task: SubTask, unit: Unit) -> int:
        """Begin a unit whose answers are compared; return how many are asked for."""
        if unit.judged is not None or not self.view.candidates.get(task.capability):
            return int(self._begin(task, unit))
        self.out.append(Judge(unit.name))
        return 1

    def _compare(self, unit: Unit, room: int) -> int:
        """Ask for what a unit's answers need, ``room`` more at most; return how many that are.

        Judging needs no room: a unit that waited with its answers for some would keep it.
        """
        until_ms = self.now_ms + OFFER_MARGIN_MS
        asks = asking(
            self.state, unit, self.view, self.purse, now_ms=self.now_ms, until_ms=until_ms
        )
        if asks.judge:
            self.out.append(Judge(unit.name, last=asks.last))
        if asks.wake_ms > self.now_ms:
            self._wake(asks.wake_ms)
        asked = asks.candidates[: max(0, room)]
        for number, candidate in enumerate(asked, start=len(unit.attempts)):
            ranked = self.purse.affordable(unit, [candidate] if self.purse.has_award else [])
            if not ranked:
                return number - len(unit.attempts)
            self._award(unit, number, candidate, candidate.offer, ranked)
        return len(asked)

    def _attempt(self, unit: Unit, attempt: Attempt) -> None:
        """See to an open attempt."""
        if attempt.verdict is not None:
            waits = are_compared(self.state, unit) and attempt in unit.answers()
            if not waits:
                self.out.append(Charge(unit.name, attempt.number))
        elif attempt.delivered is not None:
            self.out.append(Verify(unit.name, attempt.number))
        elif attempt.contract is ContractState.AWARDED:
            self.out.append(Attend(unit.name, attempt.number))
        else:
            self._called(unit, attempt)

    def _called(self, unit: Unit, attempt: Attempt) -> None:
        """CFPs are out: award the best proposal once all answered or the window closed."""
        lapse_ms = attempt.at_ms + CFP_WINDOW_MS
        unanswered = set(attempt.called) - set(attempt.proposals) - set(attempt.refusals)
        if unanswered and self.now_ms < lapse_ms:
            self._wake(lapse_ms)
            return
        offered = self.view.candidates.get(self.state.tasks[unit.subtask].capability, ())
        bids = [
            proposed(proposal, unit.calls, offered)
            for proposal in attempt.proposals.values()
            if proposal.expires_ms > self.now_ms
        ]
        # Who is to show that it does well gets one unit, unless nobody else proposed.
        fit = [one for one in bids if has_room(one, self.purse.load)] or bids
        ranked = self.purse.affordable(unit, fit)
        if not ranked:
            given_up = GiveUp(unit.name, attempt.number, *no_proposal(attempt))
            dear = self.purse.too_dear(unit, bids)
            self.out.append(End(*dear) if dear else given_up)
            return
        best = ranked[0][0]
        if self._may_award():
            self._award(
                unit, attempt.number, best, attempt.proposals[best.peer].proposal, ranked
            )

    def _begin(self, task: SubTask, unit: Unit) -> bool:
        """Start the next attempt, if one may start now; tell whether it does."""
        failures = unit.failures()
        if failures and is_last(unit, is_gold=self.state.required_plan.gold is not None):
            last = failures[-1]
            self.out.append(End(last.code, f"sub-task {unit.name}: {last.text}"))
            return False
        if self._order(unit):
            return True
        counts = Failures.of(unit)
        until_ms = awaited_ms(self.state, unit, self.view, patience_ms=self._patience_ms)
        if counts.are_enough(task.attempts_max, patient=self.now_ms < until_ms):
            last = failures[-1]
            end = End(
                last.code, f"sub-task {unit.name} failed {len(failures)} times: {last.text}"
            )
            if last.blame == "artifact":  # nobody else would have the input either
                self.out.append(end)
            else:
                self.stuck = self.stuck or end
            return False
        if failures:
            pause = counts.rest_ms(unit.attempts[-1], share_of(self.state.job, unit))
            if self.now_ms < unit.ended_ms + pause:
                self._wake(unit.ended_ms + pause)
                return False
        return self._choose(task, unit)

    def _order(self, unit: Unit) -> bool:
        """Send a unit by letter, if nobody is there for it and that may be."""
        waits = {"now_ms": self.now_ms, "patience_ms": self._patience_ms}
        away = choices(self.state, unit, self.view, **waits) if self.purse.has_award else ()
        if ranked := self.purse.affordable(unit, away):
            self._award(unit, len(unit.attempts), ranked[0][0], b"", ranked)
        return bool(ranked)

    def _choose(self, task: SubTask, unit: Unit) -> bool:
        fresh_unit = not unit.attempts
        if fresh_unit and unit.calls >= self.full.get(task.capability, unit.calls + 1):
            return False  # who would take it would have taken the smaller one
        if fresh_unit and (task.id, unit.calls) in self.purse.waiting:
            return False  # one just like it waits
        offered = self.view.candidates.get(task.capability, ())
        known = [c for c in offered if c.items_max >= unit.calls]
        out = unfit(unit)
        candidates = [c for c in known if c.peer not in out]
        if not candidates:
            if not known:
                self._provider_missing(task, unit.failures())
            elif not self._awaited(task):
                last = unit.failures()[-1]
                self.stuck = self.stuck or End(
                    last.code,
                    f"sub-task {unit.name}: every provider of {task.capability} failed,"
                    f" the last: {last.text}",
                )
            return False
        tried = failed(unit)
        if fresh := [c for c in candidates if c.peer not in tried]:
            candidates = fresh
        candidates = untroubled(candidates)  # before room: a good one is worth a wait
        free = [c for c in candidates if has_room(c, self.purse.load)]
        if not free:
            if fresh_unit:
                self.full[task.capability] = unit.calls
            return False  # an event (a delivery) makes room
        by_time = fresh_unit and unit.judged is None
        if by_time and len(free) < len(candidates) and self._awaits_room(unit, candidates):
            return False
        return self._commit(unit, free)

    def _awaits_room(self, unit: Unit, candidates: Sequence[Candidate]) -> bool:
        """Tell whether one that has no room would be done before all who have.

        Then ``unit`` waits for it, and has a place there before whoever is asked for next.
        """
        best = self.purse.first(unit, candidates)
        if best is None or has_room(best, self.purse.load):
            return False
        until_ms = patience_ms(self.state, best)
        if until_ms <= self.now_ms:
            return False
        self.purse.fill(best)
        self._wake(until_ms)
        return True

    def _commit(self, unit: Unit, candidates: list[Candidate]) -> bool:
        if not self._may_award():
            return False
        likely = None if unit.judged else self.purse.first(unit, candidates)
        if likely and self._offer_comes(likely):  # before the others are put in order
            equals = self.purse.equals(unit, candidates)
            if not unit.attempts and all(map(self._offer_comes, equals)):
                self.purse.waiting.add((unit.subtask, unit.calls))
            return False
        ranked = in_order(unit, self.purse.affordable(unit, candidates))
        if not ranked:
            if self.purse.free_mc + self.state.spent_mc < self.state.required_plan.budget_mc:
                return False  # what is reserved may come back
            self.out.append(End(*self.purse.why_none(unit, candidates)))
            return False
        best, number = ranked[0][0], len(unit.attempts)
        if stands(best, until_ms=self.now_ms + OFFER_MARGIN_MS):
            self._award(unit, number, best, best.offer, ranked)
            return True
        if self._offer_comes(best):
            return False
        self.out.append(Call(unit.name, number, tuple(c for c, _ in ranked[:CALLED_MAX])))
        self.purse.fill(best)
        return True

    def _offer_comes(self, candidate: Candidate) -> bool:
        """Tell whether to wait for one: it serves every unit, where a call would one."""
        until_ms = self.now_ms + OFFER_MARGIN_MS
        if waits := candidate.asked and not stands(candidate, until_ms=until_ms):
            self._wake(self.now_ms + OFFER_PATIENCE_MS)
        return waits

    def _award(
        self,
        unit: Unit,
        number: int,
        candidate: Candidate,
        proposal: bytes,
        ranked: Sequence[tuple[Candidate, Ranked]],
        *,
        hedge: bool = False,
    ) -> None:
        subtasks = 0  # nothing that goes by letter is handed on
        if proposal:
            subtasks = bounds.grant(self.state, unit, self.purse.free_subtasks)
        made = MakeAward(
            unit.name,
            number,
            candidate,
            proposal,
            tuple(row for _, row in ranked[:CALLED_MAX]),
            candidate.price_mc * unit.calls,
            considered=len(ranked),
            hedge=hedge,
            subtasks=subtasks,
            tokens=self.purse.tokens_for(unit),
            by_letter=not proposal,
            wait_max_ms=self.purse.wait_max_ms(unit, ranked) if proposal else 0,
        )
        self.purse.take(unit, made)
        self.out.append(made)

    def _may_award(self) -> bool:
        """Tell whether the job's limits let it make another, or end it if none ever will."""
        if end := self.purse.is_out():
            self.out.append(End(*end))
        return self.purse.has_award

    def _provider_missing(self, task: SubTask, failures: Sequence[Failed] = ()) -> None:
        """Note when a capability has had no provider for too long."""
        since_ms = max(self.view.since_ms, self.state.waits_since_ms(task.id))
        barred = self.view.barred.get(task.capability, ())
        grace_ms = BARRED_GRACE_MS if barred else self._patience_ms
        if self._awaited(task):
            return
        if self.now_ms < since_ms + grace_ms:
            self._wake(since_ms + grace_ms)
            return
        self.stuck = self.stuck or (
            End(*refused_by_all(task, barred, failures))
            if barred
            else End(
                "capability.not_offered",
                f"nobody reachable offers {task.capability} (sub-task {task.id!r})",
            )
        )

    def _awaited(self, task: SubTask) -> bool:
        """Tell whether one of those who refuse says that it is back before the deadline."""
        back_ms = soonest_ms(self.view.barred.get(task.capability, ()))
        if not 0 < back_ms < self.state.required_plan.deadline_ms:
            return False
        self._wake(max(back_ms, self.now_ms + BUSY_PAUSE_MS))
        return True

    def _wake(self, at_ms: int) -> None:
        self.wake_ms = min(self.wake_ms, at_ms)
