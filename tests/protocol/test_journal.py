"""An exported journal reads whole or not at all: no byte of it can be other."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, journal, limits
from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    OutOfTurn,
    RemoteProtocolError,
    Stale,
    TooLarge,
    UnknownType,
)
from protocol.framing import FrameReader, frame
from protocol.journal import (
    MAGIC,
    Event,
    Head,
    SegmentExport,
    chain_next,
    chain_of,
    chain_start,
    decode_event,
    decode_segment,
    encode_event,
    encode_segment,
    export,
    read_export,
    read_head,
    sign_head,
    wrap_event,
)
from protocol.keys import digest
from protocol.signing import peek, seal
from tests.protocol import samples
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    changed,
    examples,
    mutated,
)

SMALL = export(samples.journal(2))
TWO = export(samples.journal(2, 1))


def refused(data: bytes) -> None:
    """Prove that ``data`` is no journal."""
    with pytest.raises(RemoteProtocolError):
        read_export(data)


def bodies(data: bytes) -> list[bytes]:
    """The entries of an export, undecoded."""
    return FrameReader().feed(data[len(MAGIC) :])


def joined(entries: list[bytes]) -> bytes:
    """An export of ``entries``."""
    return MAGIC + b"".join(map(frame, entries))


@examples(30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_a_whole_journal_reads(counts: list[int]) -> None:
    read = read_export(export(samples.journal(*counts)))
    assert [len(segment.events) for segment in read] == counts
    seqs = [event.seq for segment in read for event in segment.events]
    assert seqs == list(range(sum(counts)))
    assert [segment.head.state for segment in read] == [""] * (len(counts) - 1) + ["completed"]


@examples(300)
@given(
    st.binary(max_size=200) | st.binary(max_size=200).map(lambda b: MAGIC + b) | mutated(TWO)
)
def test_any_other_bytes_are_refused(data: bytes) -> None:
    if data != TWO:
        refused(data)


def test_every_single_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(SMALL)):
        data = bytearray(SMALL)
        data[bit // 8] ^= 1 << bit % 8
        refused(bytes(data))


@pytest.mark.parametrize("data", [SMALL, TWO], ids=["one segment", "two segments"])
def test_every_changed_missing_or_added_byte_is_refused(data: bytes) -> None:
    for at in range(len(data)):
        refused(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        refused(data[:at] + data[at + 1 :])
        refused(data[:at] + b"\0" + data[at:])
        refused(data[:at] + data[at : at + 1] + data[at:])
    refused(data + b"\0")


@pytest.mark.parametrize("data", [SMALL, TWO], ids=["one segment", "two segments"])
def test_every_truncation_is_refused(data: bytes) -> None:
    for size in range(len(data)):
        refused(data[:size])


def test_any_two_entries_swapped_one_left_out_or_one_repeated_is_refused() -> None:
    entries = bodies(TWO)
    for a in range(len(entries)):
        refused(joined(entries[:a] + entries[a + 1 :]))
        refused(joined(entries[: a + 1] + entries[a:]))
        for b in range(a):
            other = list(entries)
            other[a], other[b] = other[b], other[a]
            refused(joined(other))


def test_two_segments_swapped_are_refused() -> None:
    refused(export(list(reversed(samples.journal(2, 1)))))


def test_an_entry_with_an_element_more_is_refused() -> None:
    # No signature covers an entry's own array.
    entries = bodies(SMALL)
    for at, entry in enumerate(entries):
        value = codec.decode(entry)
        assert isinstance(value, list)
        longer = codec.encode([*value, None])
        refused(joined([*entries[:at], longer, *entries[at + 1 :]]))


def test_a_field_added_to_the_last_head_is_refused() -> None:
    *before, last = samples.journal(2)
    fields = codec.decode(last.head)
    assert isinstance(fields, dict)
    refused(export([*before, replace(last, head=codec.encode(fields | {"z": 0}))]))


def test_heads_of_two_journals_do_not_mix() -> None:
    one = samples.journal(2)[0]
    other = samples.segment(samples.events(0, 2), state="completed", opened_ms=NOW_MS + 1)
    read_export(export([other]))
    refused(export([replace(one, head=other.head)]))


def test_an_unfinished_journal_is_told_from_a_finished_one() -> None:
    going_on = samples.segment(samples.events(0, 2))
    with pytest.raises(Malformed, match="goes on"):
        read_export(export([going_on]))
    with pytest.raises(Malformed):
        read_export(MAGIC)


def test_nothing_follows_a_terminal_head() -> None:
    (finished,) = samples.journal(1)
    more = samples.segment(
        samples.events(1, 1), epoch=2, parent=digest(finished.head), state="failed"
    )
    with pytest.raises(OutOfTurn):
        read_export(export([finished, more]))


def following(**fields: Any) -> bytes:
    """A journal whose second segment has other ``fields``."""
    first = samples.segment(samples.events(0, 1))
    valid: dict[str, Any] = {"epoch": 2, "parent": digest(first.head)}
    second = samples.segment(samples.events(1, 1), state="completed", **valid | fields)
    return export([first, second])


def test_a_later_segment_follows_the_one_before() -> None:
    read_export(following())
    for epoch in (0, 1):
        with pytest.raises(Stale):
            read_export(following(epoch=epoch))
    for wrong in (
        {"parent": b""},
        {"parent": bytes(32)},
        {"job": "job-2"},
        {"network": "other"},
    ):
        with pytest.raises(Malformed):
            read_export(following(**wrong))


def test_the_first_segment_follows_nothing() -> None:
    lost_its_start = samples.segment(samples.events(0, 1), state="completed", parent=bytes(32))
    with pytest.raises(Malformed):
        read_export(export([lost_its_start]))


def test_events_count_on_across_segments_without_events() -> None:
    assert len(read_export(export(samples.journal(2, 0, 1)))) == 3
    first = samples.segment(samples.events(0, 1))
    again = samples.segment(
        samples.events(0, 1), state="completed", epoch=2, parent=digest(first.head)
    )
    with pytest.raises(Malformed, match="stands where"):
        read_export(export([first, again]))


def test_a_journal_that_starts_late_is_refused() -> None:
    with pytest.raises(Malformed):
        read_export(export([samples.segment(samples.events(1, 1), state="completed")]))


# --- heads ---

SEGMENT = decode_segment(samples.segment([]).header)


def head(**fields: Any) -> Head:
    """A head of the segment above."""
    valid = Head(job="job-1", epoch=1, count=0, chain=bytes(32), at_ms=NOW_MS)
    made: Head = changed(valid, **fields)
    return made


def test_a_head_is_its_writers() -> None:
    assert read_head(sign_head(BROKER, NETWORK, head()), SEGMENT) == head()
    with pytest.raises(BadSignature):
        read_head(sign_head(CONTRACTOR, NETWORK, head()), SEGMENT)


@pytest.mark.parametrize("fields", [{"job": "job-2"}, {"epoch": 2}])
def test_a_head_of_another_job_or_epoch_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read_head(sign_head(BROKER, NETWORK, head(**fields)), SEGMENT)


def test_a_head_of_another_network_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        read_head(sign_head(BROKER, "other", head()), SEGMENT)


def test_a_terminal_head_is_signed_as_such() -> None:
    ended = sign_head(BROKER, NETWORK, head(state="completed"))
    assert peek(ended).t == journal.END
    assert read_head(ended, SEGMENT).state == "completed"
    # Signed under the other type, neither passes.
    for kind, state in ((journal.HEAD, "completed"), (journal.END, "")):
        wrong = seal(BROKER, kind, NETWORK, codec.encode(head(state=state)))
        with pytest.raises(Malformed):
            read_head(wrong, SEGMENT)
    renamed = codec.encode(changed(peek(ended), t=journal.HEAD))
    with pytest.raises(BadSignature):
        read_head(renamed, SEGMENT)


def test_another_signed_thing_is_no_head() -> None:
    with pytest.raises((Malformed, UnknownType)):
        read_head(seal(BROKER, "award", NETWORK, codec.encode(head())), SEGMENT)


# --- chain, events, limits ---


def test_the_chain_takes_in_the_header_and_each_event_in_order() -> None:
    one, two = samples.events(0, 2)
    expected = digest(digest(digest(b"meshnode/1/journal\0" + b"header") + one) + two)
    assert chain_of(b"header", [one, two]) == expected
    assert chain_next(chain_next(chain_start(b"header"), one), two) == expected
    assert chain_of(b"header", [two, one]) != expected
    assert chain_of(b"other", [one, two]) != expected


@examples(100)
@given(st.binary(max_size=100) | mutated(samples.events(0, 1)[0]))
def test_any_bytes_are_an_event_or_blame_the_peer(body: bytes) -> None:
    try:
        event = decode_event(body)
    except RemoteProtocolError:
        return
    assert decode_event(encode_event(event)) == event


@examples(100)
@given(st.binary(max_size=100) | mutated(samples.segment([]).header))
def test_any_bytes_are_a_segment_or_blame_the_peer(body: bytes) -> None:
    try:
        opened = decode_segment(body)
    except RemoteProtocolError:
        return
    assert decode_segment(encode_segment(opened)) == opened


def test_a_version_that_this_node_does_not_know_is_refused() -> None:
    event = Event(seq=0, at_ms=NOW_MS, kind="planned", data={}, v=2)
    with pytest.raises(Malformed, match="version 2"):
        decode_event(encode_event(event))
    with pytest.raises(Malformed, match="version 2"):
        decode_segment(encode_segment(changed(SEGMENT, v=2)))


def test_the_largest_event_fits_an_entry_and_one_byte_more_is_refused() -> None:
    def sized(extra: int) -> Event:
        return Event(seq=0, at_ms=NOW_MS, kind="planned", data={"x": bytes(extra)})

    room = limits.EVENT_SIZE_MAX - len(encode_event(sized(70_000))) + 70_000
    body = encode_event(sized(room))
    assert len(body) == limits.EVENT_SIZE_MAX
    read_export(export([samples.segment([body], state="completed")]))
    with pytest.raises(LocalProtocolError):
        encode_event(sized(room + 1))
    with pytest.raises(TooLarge):
        decode_event(codec.encode(sized(room + 1)))


class _Note(msgspec.Struct, frozen=True):
    """What a kind of event holds."""

    b: int
    a: list[str]
    raw: bytes = b""


@given(st.integers(0, 2**53), st.lists(st.text(max_size=5), max_size=5), st.binary(max_size=20))
def test_an_event_wrapped_is_the_event_encoded(b: int, a: list[str], raw: bytes) -> None:
    event = Event(seq=3, at_ms=NOW_MS, kind="note", data={"a": a, "b": b, "raw": raw})
    body = wrap_event("note", _Note(b, a, raw), seq=3, at_ms=NOW_MS)
    assert body == encode_event(event)
    assert decode_event(body) == event


def test_what_is_wrapped_keeps_to_its_type_and_to_the_limits() -> None:
    broken: Any = "three"
    with pytest.raises(LocalProtocolError, match="our own event"):
        wrap_event("note", _Note(broken, []), seq=0, at_ms=NOW_MS)
    with pytest.raises(LocalProtocolError):
        wrap_event("note", _Note(1, [], bytes(limits.EVENT_SIZE_MAX)), seq=0, at_ms=NOW_MS)
    fits = limits.NODES_MAX - 30
    decode_event(wrap_event("note", _Note(1, [""] * fits), seq=0, at_ms=NOW_MS))
    with pytest.raises(LocalProtocolError):  # not by itself, but with what is around it
        wrap_event("note", _Note(1, [""] * (limits.NODES_MAX - 8)), seq=0, at_ms=NOW_MS)


def test_the_limit_of_segments_passes_and_one_more_is_refused() -> None:
    read_export(export(samples.journal(*[0] * limits.SEGMENTS_MAX)))
    with pytest.raises(Malformed, match="segments"):
        read_export(export(samples.journal(*[0] * (limits.SEGMENTS_MAX + 1))))


def test_the_limit_of_events_passes_and_one_more_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 100,000 events take a minute to write and read; the check is the same for ten.
    monkeypatch.setattr(limits, "EVENTS_MAX", 10)
    read_export(export(samples.journal(10)))
    with pytest.raises(Malformed, match="events"):
        read_export(export(samples.journal(11)))


def test_an_export_is_nothing_but_magic_and_framed_entries() -> None:
    one = samples.segment(samples.events(0, 1), state="completed")
    entries = [(0, one.header), (1, one.events[0]), (2, one.head)]
    expected = MAGIC + b"".join(frame(codec.encode(list(entry))) for entry in entries)
    assert export([SegmentExport(one.header, one.events, one.head)]) == expected
