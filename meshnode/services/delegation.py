"""Work that an agent of this node hands on: jobs of its own, under the award that it works at.

What an award gives is all that its agent may hand on: its money, its sub-tasks, its time,
and one broker less below.  Each job under it reserves what it may use before it begins,
and gives back what it didn't when it has ended (:mod:`meshnode.domain.bounds`).

A job under an award is found again by its key, which holds the award's hash: an agent that
is begun again after a crash, and hands on the same, gets what is being done or was.  When
the award ends, however it does, the jobs under it end first; so whoever cancels a job hears
that nothing works at it when that is so down to the last leaf.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from meshnode.domain.bounds import rolled_up
from meshnode.domain.facts import Done
from meshnode.domain.values import fingerprint
from meshnode.errors import (
    AgentError,
    BoundReached,
    BudgetReached,
    DeadlineReached,
    HopsReached,
    JobFailed,
    MeshError,
    StoreError,
    SubtasksReached,
    TokensReached,
)
from meshnode.ports import JsonValue, Left, Work
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.execution import Execution
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.job_terms import Terms
from meshnode.services.journals import JobJournal
from meshnode.services.past_jobs import AWARD_CALLER
from protocol.errors import ProtocolError
from protocol.graph import TaskGraph, encode_graph
from protocol.keys import digest
from protocol.receipts import Spent

#: What a sub-broker lets one of its own awards hand on, at most.
FAN_OUT: Final = 8
_REACHED: Final[dict[str, type[BoundReached]]] = {
    kind.code: kind
    for kind in (HopsReached, SubtasksReached, TokensReached, BudgetReached, DeadlineReached)
}
#: Jobs that one award may have under it.
_JOBS_MAX: Final = 1_000
#: What the disk refuses is tried again after this, doubled each time, seconds.
_HOLD_S: Final = 1.0
_HOLD_S_MAX: Final = 30.0
#: A job that nobody works at and that can't be read is given up after so many tries.
_READS_MAX: Final = 6


class Delegations:
    """What the agents of this node hand on."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._emit = context.emit
        self._broker: Broker | None = None

    def work_with(self, broker: Broker) -> None:
        """Have ``broker`` take what is handed on."""
        self._broker = broker

    @property
    def broker(self) -> Broker:
        """This node's broker."""
        if self._broker is None:
            raise MeshError("this node is no broker")
        return self._broker

    def under(self, execution: Execution) -> "Under":
        """Return what may be handed on under an award."""
        return Under(self, execution)

    async def jobs(self, execution: Execution) -> list[JobJournal]:
        """Return the jobs under an award, in no order that means anything.

        Raises:
            StoreError: They can't be read.
        """
        found = await self._keys(execution)
        return [await self.broker.journal(read_key(raw)[0]) for _, raw in found]

    async def _keys(self, execution: Execution) -> Sequence[tuple[str, bytes]]:
        return await self._store.scan(KEYS, f"{_caller(execution)}/", count_max=_JOBS_MAX)

    async def found(self, execution: Execution, key: str) -> str | None:
        """Return the job that has a key under an award, if there is one."""
        raw = await self._store.read(KEYS, f"{_caller(execution)}/{key}")
        return None if raw is None else read_key(raw)[0]

    async def close(self, execution: Execution) -> list[Spent]:
        """End what goes on under an award; return what was done, once nothing is."""
        header = execution.award.h
        if not (header.hops and header.budget.subtasks):
            return []  # nothing can have been handed on
        jobs = await self._jobs(execution)
        ending = [] if jobs is None else await self._end(execution, jobs)
        try:
            states = [await self.broker.wait(job) for job in ending]
        except (MeshError, ProtocolError) as exc:
            self._unaccounted(execution, exc)
            return unaccounted(execution)
        return rolled_up(states) if ending == jobs else unaccounted(execution)

    async def _jobs(self, execution: Execution) -> list[str] | None:
        """Return the jobs under an award; None if they couldn't be read until its deadline."""
        for pause_s in _pauses(execution):
            try:
                return sorted(read_key(raw)[0] for _, raw in await self._keys(execution))
            except StoreError as exc:
                self._held_up(execution, exc)
                await trio.sleep(pause_s)
            except MeshError as exc:
                self._unaccounted(execution, exc)
                return None
        return None

    async def _end(self, execution: Execution, jobs: Sequence[str]) -> list[str]:
        """End the jobs under an award; return those that do end.

        What the disk refuses is tried again until the award's deadline, when they end by
        themselves: as long as one works on, nobody may be told that nothing does.  One
        refusal holds up no other job.
        """
        left, ending, reads = list(jobs), [], 0
        for pause_s in _pauses(execution):
            refused = []
            for job in left:
                journal = None
                try:
                    journal = await self.broker.journal(job)
                    if journal.state.done is None:
                        await self.broker.cancel(job, reason="superior")
                except StoreError as exc:
                    if journal is not None or reads < _READS_MAX:
                        refused.append(job)
                        self._held_up(execution, exc)
                    else:
                        self._unaccounted(execution, exc)
                except (MeshError, ProtocolError) as exc:
                    self._unaccounted(execution, exc)
                else:
                    ending.append(job)
            if not refused:
                break
            left, reads = refused, reads + 1
            await trio.sleep(pause_s)
        return sorted(ending)

    def _held_up(self, execution: Execution, exc: Exception) -> None:
        """Say that what is under an award can't be ended yet."""
        self._emit("award.held_up", award=execution.name.hex(), why=str(exc))

    def _unaccounted(self, execution: Execution, exc: Exception) -> None:
        """Say that what was done is told as if all had been used."""
        self._emit("award.unaccounted", award=execution.name.hex(), why=str(exc))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What an agent wants to be done."""

    work: Work
    inputs: Mapping[str, JsonValue]
    key: str
    budget_mc: int | None
    deadline_s: float


class _Tally:
    """What the jobs under an award have used or reserved, added up as they come and end."""

    def __init__(self, jobs: Iterable[JobJournal]) -> None:
        self.count = 0
        self._open: list[JobJournal] = []
        self._cost_mc = self._subtasks = self._tokens = 0
        for journal in jobs:
            self.add(journal)

    def add(self, journal: JobJournal) -> None:
        """Count one more job."""
        self.count += 1
        self._open.append(journal)

    def used(self) -> tuple[int, int, int, int]:
        """Return money, sub-tasks, model tokens, and how many jobs have not ended."""
        still: list[JobJournal] = []
        for journal in self._open:
            if journal.done is None:
                still.append(journal)
            else:
                self._cost_mc += journal.state.spent_mc
                self._subtasks += journal.state.subtasks_used
                self._tokens += journal.state.tokens_used
        self._open = still
        plans = [journal.state.required_plan for journal in still]
        return (
            self._cost_mc + sum(plan.budget_mc for plan in plans),
            self._subtasks + sum(plan.subtasks for plan in plans),
            self._tokens + sum(plan.tokens for plan in plans),
            len(still),
        )


class Under:
    """What one award lets its agent hand on; all of its calls share it."""

    def __init__(self, delegations: Delegations, execution: Execution) -> None:
        self._delegations = delegations
        self._execution = execution
        self._lock = trio.Lock()  # what is left is reserved by one at a time
        self._known: _Tally | None = None

    async def left(self) -> Left:
        """Return what may still be handed on."""
        return (await self._left())[0]

    async def tokens(self) -> int | None:
        """Return one call's share of the model tokens left; None for any number."""
        left, calls = await self._left()
        return None if left.tokens is None else max(0, left.tokens // calls)

    async def _left(self) -> tuple[Left, int]:
        """Return what may still be handed on, and how many calls may do so.

        A call for each item that isn't done, but for those whose jobs go on.
        """
        header = self._execution.award.h
        cost_mc, subtasks, hops = header.budget.cost_mc, header.budget.subtasks, header.hops
        if not (hops and subtasks):
            free = header.budget.tokens - self._execution.tokens
            tokens = free if header.budget.tokens else None
            waiting = self._execution.award.items - self._execution.items_done
            left = Left(cost_mc=cost_mc, subtasks=subtasks, hops=hops, tokens=tokens)
            return left, max(1, waiting)
        used_mc, used, used_tokens, at_work = (await self._tally()).used()
        waiting = self._execution.award.items - self._execution.items_done - at_work
        cap = header.budget.tokens
        left = Left(
            cost_mc=cost_mc - used_mc,
            subtasks=subtasks - used,
            hops=hops,
            tokens=cap - used_tokens - self._execution.tokens if cap else None,
        )
        return left, max(1, waiting)

    async def _tally(self) -> _Tally:
        if self._known is None:
            self._known = _Tally(await self._delegations.jobs(self._execution))
        return self._known

    async def run(
        self,
        work: Work,
        inputs: Mapping[str, JsonValue],
        *,
        key: str,
        budget_mc: int | None,
        deadline_s: float,
    ) -> dict[str, JsonValue]:
        """Have ``work`` done and return its outputs; see :meth:`meshnode.ports.AgentCall`."""
        broker = self._delegations.broker
        wish = _Wish(work, inputs, key, budget_mc, deadline_s)
        async with self._lock:
            job = await self._begun(wish)
        try:
            state = await broker.wait(job)
        except trio.Cancelled:
            broker.abandon(job)
            raise
        assert state.done is not None
        if state.done.state != "completed":
            raise _failure(job, state.done)
        return await broker.outputs(job)

    async def _begun(self, wish: _Wish) -> str:
        """Return the job that does what is wished, begun now or before."""
        execution, graph = self._execution, wish.work.build()
        if execution.is_over:
            raise AgentError("this call is over: nothing of it can be handed on any more")
        key = wish.key or fingerprint(
            {"graph": digest(encode_graph(graph)).hex(), "inputs": dict(wish.inputs)}
        )
        known = await self._delegations.found(execution, key)
        if known is not None:
            return known
        if (await self._tally()).count >= _JOBS_MAX:
            raise SubtasksReached(
                f"{_JOBS_MAX} jobs were handed on under this award: more are not accounted for",
                hint="hand on more at once",
            )
        left, waiting = await self._left()
        units = len(graph.subtasks)
        _check(left, wish, units=units)
        terms = Terms(
            budget_mc=left.cost_mc // waiting if wish.budget_mc is None else wish.budget_mc,
            deadline_s=wish.deadline_s - trio.current_time(),
            idempotency_key=key,
            traceparent=execution.award.h.traceparent,
            hedges_pct=0,
            depth_max=left.hops,
            fan_out_max=FAN_OUT,
            subtasks_max=max(units, left.subtasks // waiting),
            tokens_max=0 if left.tokens is None else max(1, left.tokens // waiting),
            under=execution.name,
        )
        return await self._submit(graph, wish.inputs, terms)

    async def _submit(
        self, graph: TaskGraph, inputs: Mapping[str, JsonValue], terms: Terms
    ) -> str:
        """Begin a job, and count it."""
        tally, broker = await self._tally(), self._delegations.broker
        try:
            job = await broker.submit(graph, inputs, terms, caller=_caller(self._execution))
            tally.add(await broker.journal(job))
        except BaseException:
            self._known = None  # it may have begun all the same
            raise
        return job


def _check(left: Left, wish: _Wish, *, units: int) -> None:
    """Refuse what doesn't fit into what is left.

    Raises:
        HopsReached: No broker may be below this one.
        SubtasksReached: The graph has more sub-tasks.
        TokensReached: There are no tokens for them.
        BudgetReached: It may cost more.
        DeadlineReached: No time is left.
    """
    if left.hops < 1:
        raise HopsReached(
            "the hop limit is reached: this award may not be handed on, its hops are 0",
            hint="whose job it is may raise depth_max",
        )
    if units > left.subtasks:
        raise SubtasksReached(
            f"the sub-task limit is reached: {units} are to be handed on, and this award"
            f" lets {left.subtasks} more",
            hint="whose job it is may raise subtasks_max, and fan_out_max for one award",
        )
    if left.tokens is not None and left.tokens < 1:
        raise TokensReached(
            "the token limit is reached: no model tokens of this award are left",
            hint="whose job it is may raise tokens_max",
        )
    if wish.budget_mc is not None and wish.budget_mc > left.cost_mc:
        raise BudgetReached(
            f"the budget is reached: {wish.budget_mc} mc are to be handed on, and of this"
            f" award's price {left.cost_mc} mc are left",
            hint="ask for less, or raise the agent's price",
        )
    if wish.deadline_s <= trio.current_time():
        raise DeadlineReached(
            "the deadline is reached: the award's time is over", hint="hand on earlier"
        )


def _failure(job: str, done: Done) -> MeshError:
    """Return what an agent is told of a job under its award that didn't complete."""
    text = f"job {job}, which was handed on, {done.state}: {done.text or done.code}"
    reached = _REACHED.get(done.code)
    if reached is not None:
        return reached(text)
    return JobFailed(text, job=job, state=done.state, reason=done.code)


def _pauses(execution: Execution) -> Iterator[float]:
    """Yield how long to wait after each refusal of the disk; end with the award's time."""
    pause_s = _HOLD_S
    yield pause_s
    while trio.current_time() < execution.deadline_s:
        pause_s = min(2 * pause_s, _HOLD_S_MAX)
        yield pause_s


def unaccounted(execution: Execution) -> list[Spent]:
    """Return what is told where nobody can tell what was done under an award: all of it."""
    header = execution.award.h
    count = header.budget.subtasks if header.hops else 0
    tokens = max(0, header.budget.tokens - execution.tokens) if count else 0
    return [Spent(level=1, subtask="", peer="", awards=count, tokens=tokens)] if count else []


def _caller(execution: Execution) -> str:
    return AWARD_CALLER + execution.name.hex()
