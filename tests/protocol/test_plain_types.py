"""What needs no walk to be proved canonical is canonical all the same."""

from collections.abc import Hashable
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain import facts
from protocol import codec, limits, messages
from protocol.codec import Count
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, TooLarge
from protocol.plain_types import is_plain
from protocol.signing import Envelope
from tests.protocol.samples import examples, mutated


class Inner(msgspec.Struct, frozen=True):
    z: Count = 0
    a: str | None = None


class Outer(msgspec.Struct, frozen=True):
    word: Literal["one", "two"]
    many: dict[str, Inner]
    list: list[int]
    raw: bytes = b""


class Row(msgspec.Struct, frozen=True, array_like=True):
    left: bytes
    right: bytes


class Numbered(msgspec.Struct, frozen=True, array_like=True, tag=3):
    left: bytes


class Tagged(msgspec.Struct, frozen=True, tag=3):
    left: bytes


class Nested(msgspec.Struct, frozen=True):
    inner: "Nested | None" = None


OUTER = msgspec.msgpack.Decoder(Outer)
counts = st.integers(0, limits.NUMBER_MAX)
outers = st.builds(
    Outer,
    word=st.sampled_from(["one", "two"]),
    many=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.builds(Inner, z=counts, a=st.none() | st.text("añ☃𐍈", max_size=4)),
        max_size=5,
    ),
    list=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    raw=st.binary(max_size=8),
)


@examples(500)
@given(outers)
def test_what_is_written_without_a_walk_passes_it(value: Outer) -> None:
    frame = codec.encode(value)
    codec.scan(frame)
    assert codec.decode_as(frame, OUTER) == value


@examples(1500)
@given(outers.map(codec.encode).flatmap(mutated))
def test_what_is_read_without_a_walk_passes_it(frame: bytes) -> None:
    try:
        codec.decode_as(frame, OUTER)
    except RemoteProtocolError:
        return
    codec.scan(frame)


@pytest.mark.parametrize(
    "frame",
    [
        "84a46c69737490a46d616e7980a372617780a4776f7264a36f6e65",  # an empty map for bytes
        "84a46c69737491cc05a46d616e7980a3726177c400a4776f7264a36f6e65",  # a longer integer
        "84a46d616e7980a46c69737490a3726177c400a4776f7264a36f6e65",  # keys out of order
        "85a46c69737490a46d616e7980a3726177c400a3726177c400a4776f7264a36f6e65",  # one twice
        "84a46c69737490a46d616e7980a3726177c400a4776f7264a36f6e65c0",  # something after it
    ],
)
def test_refuses_other_spellings_of_what_it_knows(frame: str) -> None:
    with pytest.raises(Malformed):
        codec.decode_as(bytes.fromhex(frame), OUTER)


def test_an_unknown_field_is_passed_over_and_held_to_the_rules() -> None:
    known = {"list": [], "many": {}, "raw": b"", "word": "one"}
    frame = codec.encode({**known, "new": {"a": 1}})
    assert codec.decode_as(frame, OUTER) == Outer("one", {}, [])
    spelled = frame.replace(b"\xa1a\x01", b"\xa1a\xcc\x01")
    assert len(spelled) == len(frame) + 1
    with pytest.raises(Malformed):
        codec.decode_as(spelled, OUTER)


def test_what_breaks_its_type_has_no_encoding() -> None:
    broken: Any = 1.5
    with pytest.raises(LocalProtocolError):
        codec.encode(Outer("one", {"a": Inner(z=broken)}, []))


def test_many_values_and_many_bytes_are_counted_all_the_same() -> None:
    full = Outer("one", {}, [0] * (limits.NODES_MAX - 10))
    assert codec.decode_as(codec.encode(full), OUTER) == full
    with pytest.raises(LocalProtocolError):
        codec.encode(Outer("one", {}, [0] * limits.NODES_MAX))
    with pytest.raises(LocalProtocolError):
        codec.encode(Row(b"", bytes(limits.FRAME_SIZE_MAX)))
    with pytest.raises(TooLarge):
        codec.decode_as(bytes(limits.FRAME_SIZE_MAX + 1), OUTER)


@pytest.mark.parametrize(
    "kind", [messages.Award, messages.Result, Envelope, facts.Awarded, Outer, Row, Numbered]
)
def test_messages_and_facts_are_plain(kind: Hashable) -> None:
    assert is_plain(kind)


@pytest.mark.parametrize(
    "kind",
    [float, Any, dict[int, str], list[float], Nested, dict[str, Any], Literal[1, "a"], Tagged],
)
def test_what_may_hold_more_is_not_plain(kind: Hashable) -> None:
    assert not is_plain(kind)
