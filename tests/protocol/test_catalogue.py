"""Neighbours compare, pull and push; what they send is bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.catalogue import (
    HAVE_MAX,
    RECORDS_BYTES_MAX,
    RECORDS_MAX,
    Digest,
    Pull,
    Push,
    read,
    summary,
)
from protocol.errors import Malformed, RemoteProtocolError
from protocol.limits import FRAME_SIZE_MAX, NUMBER_MAX, RECORD_SIZE_MAX
from protocol.session_frames import Request, encode_frame
from tests.protocol.samples import BROKER, examples, mutated

SAMPLES: list[Any] = [
    Digest(count=1, hash=bytes(32)),
    Pull(have={BROKER.peer: 7}),
    Push(records=[b"envelope"], more=True),
]


@pytest.mark.parametrize("message", SAMPLES)
def test_a_message_comes_back(message: Any) -> None:
    assert read(codec.encode(message), type(message)) == message


@pytest.mark.parametrize("message", SAMPLES)
@examples(100)
@given(data=st.data())
def test_any_bytes_are_a_message_or_blame_the_peer(
    message: Any,
    data: st.DataObject,
) -> None:
    body = data.draw(st.binary(max_size=100) | mutated(codec.encode(message)))
    try:
        got = read(body, type(message))
    except RemoteProtocolError:
        return
    assert read(codec.encode(got), type(message)) == got


def test_limits_of_a_push_and_a_pull() -> None:
    read(codec.encode(Push(records=[b""] * RECORDS_MAX)), Push)
    with pytest.raises(Malformed):
        read(codec.encode(Push(records=[b""] * (RECORDS_MAX + 1))), Push)
    read(codec.encode({"have": {f"{n:052}": NUMBER_MAX for n in range(HAVE_MAX)}}), Pull)
    with pytest.raises(Malformed):
        read(codec.encode({"have": {f"{n}": 1 for n in range(HAVE_MAX + 1)}}), Pull)


def test_the_largest_messages_fit_a_request() -> None:
    pull = codec.encode(Pull(have={f"{n:052}": NUMBER_MAX for n in range(HAVE_MAX)}))
    encode_frame(Request(2**63, "catalogue.pull", 5_000, 16, "0" * 55, pull))
    one = RECORDS_BYTES_MAX // RECORDS_MAX
    push = codec.encode(Push(records=[bytes(one)] * RECORDS_MAX))
    encode_frame(Request(2**63, "catalogue.push", 5_000, 16, "0" * 55, push))
    assert RECORD_SIZE_MAX < RECORDS_BYTES_MAX < FRAME_SIZE_MAX


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Digest, {"count": -1, "hash": bytes(32)}),
        (Digest, {"count": 1, "hash": bytes(31)}),
        (Pull, {"have": {"a": -1}}),
        (Pull, {"have": {"a": "1"}}),
        (Pull, {"have": []}),
        (Push, {"records": ["text"]}),
        (Push, {"more": False}),
    ],
)
def test_what_is_no_message_is_refused(kind: type[Any], fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read(codec.encode(fields), kind)


catalogues = st.dictionaries(
    st.text("123456789ABCabc", min_size=1, max_size=8), st.integers(0, 20), max_size=8
)


@examples(200)
@given(catalogues, catalogues)
def test_equal_catalogues_have_equal_digests_and_no_others(
    mine: dict[str, int], theirs: dict[str, int]
) -> None:
    shuffled = dict(reversed(mine.items()))
    assert summary(mine) == summary(shuffled)
    assert (summary(mine) == summary(theirs)) == (mine == theirs)


def test_a_catalogue_larger_than_any_frame_has_a_digest() -> None:
    assert summary({f"{n:052}": n for n in range(20_000)}).count == 20_000
