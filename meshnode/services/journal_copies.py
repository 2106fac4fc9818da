"""What a member of a job keeps of its journal while another is the broker.

A segment is kept as its broker shipped it: header and events in a log, the newest head in
a row.  They are named by the charter, because anybody could use a job's id.

A story that takes another's place is written beside it, and the rows change over in one
commit: a crash leaves one or the other.  So the row's key says which log it is: a segment
that was replaced has a number behind its epoch.
"""

from collections.abc import Sequence
from typing import Final

from meshnode.ports import Append, Delete, Put, Write
from meshnode.services.context import Context
from protocol.journal import SegmentExport, decode_segment

#: ``charter, hex/epoch``, and ``.number`` if it was replaced -> the segment's newest head.
HEADS: Final = "copy_head"
_SEGMENTS_MAX: Final = 1_000
#: Segments that are looked through at once.
_SWEPT_MAX: Final = 1_000_000


def key_of(charter: bytes, epoch: int, *, times: int = 0) -> str:
    """Return what a segment that was replaced so many ``times`` is kept under."""
    return f"{charter.hex()}/{epoch:016}" + (f".{times}" if times else "")


def _epoch(key: str) -> int:
    return int(key.partition("/")[2].partition(".")[0])


def _times(key: str) -> int:
    return int(key.partition(".")[2] or 0)


def _log(key: str) -> str:
    return f"copy/{key}"


async def read_copies(context: Context, charter: bytes) -> list[SegmentExport]:
    """Return the segments that are kept under ``charter``, in order.

    Raises:
        StoreError: The disk refused.
    """
    found: list[SegmentExport] = []
    rows = await context.store.scan(HEADS, f"{charter.hex()}/", count_max=_SEGMENTS_MAX)
    for key, head in rows:
        entries = await context.store.log(_log(key))
        if entries:
            found.append(SegmentExport(entries[0], entries[1:], head))
    return found


async def keys(context: Context, charter: bytes) -> list[str]:
    """Return what the segments under ``charter`` are kept under, in order.

    Raises:
        StoreError: The disk refused.
    """
    rows = await context.store.scan(HEADS, f"{charter.hex()}/", count_max=_SEGMENTS_MAX)
    return [key for key, _ in rows]


def grow(key: str, segment: SegmentExport, *, first: int) -> list[Write]:
    """Return what adds the events of ``segment`` from number ``first`` on to its copy."""
    begins = [] if first else [Append(_log(key), 0, segment.header)]
    some = segment.events[first:]
    grows = [Append(_log(key), first + 1 + n, body) for n, body in enumerate(some)]
    return [*begins, *grows, Put(HEADS, key, segment.head)]


async def replace(
    context: Context,
    charter: bytes,
    segments: Sequence[SegmentExport],
    *,
    since: int,
    also: Sequence[Write] = (),
) -> str:
    """Keep ``segments`` in the place of all from epoch ``since`` on: both, or neither.

    ``also`` is written with them.

    Return what the last of them is kept under.

    Raises:
        StoreError: The disk refused.
    """
    old = [key for key in await keys(context, charter) if _epoch(key) >= since]
    writes: list[Write] = [*also, *(Delete(HEADS, key) for key in old)]
    key = ""
    for segment in segments:
        epoch = decode_segment(segment.header).epoch
        times = [_times(key) + 1 for key in old if _epoch(key) == epoch]
        key = key_of(charter, epoch, times=max(times, default=0))
        await context.store.drop_log(_log(key))  # what a crash may have left of it
        writes += grow(key, segment, first=0)
    await context.store.commit(*writes)
    for gone in old:
        await context.store.drop_log(_log(gone))
    return key


async def copied(context: Context) -> dict[bytes, list[str]]:
    """Return what copies are kept under, by charter.

    Raises:
        StoreError: The disk refused.
    """
    found: dict[bytes, list[str]] = {}
    for key, _ in await context.store.scan(HEADS, count_max=_SWEPT_MAX):
        found.setdefault(bytes.fromhex(key.partition("/")[0]), []).append(key)
    return found


async def drop(context: Context, key: str) -> None:
    """Forget the copy of a segment: the job is over.

    Raises:
        StoreError: The disk refused; asked again, it goes on.
    """
    await context.store.drop_log(_log(key))
    await context.store.commit(Delete(HEADS, key))


async def job_of(context: Context, key: str) -> str:
    """Return the job whose segment is copied there, or nothing if its header is gone.

    Raises:
        StoreError: The disk refused.
    """
    entries = await context.store.log(_log(key))
    return decode_segment(entries[0]).job if entries else ""
