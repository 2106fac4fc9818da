"""Opening the journal of a job that may have passed on."""

from collections.abc import Sequence

from meshnode.domain.job import JobState, fold
from meshnode.services.context import Context
from meshnode.services.journal_copies import read_copies
from meshnode.services.journals import JobJournal
from protocol.journal import SegmentExport, decode_event, decode_segment


async def open_journal(context: Context, job: str) -> JobJournal:
    """Return the journal of a job: its own, or what a later broker shipped of it.

    Raises:
        NotFound: There is no such job here.
        StoreError: The journal doesn't hold together, or the disk refused.
        ProtocolError: As the store error, found by the fold.
    """
    journal = await JobJournal.open(context, job)
    elected = journal.state.elected
    if elected is not None:
        copies = await read_copies(context, elected.charter)
        if copies and decode_segment(copies[-1].header).epoch > elected.epoch:
            return JobJournal.of_others(context, job, copies)
    return journal


def fold_segments(job: str, segments: Sequence[SegmentExport]) -> JobState:
    """Return the state that ``segments`` make.

    Raises:
        ProtocolError: They are not a job's journal.
    """
    return fold(job, [decode_event(body) for one in segments for body in one.events])
