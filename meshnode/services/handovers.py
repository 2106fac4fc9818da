"""What a broker does when one of its jobs passes on, or another's comes to it."""

from collections.abc import Awaitable, Callable, Sequence

from meshnode.domain.elections import check_plan
from meshnode.domain.facts import Elected
from meshnode.ports import Put
from meshnode.services.context import Context
from meshnode.services.job_rows import JOBS, JobRow
from meshnode.services.job_runner import Tools
from meshnode.services.journal_openings import fold_segments
from meshnode.services.journals import JobJournal
from protocol.charter import read_certificate
from protocol.codec import encode
from protocol.journal import SegmentExport


class Handovers:
    """See :class:`~meshnode.services.successions.Jobs`."""

    def __init__(
        self,
        context: Context,
        *,
        tools: Tools,
        journals: dict[str, JobJournal],
        find: Callable[[str], Awaitable[JobJournal]],
        carry: Callable[[JobJournal], None],
        close: Callable[[JobJournal], Awaitable[None]],
    ) -> None:
        """Act on a broker's jobs.

        Args:
            context: This node.
            tools: Of the broker.
            journals: Those that are in memory, by job; added to.
            find: Returns a job's journal.
            carry: Begins to go on with a job.
            close: Notes how a job ended.
        """
        self._context = context
        self._tools = tools
        self._journals = journals
        self._find = find
        self._carry = carry
        self._close = close

    async def known(self, job: str) -> JobJournal | None:
        """Return the journal of a job that is listed here, or None."""
        if await self._context.store.read(JOBS, job) is None:
            return None
        return await self._find(job)

    async def take_over(
        self, job: str, segments: Sequence[SegmentExport], elected: Elected
    ) -> JobJournal:
        """Go on with a job where ``segments`` end.

        Raises:
            StoreError: The disk refused.
            ProtocolError: What was shipped is no job's journal, or another's.
        """
        before = fold_segments(job, segments)
        now_ms = self._context.clock.now_ms()
        won = read_certificate(
            elected.certificate, network=self._context.network, now_ms=now_ms
        )
        check_plan(before.required_plan, won.chartered.charter)
        name = before.graph.name if before.graph else ""
        row = JobRow(done=False, name=name, planned_ms=before.planned_ms)
        journal = await JobJournal.succeed(
            self._context, job, segments, elected, Put(JOBS, job, encode(row))
        )
        self._tools.successions.guard(journal)
        if (old := self._journals.get(job)) is not None:
            old.become(journal)  # whoever waits for the job there goes on waiting
            journal = old
        self._carry(journal)
        return journal

    async def hand_over(
        self, job: str, segments: Sequence[SegmentExport], *, own: bool
    ) -> None:
        """Follow what another broker wrote of a job, if it is listed here or ``own``.

        Raises:
            StoreError: The disk refused.
            ProtocolError: What was shipped is no job's journal.
        """
        if await self._context.store.read(JOBS, job) is None and not own:
            return
        journal = self._journals.get(job)
        if journal is None:
            journal = JobJournal.of_others(self._context, job, segments)
            journal = self._journals.setdefault(job, journal)
        journal.adopt(segments)
        self._tools.successions.guard(journal)
        await self.hear_end(journal)

    async def hear_end(self, journal: JobJournal) -> None:
        """Note how a job ended that another broker went on with, once that is sure.

        Raises:
            StoreError: The disk refused.
        """
        journal.poke()
        if journal.done is not None:
            await self._close(journal)
