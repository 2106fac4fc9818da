"""Journals at work: facts are numbered, chained, signed, made durable, then folded.

A group of facts is one commit: their events, the segment's new head, and whatever
else must be true together with them.  Nothing is sent because of a fact before
:meth:`JobJournal.record` has returned.

Facts are folded first, because the fold refuses what can't follow, and written then.
When the disk refuses, what was folded isn't true: the journal is read back from the
store, which alone knows, and goes on from there.

Facts that come while others are being written wait together and become the next group:
they share its head and its fsync.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from meshnode.domain.elections import left_behind
from meshnode.domain.facts import Done, Elected, Fact, Planned
from meshnode.domain.job import JobState
from meshnode.errors import BeyondEnd, MeshError, NotFound, StoreError, Superseded
from meshnode.ports import Append, Delete, Put, Write
from meshnode.services.context import Context
from meshnode.services.journal_copies import read_copies
from meshnode.services.journal_groups import Decide, Group, Wish
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
    encode_segment,
    export,
    read_head,
    sign_head,
    wrap_event,
)
from protocol.keys import digest
from protocol.messages import Result, read_message

_HEADS: Final = "journal_head"  # job -> newest signed head


def log_of(job: str) -> str:
    """Return the log in which the segment is that this node writes of a job."""
    return f"job/{job}"


class JobJournal:
    """One job's journal and the fold over it.

    Attributes:
        job: Job id.
        state: The fold over every durable event.
        changes: How often whoever waits for one was woken.
    """

    def __init__(
        self,
        context: Context,
        job: str,
        header: bytes,
        *,
        before: Sequence[SegmentExport] = (),
    ) -> None:
        """Begin with nothing but what earlier brokers wrote, ``before``."""
        self._context = context
        self.job = job
        self._segment = decode_segment(header)
        self._header, self._head = header, b""
        self._before, self._following = before, False
        # Of a job with standbys: how many events can't be lost with this node.
        self.guard: Callable[[], int] | None = None
        self._lock = trio.Lock()
        self._wishes: list[Wish] = []
        self.changes, self._changed = 0, trio.Event()
        self._broken = ""
        self._begin()

    def _begin(self) -> None:
        """Forget every event of this segment."""
        self.state = JobState(self.job)
        self._events: list[bytes] = []
        for segment in self._before:
            for body in segment.events:
                self.state.apply(decode_event(body))
                self._events.append(body)
        self._first = self._durable = len(self._events)
        self._chain = chain_start(self._header)

    @classmethod
    async def create(
        cls,
        context: Context,
        job: str,
        planned: Planned,
        *writes: Write,
        elected: Elected | None = None,
    ) -> "JobJournal":
        """Begin a job: its segment's header and first facts, durable together.

        ``writes`` go with them; ``elected`` says by what right, if there is a charter.
        """
        header = encode_segment(
            Segment(
                job=job,
                network=context.network,
                epoch=planned.epoch,
                writer=context.peer,
                charter=b"" if elected is None else elected.charter,
                parent=b"",
                opened_ms=context.clock.now_ms(),
            )
        )
        journal = cls(context, job, header)
        facts = [planned] if elected is None else [planned, elected]
        await journal.record(*facts, writes=[Append(log_of(job), 0, header), *writes])
        return journal

    @classmethod
    async def succeed(
        cls,
        context: Context,
        job: str,
        before: Sequence[SegmentExport],
        elected: Elected,
        *writes: Write,
    ) -> "JobJournal":
        """Go on with a job where earlier brokers left it, in a segment of this node's own.

        ``before`` is what they wrote, as far as it is here; ``writes`` go with the facts.
        """
        header = encode_segment(
            Segment(
                job=job,
                network=context.network,
                epoch=elected.epoch,
                writer=context.peer,
                charter=elected.charter,
                parent=digest(before[-1].head),
                opened_ms=context.clock.now_ms(),
            )
        )
        await context.store.drop_log(log_of(job))  # of an epoch that others went on from
        journal = cls(context, job, header, before=before)
        facts = [elected, *left_behind(journal.state)]
        await journal.record(*facts, writes=[Append(log_of(job), 0, header), *writes])
        return journal

    @classmethod
    def of_others(
        cls, context: Context, job: str, segments: Sequence[SegmentExport]
    ) -> "JobJournal":
        """Return the journal of a job that another broker goes on with, from its copies."""
        journal = cls(context, job, segments[-1].header, before=segments[:-1])
        journal.follow_on(segments[-1].events, segments[-1].head)
        return journal

    @classmethod
    async def open(cls, context: Context, job: str) -> "JobJournal":
        """Read a job back: fold every event and hold it against the signed head.

        Raises:
            NotFound: There is no such job here.
            StoreError: The journal doesn't hold together: the store was tampered with.
            ProtocolError: As the store error, found by the fold.
        """
        entries = await context.store.log(log_of(job))
        if not entries:
            raise NotFound(f"there is no job {job!r} here")
        before: Sequence[SegmentExport] = ()
        if (segment := decode_segment(entries[0])).parent:
            copies = await read_copies(context, segment.charter)
            before = [one for one in copies if decode_segment(one.header).epoch < segment.epoch]
        journal = cls(context, job, entries[0], before=before)
        await journal._load(entries)
        return journal

    @staticmethod
    async def forget(context: Context, job: str) -> Write:
        """Drop a job's events; return what drops the rest of its journal.

        Raises:
            StoreError: The disk refused.
        """
        await context.store.drop_log(log_of(job))
        return Delete(_HEADS, job)

    async def _load(self, entries: Sequence[bytes]) -> None:
        """Fold ``entries``, the header first, and hold them against the signed head."""
        # Read first: nobody may look while some of what is durable isn't folded again.
        raw = await self._context.store.read(_HEADS, self.job)
        self._begin()
        for body in entries[1:]:
            self.state.apply(decode_event(body))
            self._link(body)
        if raw is None:
            raise StoreError(f"the journal of job {self.job} has no signed head")
        head = read_head(raw, self._segment)
        if (head.count, head.chain) != (len(self._events) - self._first, self._chain):
            raise StoreError(f"the journal of job {self.job} is not what its head signs")
        self._durable, self._head = len(self._events), raw

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
        wish = Wish(facts, writes, still)
        self._wishes.append(wish)
        try:
            async with self._alone():
                if not wish.settled:
                    await self._grant()
        finally:
            if wish in self._wishes:
                self._wishes.remove(wish)  # its caller went away before it was its turn
        if wish.error is not None:
            raise wish.error
        return wish.added

    async def extend(self, decide: Decide) -> list[Fact]:
        """Add what follows from the state, and what follows from that, in one commit.

        Args:
            decide: Asked until nothing more follows.  It sees what isn't durable yet, so
                it may send nothing; it may read the store.

        Returns:
            What was added; durable.

        Raises:
            OutOfTurn: A fact can't follow what is there: nothing was written.
            StoreError: The disk refused: nothing was written.
        """
        group = Group()
        # A caller that goes away must not leave behind what is folded and not written.
        async with self._alone():
            self._need_own()
            with trio.CancelScope(shield=True):
                async with self._undoing():
                    while True:
                        facts, writes = await decide(self.state)
                        if not facts:
                            break
                        self._fold(facts, writes, group)
                    await self._commit(group)
        return [fact for _, fact in group.events]

    def _need_own(self) -> None:
        if self._following:
            raise Superseded(f"another broker goes on with job {self.job}")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock; while it is free, without a turn of the scheduler."""
        lock = self._lock  # which is another's once this has become another
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()

    async def _grant(self) -> None:
        """Record what everybody waits for, in one commit."""
        wishes, self._wishes = self._wishes, []
        # A caller that goes away must not leave behind what is folded and not written.
        with trio.CancelScope(shield=True):
            try:
                await self._grant_all(wishes)
            except (MeshError, ProtocolError) as exc:
                if len(wishes) == 1:
                    wishes[0].error, wishes[0].settled = exc, True
                    return
                for wish in wishes:
                    await self._grant_alone(wish)  # one of them may be at fault
            finally:
                self._wishes += [wish for wish in wishes if not wish.settled]

    async def _grant_alone(self, wish: Wish) -> None:
        try:
            await self._grant_all([wish])
        except (MeshError, ProtocolError) as exc:
            wish.error, wish.settled = exc, True

    async def _grant_all(self, wishes: Sequence[Wish]) -> None:
        self._need_own()
        group = Group()
        async with self._undoing():
            for wish in wishes:
                wish.added = wish.still is None or wish.still()
                if wish.added:
                    self._fold(wish.facts, wish.writes, group)
            await self._commit(group)
        for wish in wishes:
            wish.settled = True

    @asynccontextmanager
    async def _undoing(self) -> AsyncIterator[None]:
        """Go back to what is durable when a block fails that folds and writes."""
        if self._broken:
            await self._reload()
        try:
            yield
        except (MeshError, ProtocolError) as exc:
            self._broken = str(exc)
            await self._reload()
            raise

    def _fold(self, facts: Sequence[Fact], writes: Sequence[Write], group: Group) -> None:
        now_ms = self._context.clock.now_ms()
        group.writes += writes
        for fact in facts:
            body = wrap_event(fact.KIND, fact, seq=self.state.seq, at_ms=now_ms)
            self.state.add(fact, at_ms=now_ms)
            self._link(body)
            number = len(self._events) - self._first
            group.writes.append(Append(log_of(self.job), number, body))
            group.events.append((self.state.seq, fact))

    async def _commit(self, group: Group) -> None:
        """Make what was folded durable, and tell everyone."""
        if not group.events:
            return
        head = self._sign_head(self._context.clock.now_ms())
        await self._context.store.commit(*group.writes, Put(_HEADS, self.job, head))
        self._durable, self._head = len(self._events), head
        self.poke()
        for seq, fact in group.events:
            self._context.emit(f"job.{fact.KIND}", job=self.job, seq=seq, fact=fact)

    async def _reload(self) -> None:
        """Go back to what is durable, where something folded turned out not to be.

        Raises:
            StoreError: It can't be read now; the next :meth:`record` tries again.
        """
        entries = await self._context.store.log(log_of(self.job))
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
        """How the job ended, once that is durable, and can't be lost with this node."""
        safe = self.guard() if self.guard is not None else self._durable
        return self.state.done if safe >= len(self._events) == self._durable else None

    def _link(self, body: bytes) -> None:
        """Add what was folded to the chain."""
        self._events.append(body)
        self._chain = chain_next(self._chain, body)

    def _sign_head(self, now_ms: int) -> bytes:
        head = Head(
            job=self.job,
            epoch=self._segment.epoch,
            count=len(self._events) - self._first,
            chain=self._chain,
            at_ms=now_ms,
            state=self.state.done.state if self.state.done else "",
        )
        return sign_head(self._context.signer.identity, self._context.network, head)

    def poke(self) -> None:
        """Wake whoever waits for a change."""
        self.changes += 1
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait for the next change or :meth:`poke`."""
        await self._changed.wait()

    def check_start(self, start: int) -> None:
        """Refuse to tell events from ``start`` on where that can't be what is meant.

        Raises:
            BeyondEnd: There is no event before it: whoever saw one followed another journal.
        """
        if start > self._durable:
            raise BeyondEnd(
                f"job {self.job} has {self._durable} events, and event {start - 1} is said"
                " to be known",
                hint="this is not the journal that was followed: begin again from event 0",
            )

    def events(self, start: int = 0) -> list[Event]:
        """Return the durable events from ``start`` on."""
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
            segments = self.segments
        if self.done is None:
            raise NotFound(
                f"job {self.job} has not ended", hint="its provenance is ready when it has"
            )
        return export(segments)

    # --- when others are its broker ---

    @property
    def following(self) -> bool:
        """Whether another broker goes on with the job: this is a copy of what it writes."""
        return self._following

    @property
    def segments(self) -> list[SegmentExport]:
        """What is durable, by segment, each with the head that signs so much."""
        own = self._events[self._first : self._durable]
        return [*self._before, SegmentExport(self._header, own, self._head)]

    def retire(self) -> None:
        """Write nothing more: another broker goes on with the job."""
        self._following = True
        self.poke()

    def become(self, other: "JobJournal") -> None:
        """Be ``other`` from now on: whoever waits here sees what happens there."""
        self.poke()
        self.__dict__.update(other.__dict__)

    def adopt(self, segments: Sequence[SegmentExport]) -> None:
        """Be what another broker wrote; all of it is durable here."""
        last, here = segments[-1], self._events[self._first :]
        # A header names the head that it follows, so what goes before is the same, too.
        same = last.header == self._header and last.events[: len(here)] == here
        if same and self._following:
            self.follow_on(last.events[len(here) :], last.head)
            return
        self._header, self._segment = last.header, decode_segment(last.header)
        self._before = segments[:-1]
        self._begin()
        self.follow_on(last.events, last.head)

    def follow_on(self, events: Sequence[bytes], head: bytes) -> None:
        """Take in what its broker wrote next in the same segment."""
        self._following = True
        for body in events:
            self.state.apply(decode_event(body))
            self._link(body)
        self._durable, self._head = len(self._events), head
        self.poke()
