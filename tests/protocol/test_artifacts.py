"""The three messages of a fetch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import artifacts, codec, limits
from protocol.artifacts import Fetch, Found, NotHeld, decode_message, encode_message, not_held
from protocol.errors import ErrorCode, Malformed, RemoteProtocolError, TooLarge
from protocol.framing import FrameReader
from tests.protocol.samples import examples, mutated

MESSAGES: list[artifacts.ArtifactMessage] = [
    Fetch(b"ticket", bytes(32), 7),
    Found(limits.ARTIFACT_SIZE_MAX),
    NotHeld(ErrorCode.NOT_FOUND, "not here"),
]


def body(framed: bytes) -> bytes:
    """What is in the one frame ``framed``."""
    (only,) = FrameReader().feed(framed)
    return only


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_comes_back(message: artifacts.ArtifactMessage) -> None:
    assert decode_message(body(encode_message(message))) == message


@examples(300)
@given(
    st.binary(max_size=100)
    | st.sampled_from([codec.encode(message) for message in MESSAGES]).flatmap(mutated)
)
def test_any_bytes_are_a_message_or_blame_the_peer(data: bytes) -> None:
    try:
        message = decode_message(data)
    except RemoteProtocolError:
        return
    assert decode_message(codec.encode(message)) == message


def test_elements_of_a_later_version_are_passed_over() -> None:
    assert decode_message(codec.encode([1, 5, "later"])) == Found(5)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [3],
        [0, b"", bytes(31), 0],
        [0, b"", bytes(33), 0],
        [0, b"", bytes(32), -1],
        [0, b"", bytes(32)],
        [1, -1],
        [1],
        [2, 1],
        [2, "x", "y"],
        {"size": 1},
        1,
    ],
)
def test_what_is_no_message_is_refused(value: codec.Value) -> None:
    with pytest.raises(Malformed):
        decode_message(codec.encode(value))


def test_an_artifact_over_the_limit_is_refused_before_its_bytes_come() -> None:
    decode_message(codec.encode([1, limits.ARTIFACT_SIZE_MAX]))
    with pytest.raises(TooLarge):
        decode_message(codec.encode([1, limits.ARTIFACT_SIZE_MAX + 1]))


def test_a_refusal_is_cut_to_what_a_person_reads() -> None:
    message = decode_message(body(not_held(ErrorCode.NOT_FOUND, "x" * 10_000)))
    assert message == NotHeld(ErrorCode.NOT_FOUND, "x" * 500)
