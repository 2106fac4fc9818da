"""One value, one encoding: anything else is the peer's fault, and cheap to refuse."""

import tracemalloc
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, TooLarge
from tests.protocol.samples import examples, mutated, values


class Known(msgspec.Struct, frozen=True):
    """What this version knows of a message."""

    a: int
    b: str = ""


KNOWN = msgspec.msgpack.Decoder(Known)


def ordered(value: Any) -> Any:
    """``value`` with the keys of its maps in order of their UTF-8 bytes."""
    match value:
        case dict():
            return {key: ordered(value[key]) for key in sorted(value, key=str.encode)}
        case list():
            return [ordered(one) for one in value]
        case _:
            return value


@examples(300)
@given(values)
def test_every_value_comes_back(value: codec.Value) -> None:
    assert codec.decode(codec.encode(value)) == value


@examples(300)
@given(values)
def test_another_library_writes_the_same_bytes(value: codec.Value) -> None:
    assert codec.encode(value) == msgpack.packb(ordered(value), use_bin_type=True)


@examples(500)
@given(st.binary(max_size=200))
@example(b"\x82\xa1a\x01\xa1a\x02")
@example(b"\xc7\x04\xff\x00\x00\x00\x00")  # an extension type
def test_any_bytes_either_round_trip_or_blame_the_peer(frame: bytes) -> None:
    try:
        value = codec.decode(frame)
    except RemoteProtocolError:
        return
    assert codec.encode(value) == frame


@examples(250)
@given(values.map(codec.encode).flatmap(mutated))
def test_mutated_bytes_either_round_trip_or_blame_the_peer(frame: bytes) -> None:
    try:
        value = codec.decode(frame)
    except RemoteProtocolError:
        return
    assert codec.encode(value) == frame


#: Values at which a header has to grow, and every longer header that also holds them.
LONGER = {
    "05": ["cc05", "cd0005", "ce00000005", "cf0000000000000005", "d005", "d10005"],
    "7f": ["cc7f", "d07f"],
    "cc80": ["cd0080", "d10080", "d200000080", "d30000000000000080"],
    "cdffff": ["ce0000ffff", "d20000ffff"],
    "ceffffffff": ["cf00000000ffffffff", "d300000000ffffffff"],
    "e0": ["d0e0", "d1ffe0", "d2ffffffe0", "d3ffffffffffffffe0"],
    "d0df": ["d1ffdf"],
    "ccff": ["cd00ff"],
    "d080": ["d1ff80"],
    "d18000": ["d2ffff8000"],
    "d280000000": ["d3ffffffff80000000"],
    "d1ff7f": ["d2ffffff7f"],
    "d2ffff7fff": ["d3ffffffffffff7fff"],
    "a161": ["d90161", "da000161", "db0000000161"],
    "c40161": ["c5000161", "c60000000161"],
    "9105": ["dc000105", "dd0000000105"],
    "81a16105": ["de0001a16105", "df00000001a16105", "81d9016105"],
}


@pytest.mark.parametrize(
    ("short", "long"), [(short, long) for short, all_ in LONGER.items() for long in all_]
)
def test_refuses_a_longer_header_than_needed(short: str, long: str) -> None:
    assert codec.encode(codec.decode(bytes.fromhex(short))).hex() == short
    expected = codec.decode(bytes.fromhex(short))
    assert msgpack.unpackb(bytes.fromhex(long)) == expected  # others read it all the same
    with pytest.raises(Malformed):
        codec.decode(bytes.fromhex(long))


@pytest.mark.parametrize(
    "frame",
    [
        "",  # nothing
        "c1",  # never used
        "ca3f800000",  # float 32
        "cb3ff0000000000000",  # float 64
        "d6ff00000000",  # a timestamp
        "c700ff",  # an empty extension
        "8101c0",  # a key that isn't text
        "81c40161c0",  # a key of bytes
        "81a161",  # a key without a value
        "82a16101a16101",  # a repeated key
        "82a16201a16101",  # keys in another order
        "a2c080",  # overlong UTF-8
        "a3eda080",  # a surrogate
        "a1ff",
        "c0c0",  # two values
        "dd7fffffff",  # two thousand million values in five bytes
        "df7fffffff",
        "c6ffffffff",
        "9201",
    ],
)
def test_refuses_what_is_outside_the_subset(frame: str) -> None:
    with pytest.raises(Malformed):
        codec.decode(bytes.fromhex(frame))


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        {1: 2},
        {b"a": 1},
        {"a": {1: 2}},
        2**64,
        -(2**63) - 1,
        object(),
        "\ud800",
    ],
)
def test_a_value_without_an_encoding_is_our_own_fault(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode(value)


def test_keys_are_ordered_by_their_bytes_and_not_by_their_length() -> None:
    assert (
        codec.encode({"b": 1, "aa": 2, "é": 3, "z": 4}).hex()
        == "84a2616102a16201a17a04a2c3a903"
    )


# --- limits ---


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_depth_limit() -> None:
    assert codec.decode(codec.encode(nested(limits.DEPTH_MAX))) == nested(limits.DEPTH_MAX)
    with pytest.raises(Malformed):
        codec.decode(b"\x91" * (limits.DEPTH_MAX + 1) + b"\x00")
    with pytest.raises(LocalProtocolError):
        codec.encode(nested(limits.DEPTH_MAX + 1))


def test_depth_limit_for_maps() -> None:
    codec.decode(b"\x81\xa0" * limits.DEPTH_MAX + b"\x00")
    with pytest.raises(Malformed):
        codec.decode(b"\x81\xa0" * (limits.DEPTH_MAX + 1) + b"\x00")


def test_node_limit() -> None:
    largest = [0] * (limits.NODES_MAX - 1)
    assert codec.decode(codec.encode(largest)) == largest
    with pytest.raises(LocalProtocolError):
        codec.encode([*largest, 0])
    with pytest.raises(Malformed):
        codec.decode(msgpack.packb([*largest, 0]))


def test_node_limit_counts_keys() -> None:
    pairs = (limits.NODES_MAX - 1) // 2
    codec.encode({f"{n:05}": 0 for n in range(pairs)})
    with pytest.raises(LocalProtocolError):
        codec.encode({f"{n:05}": 0 for n in range(pairs + 1)})


def test_frame_size_limit() -> None:
    head = len(codec.encode(b"x" * 70_000)) - 70_000
    assert len(codec.encode(b"x" * (limits.FRAME_SIZE_MAX - head))) == limits.FRAME_SIZE_MAX
    with pytest.raises(TooLarge):
        codec.decode(b"\xc6" + (limits.FRAME_SIZE_MAX - 4).to_bytes(4, "big") + b"x" * 262_140)
    with pytest.raises(LocalProtocolError):
        codec.encode(b"x" * (limits.FRAME_SIZE_MAX - head + 1))


HOSTILE = {
    "empty lists": b"\xdd\x00\x03\xff\xf0" + b"\x90" * 0x3FFF0,
    "empty maps": b"\xdd\x00\x03\xff\xf0" + b"\x80" * 0x3FFF0,
    "nested lists": b"\x91" * limits.FRAME_SIZE_MAX,
    "nested maps": b"\x81\xa0" * (limits.FRAME_SIZE_MAX // 2),
    "lists of lists": (b"\x9f" + b"\x90" * 15) * (limits.FRAME_SIZE_MAX // 16),
    "announced and not there": (b"\xdd\xff\xff\xff\xff" * 52_428),
    "as many as allowed": b"\xdc\x27\x0f" + b"\x80" * 9_999,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_containers_take_little_memory(name: str) -> None:
    frame = HOSTILE[name]
    tracemalloc.start()
    try:
        codec.decode(frame)
    except RemoteProtocolError:
        pass
    else:
        assert name == "as many as allowed"
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # A frame within the node budget may cost more than 8 times its own size, but never
    # more than 8 times what a frame may have.
    assert peak_bytes <= 8 * limits.FRAME_SIZE_MAX
    if name != "as many as allowed":
        assert peak_bytes <= 64 * 1024, "it was built before it was refused"


@pytest.mark.parametrize("name", ["empty lists", "empty maps", "announced and not there"])
def test_a_container_larger_than_fits_is_refused_by_its_header(name: str) -> None:
    with pytest.raises(Malformed, match="more values than fit at byte 5"):
        codec.decode(HOSTILE[name])


# --- structs ---


def test_unknown_fields_are_passed_over_and_the_bytes_keep_them() -> None:
    frame = codec.encode({"a": 1, "b": "x", "from_later": [1, 2]})
    assert codec.decode_as(frame, KNOWN) == Known(1, "x")


@pytest.mark.parametrize(
    "fields", [{}, {"a": "1"}, {"a": None}, {"a": True}, {"a": 1, "b": b"x"}]
)
def test_a_field_that_is_missing_or_of_another_type_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        codec.decode_as(codec.encode(fields), KNOWN)


@pytest.mark.parametrize("value", [-1, limits.NUMBER_MAX + 1])
def test_a_count_is_neither_negative_nor_over_the_limit(value: int) -> None:
    decoder = msgspec.msgpack.Decoder(dict[str, codec.Count])
    codec.decode_as(codec.encode({"a": 0, "b": limits.NUMBER_MAX}), decoder)
    with pytest.raises(Malformed):
        codec.decode_as(codec.encode({"a": value}), decoder)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_hash_has_32_bytes(size: int) -> None:
    decoder = msgspec.msgpack.Decoder(dict[str, codec.Hash])
    codec.decode_as(codec.encode({"a": bytes(32)}), decoder)
    with pytest.raises(Malformed):
        codec.decode_as(codec.encode({"a": bytes(size)}), decoder)
