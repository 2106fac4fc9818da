"""The broker: takes jobs, keeps them going, through restarts, and hands out their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import trio

from meshnode.domain.facts import Cancelled, Elected, InputRef
from meshnode.domain.graphs import check_inputs, check_shape, check_types
from meshnode.domain.job import JobState
from meshnode.domain.values import canonical, parse
from meshnode.domain.wording import how_to_get
from meshnode.errors import (
    ArtifactError,
    JobEnded,
    KeyReused,
    MeshError,
    NoProvider,
    NotFound,
    StoreError,
    Superseded,
    reasons,
)
from meshnode.ports import Delete, JsonValue, Put, Write
from meshnode.services.artifacts import Artifacts
from meshnode.services.context import Context
from meshnode.services.handovers import Handovers
from meshnode.services.job_keys import KEYS, Key, content_of, read_key, same_job
from meshnode.services.job_rows import JOB_ROW, JOBS, JobRow, closed
from meshnode.services.job_runner import JobRunner, Tools
from meshnode.services.job_terms import Terms, check_terms, planned
from meshnode.services.journal_openings import open_journal
from meshnode.services.journals import JobJournal
from meshnode.services.partial_outputs import partial_outputs
from meshnode.services.past_jobs import past_jobs
from meshnode.services.resuming import left_of
from meshnode.services.token_streams import Piece
from protocol.codec import decode_as, encode
from protocol.errors import ProtocolError
from protocol.graph import TaskGraph, encode_graph
from protocol.records import Capability

#: As whose key a resumed job has the one that it goes on with.
_RESUME: Final = "resume"

#: How long a submit looks for the capabilities of its graph, seconds.
SEARCH_S: Final = 10.0
_JOB_ID_BYTES: Final = 10
_JOBS_MAX: Final = 1_000_000
#: Jobs that have ended and are kept in memory all the same.
_ENDED_MAX: Final = 32
#: A job that can't be carried on now is tried again after this, doubled each time, seconds.
_HOLD_S: Final = 1.0
_HOLD_S_MAX: Final = 30.0


class Broker:
    """Every job of this node."""

    def __init__(self, context: Context, *, artifacts: Artifacts, tools: Tools) -> None:
        self._context = context
        self._artifacts = artifacts
        self._tools = tools
        self._journals: dict[str, JobJournal] = {}
        self._ended: dict[str, None] = {}
        self._held: dict[str, trio.Event] = {}  # job -> what ends its pause
        self._nursery: trio.Nursery | None = None
        self._submitting: dict[str, tuple[trio.Lock, int]] = {}  # key -> who waits on it
        self._draining = False
        self.judging = tools.judging
        #: Told of each job's state when it has ended; they do nothing that takes time.
        self.on_end: list[Callable[[JobState], None]] = []
        tools.successions.work_for(
            Handovers(
                context,
                tools=tools,
                journals=self._journals,
                find=self._journal,
                carry=self._begin,
                close=self._close,
            )
        )

    async def run(self) -> None:
        """Carry jobs until cancelled; begins with those that a restart left."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for job, raw in await self._context.store.scan(JOBS, count_max=_JOBS_MAX):
                    if not decode_as(raw, JOB_ROW).done:
                        nursery.start_soon(self._resume, job)
                await trio.sleep_forever()
            finally:  # what is handed over now goes on when the node starts again
                self._nursery = None

    async def _resume(self, job: str) -> None:
        journal, hold_s = None, _HOLD_S
        while journal is None:
            try:
                journal = await self._journal(job)
            except (MeshError, ProtocolError) as exc:
                self._context.emit("job.unreadable", job=job, why=str(exc))
                if not isinstance(exc, StoreError):
                    return  # it won't get better
                await trio.sleep(hold_s)
                hold_s = min(2 * hold_s, _HOLD_S_MAX)
        self._context.emit("job.resumed", job=job, seq=journal.state.seq)
        await self._carry(journal)

    def _begin(self, journal: JobJournal) -> None:
        self._journals[journal.job] = journal
        if self._nursery is not None:
            self._nursery.start_soon(self._carry, journal)

    async def _carry(self, journal: JobJournal) -> None:
        """Run a job to its end, again after whatever stops its runner."""
        hold_s = _HOLD_S
        while not await self._advance(journal):
            again = self._held[journal.job] = trio.Event()
            with trio.move_on_after(hold_s):
                await again.wait()
            del self._held[journal.job]
            hold_s = min(2 * hold_s, _HOLD_S_MAX)

    async def _advance(self, journal: JobJournal) -> bool:
        """Run a job as far as it goes; tell whether that is its end."""
        over = False
        try:
            if journal.done is None:
                right = await self._tools.successions.right(journal)
                runner = JobRunner(self._context, journal, tools=self._tools, right=right)
                await runner.run()
            await self._close(journal)
            over = True
        except* Superseded:
            over = True  # another broker goes on with it, and its journal is followed
        except* StoreError as group:
            self._context.emit("job.held_up", job=journal.job, why=reasons(group))
        except* (MeshError, ProtocolError) as group:
            self._context.emit("job.stalled", job=journal.job, why=reasons(group))
        except* Exception as group:  # noqa: BLE001 - told, and tried again ever more rarely
            # A bug that one job brings out must not end the node, nor each one after it.
            self._context.emit("job.bug", job=journal.job, why=reasons(group))
        return over

    async def _close(self, journal: JobJournal) -> None:
        await self._tools.charges.close(journal)
        await self._context.store.commit(closed(journal))
        for told in self.on_end:
            told(journal.state)
        self._put_away(journal.job)

    # --- taking jobs ---

    async def submit(
        self,
        graph: TaskGraph,
        inputs: Mapping[str, JsonValue],
        terms: Terms,
        *,
        caller: str = "local",
    ) -> str:
        """Take a job and return its id; it is durable when this returns.

        Args:
            graph: Explicit plan.
            inputs: The job's inputs by name, JSON values.
            terms: Budget, deadline, idempotency key.
            caller: Whose idempotency keys these are.

        Raises:
            GraphError: Shape or types don't hold; nothing was spent.
            NoProvider: Nobody reachable offers a capability; names the nearest.
            InputInvalid: An input has no canonical JSON, or the terms are out of range.
            KeyReused: The key stands for a job of other content or budget; names both.
        """
        self._check_terms(terms)
        if self._nursery is None:
            raise MeshError("this node is not running")
        if not terms.idempotency_key:
            return await self._take(graph, inputs, terms)
        key = f"{caller}/{terms.idempotency_key}"
        # One at a time for each key: the second finds what the first made.
        lock, waiting = self._submitting.get(key, (trio.Lock(), 0))
        self._submitting[key] = (lock, waiting + 1)
        try:
            async with lock:
                content = content_of(graph, inputs, terms)
                known = await self._context.store.read(KEYS, key)
                if known is not None:
                    return same_job(known, content, terms.idempotency_key)
                named = Key(key, content)
                return await self._take(graph, inputs, terms, named=named)
        finally:
            lock, waiting = self._submitting.pop(key)
            if waiting > 1:
                self._submitting[key] = (lock, waiting - 1)

    async def _take(
        self,
        graph: TaskGraph,
        inputs: Mapping[str, JsonValue],
        terms: Terms,
        *,
        named: "Key | None" = None,
    ) -> str:
        """Check and plan a job, make it durable, begin it."""
        check_shape(graph)
        lengths = check_inputs(graph, inputs)
        offered = await self._offered(graph, away=terms.by_letter_s > 0)
        check_types(graph, offered, inputs)
        job = self._context.entropy.token(_JOB_ID_BYTES).hex()
        refs, writes = await self._keep(job, inputs, lengths)
        elected = await self._elected(job, terms)
        plan = planned(
            terms,
            owner=self._context.peer,
            graph=encode_graph(graph),
            inputs=refs,
            now_ms=self._context.clock.now_ms(),
        )
        if elected is not None:
            plan = msgspec.structs.replace(plan, epoch=elected.epoch)
        now_ms, gold = self._context.clock.now_ms(), terms.gold is not None
        row = JobRow(done=False, name=graph.name, planned_ms=now_ms, gold=gold)
        writes.append(Put(JOBS, job, encode(row)))
        if named is not None:
            writes.append(Put(KEYS, named.key, f"{job}/{named.content}".encode()))
        try:
            journal = await JobJournal.create(
                self._context, job, plan, *writes, elected=elected
            )
        except BaseException:
            await self._tools.successions.abandon(job)
            raise
        self._tools.successions.guard(journal)
        self._journals[job] = journal
        if self._nursery is None:
            raise MeshError("this node is not running")
        self._nursery.start_soon(self._carry, journal)
        return job

    async def _elected(self, job: str, terms: Terms) -> Elected | None:
        """Find the job its standbys, if it is to have any."""
        if not terms.standbys:
            return None
        successions = self._tools.successions
        standbys = await successions.choose(terms.standbys)
        return await successions.begin(
            job, standbys, budget_mc=terms.budget_mc, deadline_s=terms.deadline_s
        )

    def _check_terms(self, terms: Terms) -> None:
        if self._draining and not terms.under:  # what is being done is finished
            raise MeshError("this node is closing and takes no more jobs")
        check_terms(terms)

    async def _offered(
        self, graph: TaskGraph, *, away: bool
    ) -> dict[str, Sequence[Capability]]:
        """Return what is on offer for each sub-task; look further for what isn't known."""
        search = self._tools.market.search
        queries = sorted({task.capability for task in graph.subtasks})
        found: dict[str, Sequence[Capability]] = {}

        async def look(query: str) -> None:
            found[query] = await search(query, timeout_s=SEARCH_S, away=away)

        async with trio.open_nursery() as nursery:
            for query in queries:
                nursery.start_soon(look, query)
        for query in queries:
            if not found[query]:
                near = ", ".join(self._tools.market.nearest(query))
                hint = f"on offer are: {near}" if near else "no agent is known yet"
                raise NoProvider(f"nobody reachable offers {query}", hint=hint)
        return {task.id: found[task.capability] for task in graph.subtasks}

    async def _keep(
        self,
        job: str,
        inputs: Mapping[str, JsonValue],
        lengths: Mapping[str, dict[str, int]],
    ) -> tuple[dict[str, InputRef], list[Write]]:
        kept: dict[str, InputRef] = {}
        keeps: list[Write] = []
        for name, value in sorted(inputs.items()):
            ref, writes = await self._artifacts.prepare(
                canonical(value), job=job, broker=self._context.peer
            )
            keeps += writes
            kept[name] = InputRef(artifact=ref.artifact, size=ref.size, lengths=lengths[name])
        return kept, keeps

    # --- what has become of them ---

    async def jobs(self, *, begins: str = "") -> list[tuple[str, JobRow]]:
        """Return every job with its id, or those whose ids begin so, newest first."""
        rows = [
            (job, decode_as(raw, JOB_ROW))
            for job, raw in await self._context.store.scan(JOBS, begins, count_max=_JOBS_MAX)
        ]
        rows.sort(key=lambda row: row[1].planned_ms, reverse=True)
        return rows

    async def forget(self, before_ms: int) -> int:
        """Forget jobs that ended before then, their journals and keys; return how many.

        Raises:
            StoreError: The disk refused; what was begun is finished by the next call.
        """
        gone = await past_jobs(self._context.store, await self.jobs(), before_ms)
        for job, keys in sorted(gone.items()):
            # Its row goes last: a crash before that leaves it to be found again.
            head = await JobJournal.forget(self._context, job)
            await self._context.store.commit(Delete(JOBS, job), head, *keys)
            self._journals.pop(job, None)
            self._ended.pop(job, None)
        return len(gone)

    async def journal(self, job: str) -> JobJournal:
        """Return a job's journal.

        Raises:
            NotFound: There is no such job here.
        """
        return await self._journal(job)

    async def _journal(self, job: str) -> JobJournal:
        journal = self._journals.get(job)
        if journal is None:
            journal = await open_journal(self._context, job)
            # Two that opened it at once must share one: it has a single writer.
            journal = self._journals.setdefault(job, journal)
            self._tools.successions.guard(journal)
        if journal.done is not None:
            self._put_away(job)
        return journal

    def _put_away(self, job: str) -> None:
        """Keep a job that has ended in memory only while few have ended after it."""
        self._ended.pop(job, None)
        self._ended[job] = None
        if len(self._ended) > _ENDED_MAX:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._journals.pop(oldest, None)  # the store has it

    def streamed(self, job: str) -> list[Piece]:
        """Return what the agents at work on a job have streamed, as far as it is kept."""
        return self._tools.awards.so_far(job)

    async def cancel(self, job: str, *, reason: str = "owner") -> None:
        """End a job early; returns at once, the end shows in its events."""
        journal = await self._journal(job)
        await journal.record(
            Cancelled(reason=reason, text="cancelled by its owner"),
            still=lambda: journal.state.done is None and journal.state.cancelled is None,
        )

    def abandon(self, job: str) -> None:
        """End a job early whose only caller has gone; it goes on if this node is closing."""
        if self._nursery is not None:
            self._nursery.start_soon(self._abandon, job)

    async def _abandon(self, job: str) -> None:
        """Do so, unless the disk or the journal won't have it: then it has its deadline."""
        try:
            await self.cancel(job, reason="superior")
        except (MeshError, ProtocolError) as exc:
            self._context.emit("job.not_abandoned", job=job, why=str(exc))

    async def resume(
        self, job: str, *, budget_mc: int | None = None, deadline_s: float | None = None
    ) -> str:
        """Go on with a job that ended early, as a new job; return its id.

        Sub-tasks that are finished aren't run again.  A job that hasn't ended goes on by
        itself; one that is held up is tried again at once.  Asked again, it is the same
        new job.

        Args:
            job: Which one.
            budget_mc: Of the new job; as much as the old one had unless said otherwise.
            deadline_s: Of the new job, from now.

        Raises:
            NotFound: There is no such job.
            JobEnded: It is completed, or has nothing left to be run.
            ArtifactError: An input of it is no longer kept.
            KeyReused: It is resumed already, with another budget.
            MeshError: As :meth:`submit`.
        """
        journal = await self._journal(job)
        if journal.done is None:
            if (pause := self._held.get(job)) is not None:
                pause.set()
            return job
        if journal.done.state == "completed":
            raise JobEnded(f"job {job} is completed", hint="it has its outputs")
        plan = journal.state.required_plan
        if plan.gold is not None:  # nobody is asked the same one twice
            raise JobEnded(f"job {job} was a gold task", hint="it is over, however it ended")
        budget_mc = plan.budget_mc if budget_mc is None else budget_mc
        known = await self._context.store.read(KEYS, f"{_RESUME}/{job}")
        if known is not None:  # whether its inputs are still kept or not
            return await self._resumed(read_key(known)[0], job, budget_mc)
        left = await left_of(journal.state, self._artifacts)
        if not left.graph.subtasks:
            raise JobEnded(
                f"every sub-task of job {job} is finished; its outputs can't be put together",
                hint=journal.done.text,
            )
        # What is left is fewer things once outputs have been kept for long enough.
        terms = Terms(
            budget_mc=budget_mc,
            idempotency_key=job,
            asked=f"what job {job} left",
            resumes=job,
            again=left.again,
            hedges_pct=plan.hedges_pct,
            replans_max=plan.replans_max,
            traceparent=plan.traceparent,
            depth_max=plan.hops,
            subtasks_max=plan.subtasks,
            fan_out_max=plan.fan_out,
            tokens_max=plan.tokens,
            patience_s=plan.patience_ms / 1000,
            assurance=plan.theta_ppm / 1_000_000 if plan.theta_ppm else "",
            lends_golds=plan.lends_golds,
            only=tuple(plan.only),
        )
        deadline_s = terms.deadline_s if deadline_s is None else deadline_s
        by_letter_s = min(plan.by_letter_ms / 1000, deadline_s)
        terms = replace(terms, deadline_s=deadline_s, by_letter_s=by_letter_s)
        return await self.submit(left.graph, left.inputs, terms, caller=_RESUME)

    async def _resumed(self, job: str, before: str, budget_mc: int) -> str:
        """Return ``job``, which goes on with ``before`` already, if it may spend so much."""
        plan = (await self._journal(job)).state.required_plan
        if plan.budget_mc != budget_mc:
            raise KeyReused(
                f"job {job} goes on with what job {before} left, for {plan.budget_mc} mc",
                hint=f"when that has ended too, resume {job}",
            )
        return job

    async def wait(self, job: str) -> JobState:
        """Return the job's state once it has ended."""
        journal = await self._journal(job)
        while journal.done is None:
            await journal.changed()
        return journal.state

    async def outputs(self, job: str) -> dict[str, JsonValue]:
        """Return the outputs of a completed job.

        Raises:
            NotFound: It hasn't completed; says how it stands.
            ArtifactError: An output is past its time here.
        """
        state = (await self._journal(job)).state
        if state.done is None:
            raise NotFound(f"job {job} has not ended")
        if state.done.state != "completed":
            raise NotFound(
                f"job {job} {state.done.state}: {state.done.text or state.done.code}",
                hint=how_to_get(state.kept()),
            )
        values: dict[str, JsonValue] = {}
        for name, ref in state.done.outputs.items():
            data = await self._artifacts.local(ref.artifact)
            if data is None:
                raise ArtifactError(f"the output {name!r} of job {job} is no longer kept")
            values[name] = parse(data)
        return values

    async def partial_outputs(self, job: str) -> dict[str, JsonValue]:
        """Return what was accepted of a job that has ended, however it did.

        Raises:
            NotFound: It goes on.
        """
        return await partial_outputs((await self._journal(job)).state, self._artifacts)

    @property
    def carried(self) -> int:
        """Jobs that haven't ended; they go on when the node starts again."""
        return sum(journal.done is None for journal in self._journals.values())

    def drain(self) -> None:
        """Take no more jobs."""
        self._draining = True
