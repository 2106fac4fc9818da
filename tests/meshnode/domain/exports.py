"""Journals under a signature, whatever their events say."""

from collections.abc import Sequence

from protocol.journal import (
    Head,
    Segment,
    SegmentExport,
    chain_of,
    encode_segment,
    export,
    sign_head,
)
from tests.meshnode.domain.contractors import NETWORK, Pen

START_MS = 1_800_000_000_000


def signed_export(
    pen: Pen, job: str, events: Sequence[bytes], state: str, *, writer: str = ""
) -> bytes:
    """``events`` as one segment under the signature of ``pen``, whatever they say."""
    return export([signed_segment(pen, job, events, state, writer=writer)])


def signed_segment(
    pen: Pen,
    job: str,
    events: Sequence[bytes],
    state: str = "",
    *,
    writer: str = "",
    epoch: int = 0,
    charter: bytes = b"",
    parent: bytes = b"",
) -> SegmentExport:
    """One segment of a journal under the signature of ``pen``, whatever it says."""
    header = encode_segment(
        Segment(
            job=job,
            network=NETWORK,
            epoch=epoch,
            writer=writer or pen.identity.peer,
            charter=charter,
            parent=parent,
            opened_ms=START_MS,
        )
    )
    head = Head(
        job=job,
        epoch=epoch,
        count=len(events),
        chain=chain_of(header, events),
        at_ms=START_MS,
        state=state,
    )
    return SegmentExport(header, list(events), sign_head(pen.identity, NETWORK, head))
