"""Which ended jobs may be forgotten: those past their time that nobody still accounts for.

A job under an award is part of what that has used up of its money and its sub-tasks, and of
the receipt that it ends with.  So it stays, and its key, until the award has its result,
however short a time the owner keeps history.
"""

from collections.abc import Iterable
from typing import Final

from meshnode.ports import Delete, Store, Write
from meshnode.services.award_records import is_open
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.job_rows import JobRow

_KEYS_MAX: Final = 1_000_000
#: Whose key a job under an award has: this, and the award's hash in hex.
AWARD_CALLER: Final = "award:"


async def past_jobs(
    store: Store, rows: Iterable[tuple[str, JobRow]], before_ms: int
) -> dict[str, list[Write]]:
    """Return the jobs that ended before then and matter no more: job -> what drops its keys.

    Raises:
        StoreError: The disk refused.
    """
    gone: dict[str, list[Write]] = {
        job: []
        for job, row in rows
        if row.done and (row.ended_ms or row.planned_ms) < before_ms
    }
    for key, raw in await store.scan(KEYS, count_max=_KEYS_MAX):
        job, _ = read_key(raw)
        if job not in gone:
            continue
        award = key.partition("/")[0].removeprefix(AWARD_CALLER)
        if key.startswith(AWARD_CALLER) and await is_open(store, award):
            del gone[job]
        else:
            gone[job].append(Delete(KEYS, key))
    return gone
