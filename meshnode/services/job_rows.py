"""The list of a node's jobs, as it stands in the store."""

from typing import Final

import msgspec

from meshnode.ports import Put
from meshnode.services.journals import JobJournal
from protocol.codec import encode

#: Job id -> :class:`JobRow`.
JOBS: Final = "job"


class JobRow(msgspec.Struct, frozen=True):
    """A job in the list of jobs; ``state`` and what follows it came later than the rest.

    Attributes:
        done: It has ended.
        name: Its graph's.
        planned_ms: When it was taken, Unix time.
        state: How it ended; empty while it runs, or if an older version wrote the row.
        spent_mc: What it has cost; 0 until it has ended.
        ended_ms: When it ended; 0 until then.
        gold: It was given to see whether an agent knows the answer.
    """

    done: bool
    name: str
    planned_ms: int
    state: str = ""
    spent_mc: int = 0
    ended_ms: int = 0
    gold: bool = False


JOB_ROW: Final = msgspec.msgpack.Decoder(JobRow)


def closed(journal: JobJournal) -> Put:
    """Return what notes how a job ended."""
    state = journal.state
    row = JobRow(
        done=True,
        name=state.graph.name if state.graph else "",
        planned_ms=state.planned_ms,
        state=state.done.state if state.done else "",
        spent_mc=state.spent_mc,
        ended_ms=state.ended_ms,
        gold=state.plan is not None and state.plan.gold is not None,
    )
    return Put(JOBS, journal.job, encode(row))
