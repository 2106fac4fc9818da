"""A job's journal on the wire and at rest: an append-only, hash-chained, signed log.

A segment has one writer and one epoch.  Its chain begins with the hash of the
segment's header and takes in each event's bytes; a *head* signs count and chain
(once per group commit), and the last head of a finished job is *terminal*: it
signs the final state too.  A later segment's header binds the head that it follows.

The exported form is the whole journal as bytes that can be checked offline and that
refuse every missing, added or changed byte: a magic line, then framed entries.
It proves authorship, order and integrity, not truth.

Specified in protocol/spec/80-journal.md; vectors in protocol/vectors/journal.json.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from protocol import limits
from protocol.codec import Count, Hash, decode_as, encode
from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    OutOfTurn,
    Stale,
    TooLarge,
)
from protocol.framing import FrameReader, frame
from protocol.keys import Identity, digest
from protocol.signing import peek, seal, unseal

MAGIC: Final = b"meshnode journal 1\n"
HEAD: Final = "journal.head"
END: Final = "journal.end"

_DOMAIN: Final = b"meshnode/1/journal\0"
_ENTRY_MAX: Final = limits.FRAME_SIZE_MAX

#: First element of an exported entry.
_HEADER_ENTRY: Final = 0
_EVENT_ENTRY: Final = 1
_HEAD_ENTRY: Final = 2


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The header of one writer's run of events.

    Attributes:
        job: Job id.
        network: Network id.
        epoch: Counts the job's brokers.
        writer: PeerId of the only writer.
        charter: Hash of the owner's charter, or empty when the writer is the owner.
        parent: Hash of the last head envelope of the segment before, or empty.
        opened_ms: Unix time.
        v: Version of events and header.
    """

    job: str
    network: str
    epoch: Count
    writer: str
    charter: bytes
    parent: bytes
    opened_ms: Count
    v: int = 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to the job.

    Attributes:
        seq: Position in the job, 0 first; goes on across segments.
        at_ms: Unix time by the writer's clock.
        kind: Such as ``awarded``; 80-journal.md lists them.
        data: What the kind says it holds.
        v: Version of this event's shape.
    """

    seq: Count
    at_ms: Count
    kind: str
    data: dict[str, Any]
    v: int = 1


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a head signs.

    Attributes:
        job: Job id.
        epoch: Of the segment.
        count: Events in the segment so far.
        chain: The chain after them.
        at_ms: Unix time.
        state: Empty, or in a terminal head ``completed``, ``failed`` or ``cancelled``.
    """

    job: str
    epoch: Count
    count: Count
    chain: Hash
    at_ms: Count
    state: str = ""


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """No signature covers an entry's own array, so nothing may be added to it."""

    kind: int
    body: bytes


_SEGMENT_DECODER: Final = msgspec.msgpack.Decoder(Segment)
_EVENT_DECODER: Final = msgspec.msgpack.Decoder(Event)
_ENCODER: Final = msgspec.msgpack.Encoder(order="sorted")
_HEAD_DECODER: Final = msgspec.msgpack.Decoder(Head)
_ENTRY_DECODER: Final = msgspec.msgpack.Decoder(_Entry)


def encode_event(event: Event) -> bytes:
    """Return the canonical bytes of ``event``.

    Raises:
        LocalProtocolError: Over :data:`~protocol.limits.EVENT_SIZE_MAX`: put what is
            large into an artifact.
    """
    body = encode(event)
    if len(body) > limits.EVENT_SIZE_MAX:
        raise LocalProtocolError(f"an event of {len(body)} bytes, kind {event.kind!r}")
    return body


class _Wrapped(msgspec.Struct, frozen=True, kw_only=True):
    """An :class:`Event` whose data is encoded already."""

    seq: Count
    at_ms: Count
    kind: str
    data: msgspec.Raw
    v: int = 1


def wrap_event(kind: str, data: msgspec.Struct, *, seq: int, at_ms: int) -> bytes:
    """Return the bytes of the event that holds ``data``; the same as :func:`encode_event`.

    What stands in an event may be anything, so an event has to be walked to be proved
    canonical; a struct of plain types need not be.

    Raises:
        LocalProtocolError: As :func:`encode_event`; or ``data`` isn't what its type says.
    """
    raw = msgspec.Raw(encode(data))
    try:
        msgspec.msgpack.decode(raw, type=type(data))  # constructors don't look
    except msgspec.ValidationError as exc:
        raise LocalProtocolError(f"our own event {kind!r}: {exc}") from exc
    body = _ENCODER.encode(_Wrapped(seq=seq, at_ms=at_ms, kind=kind, data=raw))
    if len(body) > limits.NODES_MAX:  # with the wrapping it may hold a value too many
        return encode_event(_EVENT_DECODER.decode(body))
    return body


def decode_event(body: bytes) -> Event:
    """Return the event in ``body``.

    Raises:
        TooLarge: Over :data:`~protocol.limits.EVENT_SIZE_MAX`.
        Malformed: Not one, or of a version that this node doesn't know.
    """
    if len(body) > limits.EVENT_SIZE_MAX:
        raise TooLarge(len(body), limits.EVENT_SIZE_MAX)
    event = decode_as(body, _EVENT_DECODER)
    if event.v != 1:
        raise Malformed(f"an event of version {event.v}; this node reads version 1")
    return event


def encode_segment(segment: Segment) -> bytes:
    """Return the canonical bytes of a segment's header."""
    return encode(segment)


def decode_segment(body: bytes) -> Segment:
    """Return the segment header in ``body``."""
    segment = decode_as(body, _SEGMENT_DECODER)
    if segment.v != 1:
        raise Malformed(f"a segment of version {segment.v}; this node reads version 1")
    return segment


def chain_start(header: bytes) -> bytes:
    """Return the chain of a segment without events."""
    return digest(_DOMAIN + header)


def chain_next(chain: bytes, event: bytes) -> bytes:
    """Return the chain after the encoded ``event``."""
    return digest(chain + event)


def chain_of(header: bytes, events: Iterable[bytes]) -> bytes:
    """Return the chain of a segment with ``events``."""
    chain = chain_start(header)
    for event in events:
        chain = chain_next(chain, event)
    return chain


def sign_head(identity: Identity, network: str, head: Head) -> bytes:
    """Return the signed head; terminal when it has a state."""
    return seal(identity, END if head.state else HEAD, network, encode(head))


def read_head(envelope: bytes, segment: Segment) -> Head:
    """Return the head that the writer of ``segment`` signed.

    Raises:
        RemoteProtocolError: Not the writer's, or of another job or epoch.
    """
    kind = peek(envelope).t
    if kind not in {HEAD, END}:
        raise Malformed("not a journal's head")
    parts = unseal(envelope, kind=kind, network=segment.network)
    head = decode_as(parts.p, _HEAD_DECODER)
    if parts.i != segment.writer:
        raise BadSignature("a head is signed by the segment's writer")
    if (head.job, head.epoch) != (segment.job, segment.epoch):
        raise Malformed("a head of another job or epoch")
    if (kind == END) != bool(head.state):
        raise Malformed("a terminal head has a state, another has none")
    return head


@dataclass(frozen=True, slots=True)
class SegmentExport:
    """One segment with its last head, all as the bytes that were written."""

    header: bytes
    events: Sequence[bytes]
    head: bytes


@dataclass(frozen=True, slots=True)
class ReadSegment:
    """A segment whose chain and head hold."""

    header: Segment
    events: Sequence[Event]
    head: Head


def export(segments: Sequence[SegmentExport]) -> bytes:
    """Return a journal in its exported form."""
    out = [MAGIC]
    for segment in segments:
        out.append(frame(encode_entry(_HEADER_ENTRY, segment.header), size_max=_ENTRY_MAX))
        out += [
            frame(encode_entry(_EVENT_ENTRY, event), size_max=_ENTRY_MAX)
            for event in segment.events
        ]
        out.append(frame(encode_entry(_HEAD_ENTRY, segment.head), size_max=_ENTRY_MAX))
    return b"".join(out)


def encode_entry(kind: int, body: bytes) -> bytes:
    """Return one entry of the exported form, without its frame."""
    return encode(_Entry(kind, body))


def read_export(data: bytes) -> list[ReadSegment]:
    """Return the segments of a finished job's exported journal, every link proved.

    Raises:
        Malformed: Cut short, added to, out of order, or a link doesn't hold; says where.
        RemoteProtocolError: A signature doesn't hold, or a limit is passed.
    """
    if not data.startswith(MAGIC):
        raise Malformed("not a meshnode journal: it begins otherwise")
    reader = FrameReader(size_max=_ENTRY_MAX)
    entries = [decode_as(body, _ENTRY_DECODER) for body in reader.feed(data[len(MAGIC) :])]
    if reader.pending_bytes:
        raise Malformed(f"cut short, or {reader.pending_bytes} bytes added at its end")
    segments: list[ReadSegment] = []
    parent = b""
    at = 0
    while at < len(entries):
        at, parent = _read_segment(entries, at, parent, segments)
    if not segments or not segments[-1].head.state:
        raise Malformed("it doesn't end in a terminal head: cut short, or the job goes on")
    return segments


def _read_segment(
    entries: Sequence[_Entry], at: int, parent: bytes, segments: list[ReadSegment]
) -> tuple[int, bytes]:
    """Read one segment from entry ``at`` on; return where it ends and its head's hash."""
    if entries[at].kind != _HEADER_ENTRY:
        raise Malformed(f"entry {at} should open a segment")
    header = entries[at].body
    segment = decode_segment(header)
    _check_follows(segment, parent, segments)
    first = sum(len(before.events) for before in segments)
    chain = chain_start(header)
    events: list[Event] = []
    for place in range(at + 1, len(entries)):
        entry = entries[place]
        if entry.kind == _HEAD_ENTRY:
            head = read_head(entry.body, segment)
            if (head.count, head.chain) != (len(events), chain):
                raise Malformed(f"the head at entry {place} signs other events than these")
            if segments and segments[-1].head.state:
                raise OutOfTurn("a segment", "finished")
            segments.append(ReadSegment(segment, events, head))
            return place + 1, digest(entry.body)
        if entry.kind != _EVENT_ENTRY:
            raise Malformed(f"entry {place} is neither event nor head")
        if len(events) >= limits.EVENTS_MAX:
            raise Malformed(f"a segment of more than {limits.EVENTS_MAX} events")
        event = decode_event(entry.body)
        if event.seq != first + len(events):
            raise Malformed(f"event {event.seq} stands where {first + len(events)} should")
        events.append(event)
        chain = chain_next(chain, entry.body)
    raise Malformed("cut short: the last segment has no head")


def _check_follows(segment: Segment, parent: bytes, segments: Sequence[ReadSegment]) -> None:
    if segment.parent != parent:
        raise Malformed("a segment follows another head than the one before it")
    if not segments:
        return
    before = segments[-1].header
    if (segment.job, segment.network) != (before.job, before.network):
        raise Malformed("a segment of another job")
    if segment.epoch <= before.epoch:
        raise Stale(f"epoch {segment.epoch} does not follow {before.epoch}")
    if len(segments) >= limits.SEGMENTS_MAX:
        raise Malformed(f"a journal of more than {limits.SEGMENTS_MAX} segments")
