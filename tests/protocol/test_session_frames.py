"""Session frames: any bytes are one of eleven, or blame the peer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import Malformed, RemoteProtocolError, TooLarge, UnknownType
from protocol.framing import FrameReader
from protocol.session_frames import (
    CancelRequest,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Item,
    Ping,
    Pong,
    Reply,
    Request,
    SessionFrame,
    Welcome,
    decode_frame,
    encode_frame,
)
from tests.protocol.samples import NETWORK, NOW_MS, examples, mutated

FRAMES: list[SessionFrame] = [
    Hello(NETWORK, [1], ["relay"], NOW_MS),
    Welcome(1, [], NOW_MS, NOW_MS),
    Ping(NOW_MS),
    Pong(NOW_MS, NOW_MS),
    Request(1, "contract.award", 5_000, 16, "", b"body"),
    Item(1, b"piece"),
    Reply(1, b"done"),
    Failure(1, 11, "busy", 1_000),
    CancelRequest(1),
    Credit(1, 16),
    Goodbye(0, "leaving"),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back(frame: SessionFrame) -> None:
    (body,) = FrameReader().feed(encode_frame(frame))
    assert decode_frame(body) == frame


def test_frames_are_numbered_from_nought() -> None:
    numbers = [codec.decode(codec.encode(frame)) for frame in FRAMES]
    assert [number[0] for number in numbers if isinstance(number, list)] == list(range(11))


@examples(300)
@given(
    st.binary(max_size=60)
    | st.sampled_from([codec.encode(frame) for frame in FRAMES]).flatmap(mutated)
)
def test_any_bytes_are_a_frame_or_blame_the_peer(body: bytes) -> None:
    try:
        frame = decode_frame(body)
    except RemoteProtocolError:
        return
    codec.scan(body)
    assert decode_frame(codec.encode(frame)) == frame


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_elements_of_a_later_version_are_passed_over_and_missing_ones_refused(
    frame: SessionFrame,
) -> None:
    value = codec.decode(codec.encode(frame))
    assert isinstance(value, list)
    assert decode_frame(codec.encode([*value, {"later": 1}])) == frame
    with pytest.raises(Malformed):
        decode_frame(codec.encode(value[:-1]))


@pytest.mark.parametrize("body", [[11], [11, 1, 2], [127, "x"]])
def test_a_type_of_a_later_version_is_refused_as_such(body: codec.Value) -> None:
    with pytest.raises(UnknownType):
        decode_frame(codec.encode(body))


@pytest.mark.parametrize(
    "body", [[], [-1], [128], ["0"], [None], {"0": 1}, 0x0B0B, "\x0b\x0b", b"\x0b", None]
)
def test_what_is_no_frame_at_all_is_malformed(body: codec.Value) -> None:
    with pytest.raises(Malformed):
        decode_frame(codec.encode(body))


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge):
        decode_frame(b"\xc6" + bytes(limits.FRAME_SIZE_MAX))
