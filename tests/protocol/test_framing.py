"""Frames come out whole, however the stream is cut; a bad length ends it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, TooLarge
from protocol.framing import FrameReader, frame
from protocol.limits import FRAME_SIZE_MAX
from tests.protocol.samples import examples


@examples(200)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, bodies))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    reader = FrameReader()
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == bodies
    assert reader.pending_bytes == 0


@examples(200)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_give_frames_or_blame_the_peer(pieces: list[bytes]) -> None:
    reader = FrameReader(size_max=64)
    got: list[bytes] = []
    try:
        for piece in pieces:
            got += reader.feed(piece)
    except RemoteProtocolError:
        with pytest.raises(Malformed):
            reader.feed(frame(b"x"))  # the stream's boundaries are lost
        return
    stream = b"".join(pieces)
    assert b"".join(frame(body) for body in got) == stream[: len(stream) - reader.pending_bytes]


def test_a_frame_of_the_limit_passes_and_one_byte_more_is_refused_by_its_header() -> None:
    assert FrameReader().feed(frame(bytes(FRAME_SIZE_MAX))) == [bytes(FRAME_SIZE_MAX)]
    with pytest.raises(TooLarge) as caught:
        FrameReader().feed((FRAME_SIZE_MAX + 1).to_bytes(4, "big"))
    assert (caught.value.size, caught.value.limit) == (FRAME_SIZE_MAX + 1, FRAME_SIZE_MAX)
    with pytest.raises(LocalProtocolError):
        frame(bytes(FRAME_SIZE_MAX + 1))


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(Malformed):
        FrameReader().feed(bytes(4))
    with pytest.raises(LocalProtocolError):
        frame(b"")


def test_a_frame_that_has_begun_is_told() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"abc")[:5]) == []
    assert reader.pending_bytes == 5
