"""Opening the journal of a job that may have passed on."""

from collections.abc import Sequence

from meshnode.domain.job import JobState, fold
from meshnode.services.context import Context
from meshnode.services.journal_copies import read_copies
from meshnode.services.journals import JobJournal, log_of
from protocol.journal import SegmentExport, decode_event, decode_segment


async def open_journal(context: Context, job: str) -> JobJournal:
    """Return the journal of a job: its own, or what a later broker shipped of it.

    Raises:
        NotFound: There is no such job here.
        StoreError: The journal doesn't hold together, or the disk refused.
        ProtocolError: As the store error, found by the fold.
    """
    # First: what this node wrote itself may begin with what no copy has any more.
    entries = await context.store.log(log_of(job))
    if entries and (written := decode_segment(entries[0])).charter:
        copies = await read_copies(context, written.charter)
        if copies and decode_segment(copies[-1].header).epoch > written.epoch:
            return JobJournal.of_others(context, job, copies)
    return await JobJournal.open(context, job)


def fold_segments(job: str, segments: Sequence[SegmentExport]) -> JobState:
    """Return the state that ``segments`` make.

    Raises:
        ProtocolError: They are not a job's journal.
    """
    return fold(job, [decode_event(body) for one in segments for body in one.events])
