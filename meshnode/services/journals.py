"""Journals at work: facts are numbered, chained, signed, made durable, then folded.

A group of facts is one commit: their events, the segment's new head, and whatever
else must be true together with them.  Nothing is sent because of a fact before
:meth:`JobJournal.record` has returned.

Facts are folded first, because the fold refuses what can't follow, and written then.
When the disk refuses, what was folded isn't true: the journal is read back from the
store, which alone knows, and goes on from there.
"""

from collections.abc import Callable, Sequence
from typing import Final

import trio

from meshnode.domain.facts import Done, Fact, Planned, to_event
from meshnode.domain.job import JobState
from meshnode.errors import MeshError, NotFound, StoreError
from meshnode.ports import Append, Put, Write
from meshnode.services.context import Context
from protocol.errors import ProtocolError
from protocol.journal import (
    Event,
    Head,
    Segment,
    SegmentExport,
    chain_next,
    chain_start,
    decode_event,
    decode_segment,
    encode_event,
    encode_segment,
    export,
    read_head,
    sign_head,
)
from protocol.messages import Result, read_message

_HEADS: Final = "journal_head"  # job -> newest signed head


def _log(job: str) -> str:
    return f"job/{job}"


class JobJournal:
    """One job's journal and the fold over it.

    Attributes:
        job: Job id.
        state: The fold over every durable event.
    """

    def __init__(self, context: Context, job: str, header: bytes) -> None:
        self._context = context
        self.job = job
        self._segment = decode_segment(header)
        self._header = header
        self._lock = trio.Lock()
        self._changed = trio.Event()
        self._broken = ""
        self._begin()

    def _begin(self) -> None:
        """Forget every event."""
        self.state = JobState(self.job)
        self._events: list[bytes] = []
        self._durable = 0
        self._chain = chain_start(self._header)

    @classmethod
    async def create(
        cls, context: Context, job: str, planned: Planned, *writes: Write
    ) -> "JobJournal":
        """Begin a job: its segment's header and first fact, durable together.

        Args:
            context: This node.
            job: Fresh job id.
            planned: The plan.
            writes: Committed with it, or not at all.
        """
        header = encode_segment(
            Segment(
                job=job,
                network=context.network,
                epoch=planned.epoch,
                writer=context.peer,
                charter=b"",
                parent=b"",
                opened_ms=context.clock.now_ms(),
            )
        )
        journal = cls(context, job, header)
        await journal.record(planned, writes=[Append(_log(job), 0, header), *writes])
        return journal

    @classmethod
    async def open(cls, context: Context, job: str) -> "JobJournal":
        """Read a job back: fold every event and hold it against the signed head.

        Raises:
            NotFound: There is no such job here.
            StoreError: The journal doesn't hold together: the store was tampered with.
            ProtocolError: As the store error, found by the fold.
        """
        entries = await context.store.log(_log(job))
        if not entries:
            raise NotFound(f"there is no job {job!r} here")
        journal = cls(context, job, entries[0])
        await journal._load(entries)
        return journal

    async def _load(self, entries: Sequence[bytes]) -> None:
        """Fold ``entries``, the header first, and hold them against the signed head."""
        self._begin()
        for body in entries[1:]:
            self._take(body, decode_event(body))
        raw = await self._context.store.read(_HEADS, self.job)
        if raw is None:
            raise StoreError(f"the journal of job {self.job} has no signed head")
        head = read_head(raw, self._segment)
        if (head.count, head.chain) != (len(self._events), self._chain):
            raise StoreError(f"the journal of job {self.job} is not what its head signs")
        self._durable = len(self._events)

    async def record(
        self,
        *facts: Fact,
        writes: Sequence[Write] = (),
        still: Callable[[], bool] | None = None,
    ) -> bool:
        """Add ``facts``, in order, with ``writes``; durable and folded when it returns.

        Args:
            facts: What happened.
            writes: Committed with them, or not at all.
            still: Asked when it is this call's turn: False drops the facts.

        Returns:
            Whether they were added.

        Raises:
            OutOfTurn: A fact can't follow what is there: nothing was written.
            StoreError: The disk refused: nothing was written.
        """
        async with self._lock:
            # A caller that goes away must not leave behind what is folded and not written.
            with trio.CancelScope(shield=True):
                if self._broken:
                    await self._reload()
                if still is not None and not still():
                    return False
                try:
                    await self._add(facts, writes)
                except (MeshError, ProtocolError) as exc:
                    self._broken = str(exc)
                    await self._reload()
                    raise
        self.poke()
        for fact in facts:
            self._context.emit(f"job.{fact.KIND}", job=self.job, seq=self.state.seq, fact=fact)
        return True

    async def _add(self, facts: Sequence[Fact], writes: Sequence[Write]) -> None:
        batch: list[Write] = list(writes)
        now_ms = self._context.clock.now_ms()
        for fact in facts:
            event = to_event(fact, seq=self.state.seq, at_ms=now_ms)
            body = encode_event(event)
            self._take(body, event)
            batch.append(Append(_log(self.job), len(self._events), body))
        batch.append(Put(_HEADS, self.job, self._sign_head(now_ms)))
        await self._context.store.commit(*batch)
        self._durable = len(self._events)

    async def _reload(self) -> None:
        """Go back to what is durable, where something folded turned out not to be.

        Raises:
            StoreError: It can't be read now; the next :meth:`record` tries again.
        """
        entries = await self._context.store.log(_log(self.job))
        if entries:  # none: the very first commit failed, and there is no job
            await self._load(entries)
        self._broken = ""
        self.poke()

    async def settled(self) -> JobState:
        """Return the state once all that is in it is durable."""
        async with self._lock:
            return self.state

    @property
    def done(self) -> Done | None:
        """How the job ended, once that is durable."""
        return self.state.done if self._durable == len(self._events) else None

    def _take(self, body: bytes, event: Event) -> None:
        self.state.apply(event)
        self._events.append(body)
        self._chain = chain_next(self._chain, body)

    def _sign_head(self, now_ms: int) -> bytes:
        done: Done | None = self.state.done
        head = Head(
            job=self.job,
            epoch=self._segment.epoch,
            count=len(self._events),
            chain=self._chain,
            at_ms=now_ms,
            state=done.state if done else "",
        )
        return sign_head(self._context.signer.identity, self._context.network, head)

    def poke(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait for the next change or :meth:`poke`."""
        await self._changed.wait()

    def events(self, start: int = 0) -> list[Event]:
        """Return the events from ``start`` on."""
        return [decode_event(body) for body in self._events[start : self._durable]]

    async def follow(self, start: int) -> list[Event]:
        """Return the events from ``start`` on, waiting for one if there is none yet.

        An empty list means that the job has ended and there will be none.
        """
        while self._durable <= start and self.done is None:
            await self.changed()
        return self.events(start)

    def tokens(self) -> tuple[int, int]:
        """Return the model tokens read and written, as contractors metered accepted work."""
        read = written = 0
        for unit in self.state.units.values():
            if unit.accepted is not None and unit.accepted.delivered is not None:
                network = self._context.network
                result = read_message(unit.accepted.delivered.result, Result, network=network)
                read += result.metering.tokens_in
                written += result.metering.tokens_out
        return read, written

    async def export(self) -> bytes:
        """Return the finished job's journal in its exported form.

        Raises:
            NotFound: The job goes on.
        """
        async with self._lock:  # what is being recorded is folded before its head is stored
            head = await self._context.store.read(_HEADS, self.job)
        if self.done is None or head is None:
            raise NotFound(
                f"job {self.job} has not ended", hint="its provenance is ready when it has"
            )
        return export([SegmentExport(self._header, list(self._events), head)])
