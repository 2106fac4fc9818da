"""What a member of a job keeps of its journal while another is the broker.

A segment is kept as its broker shipped it: header and events in a log, the newest head in
a row.  They are named by the charter, because anybody could use a job's id.
"""

from collections.abc import Sequence
from typing import Final

from meshnode.ports import Append, Delete, Put, Write
from meshnode.services.context import Context
from protocol.journal import SegmentExport, decode_segment

#: ``charter, hex/epoch`` -> the newest head of that segment.
HEADS: Final = "copy_head"
_SEGMENTS_MAX: Final = 1_000
#: Segments that are looked through at once.
_SWEPT_MAX: Final = 1_000_000


def _key(charter: bytes, epoch: int) -> str:
    return f"{charter.hex()}/{epoch:016}"


def copy_log(charter: bytes, epoch: int) -> str:
    """Return the log in which the copy of a segment is."""
    return f"copy/{_key(charter, epoch)}"


async def read_copies(context: Context, charter: bytes) -> list[SegmentExport]:
    """Return the segments that are kept under ``charter``, in order.

    Raises:
        StoreError: The disk refused.
    """
    found: list[SegmentExport] = []
    rows = await context.store.scan(HEADS, f"{charter.hex()}/", count_max=_SEGMENTS_MAX)
    for key, head in rows:
        entries = await context.store.log(f"copy/{key}")
        if entries:
            found.append(SegmentExport(entries[0], entries[1:], head))
    return found


def grow(
    charter: bytes, segment: SegmentExport, *, first: int, events: Sequence[bytes]
) -> list[Write]:
    """Return what adds ``events``, from number ``first`` on, to the copy of a segment."""
    epoch = decode_segment(segment.header).epoch
    log = copy_log(charter, epoch)
    begins = [] if first else [Append(log, 0, segment.header)]
    grows = [Append(log, first + 1 + n, body) for n, body in enumerate(events)]
    return [*begins, *grows, Put(HEADS, _key(charter, epoch), segment.head)]


async def drop(context: Context, charter: bytes, epoch: int) -> None:
    """Forget the copy of a segment: others went on from before it, or the job is over.

    Raises:
        StoreError: The disk refused; asked again, it goes on.
    """
    await context.store.drop_log(copy_log(charter, epoch))
    await context.store.commit(Delete(HEADS, _key(charter, epoch)))


async def copied(context: Context) -> dict[bytes, list[int]]:
    """Return the epochs of which there are copies, by charter.

    Raises:
        StoreError: The disk refused.
    """
    found: dict[bytes, list[int]] = {}
    for key, _ in await context.store.scan(HEADS, count_max=_SWEPT_MAX):
        charter, _, epoch = key.partition("/")
        found.setdefault(bytes.fromhex(charter), []).append(int(epoch))
    return found


async def job_of(context: Context, charter: bytes, epoch: int) -> str:
    """Return the job whose segment is copied there, or nothing if its header is gone.

    Raises:
        StoreError: The disk refused.
    """
    entries = await context.store.log(copy_log(charter, epoch))
    return decode_segment(entries[0]).job if entries else ""
