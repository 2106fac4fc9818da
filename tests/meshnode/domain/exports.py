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
    header = encode_segment(
        Segment(
            job=job,
            network=NETWORK,
            epoch=0,
            writer=writer or pen.identity.peer,
            charter=b"",
            parent=b"",
            opened_ms=START_MS,
        )
    )
    head = Head(
        job=job,
        epoch=0,
        count=len(events),
        chain=chain_of(header, events),
        at_ms=START_MS,
        state=state,
    )
    envelope = sign_head(pen.identity, NETWORK, head)
    return export([SegmentExport(header, list(events), envelope)])
