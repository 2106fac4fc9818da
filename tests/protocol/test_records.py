"""A record is believed of its issuer, while it counts, within its limits."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import (
    BadSignature,
    Expired,
    LocalProtocolError,
    Malformed,
    RemoteProtocolError,
    TooLarge,
    UnknownType,
    WrongNetwork,
)
from protocol.likeness import Likeness
from protocol.records import (
    TYPE,
    CallLimits,
    CapabilityName,
    Measured,
    NodeRecord,
    Sample,
    open_record,
    sign_record,
)
from protocol.signing import seal
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    capability,
    examples,
    mutated,
    record,
)

VALID = sign_record(CONTRACTOR, NETWORK, record())


def opened(envelope: bytes, now_ms: int = NOW_MS) -> NodeRecord:
    """What ``envelope`` says, in this network."""
    return open_record(envelope, network=NETWORK, now_ms=now_ms)


def forced(made: NodeRecord, signer: Any = CONTRACTOR) -> bytes:
    """Sign what ``sign_record`` would refuse to."""
    return seal(signer, TYPE, NETWORK, codec.encode(made))


def test_a_record_comes_back() -> None:
    assert opened(VALID) == record()


@examples(200)
@given(st.binary(max_size=300) | mutated(VALID))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    if data == VALID:
        return
    with pytest.raises(RemoteProtocolError):
        opened(data)


@examples(200)
@given(st.binary(max_size=200) | mutated(codec.encode(record())))
def test_any_signed_payload_is_a_record_or_blames_the_peer(payload: bytes) -> None:
    try:
        read = opened(seal(CONTRACTOR, TYPE, NETWORK, payload))
    except RemoteProtocolError:
        return
    assert codec.decode_as(payload, _decoder()) == read


def _decoder() -> Any:
    import msgspec

    return msgspec.msgpack.Decoder(NodeRecord)


def test_unknown_fields_are_passed_over() -> None:
    fields = codec.decode(codec.encode(record()))
    assert isinstance(fields, dict)
    later = codec.encode(fields | {"zz": [1]})
    assert opened(seal(CONTRACTOR, TYPE, NETWORK, later)) == record()


def test_a_record_describes_its_issuer() -> None:
    with pytest.raises(BadSignature):
        opened(forced(record(), BROKER))
    with pytest.raises(LocalProtocolError):
        sign_record(BROKER, NETWORK, record())


def test_a_record_of_another_network_or_type_is_refused() -> None:
    with pytest.raises(WrongNetwork):
        open_record(VALID, network="other", now_ms=NOW_MS)
    with pytest.raises(UnknownType):
        opened(seal(CONTRACTOR, "offer", NETWORK, codec.encode(record())))


def test_a_record_counts_from_issue_to_expiry_with_what_clocks_may_differ() -> None:
    made = record()
    opened(VALID, made.issued_ms - limits.RECORD_AHEAD_MS_MAX)
    opened(VALID, made.expires_ms + limits.SKEW_MS_MAX - 1)
    with pytest.raises(Expired):
        opened(VALID, made.issued_ms - limits.RECORD_AHEAD_MS_MAX - 1)
    with pytest.raises(Expired):
        opened(VALID, made.expires_ms + limits.SKEW_MS_MAX)


def caps(**fields: Any) -> dict[str, Any]:
    """A record's fields, with one capability changed."""
    return {"capabilities": [capability(**fields)]}


def call(**fields: int) -> CallLimits:
    """Valid limits of a call, changed."""
    valid = {"concurrency": 1, "timeout_ms": 1, "input_bytes": 1, "output_bytes": 1}
    return CallLimits(**valid | fields)


#: What holds a limit: how to make one with so much of it, and the limit.
LIMITED: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "capabilities": (
        lambda n: {"capabilities": [capability(agent=f"a{i}") for i in range(n)]},
        limits.CAPABILITIES_MAX,
    ),
    "name": (
        lambda n: caps(name="a" + ".b" * ((n - 4) // 2) + "c" * (n % 2) + "@10"),
        limits.CAPABILITY_NAME_SIZE_MAX,
    ),
    "description": (lambda n: caps(description="é" * n), limits.DESCRIPTION_SIZE_MAX),
    "input schema": (lambda n: caps(input_schema=b"1" * n), limits.SCHEMA_SIZE_MAX),
    "output schema": (lambda n: caps(output_schema=b"1" * n), limits.SCHEMA_SIZE_MAX),
    "examples": (
        lambda n: caps(examples=[Sample(input=b"1", output=b"1")] * n),
        limits.EXAMPLES_MAX,
    ),
    "example": (
        lambda n: caps(examples=[Sample(input=b"1" * (n - 9), output=b"1" * 9)]),
        limits.EXAMPLE_SIZE_MAX,
    ),
    "checks": (lambda n: caps(checks=["quoted"] * n), limits.CHECK_KINDS_MAX),
    "addresses": (lambda n: {"addresses": ["/ip4/1.2.3.4"] * n}, limits.ADDRESSES_MAX),
    "address": (lambda n: {"addresses": ["/" + "a" * (n - 1)]}, limits.ADDRESS_SIZE_MAX),
    "features": (lambda n: {"features": ["f"] * n}, limits.FEATURES_MAX),
    "lifetime": (lambda n: {"expires_ms": NOW_MS + n}, limits.RECORD_LIFETIME_MS_MAX),
    "price": (lambda n: caps(price_mc=n), limits.NUMBER_MAX),
    "sequence": (lambda n: {"sequence": n}, limits.NUMBER_MAX),
}


@pytest.mark.parametrize("what", LIMITED)
def test_the_limit_passes_and_one_more_is_refused(what: str) -> None:
    make, limit = LIMITED[what]
    opened(sign_record(CONTRACTOR, NETWORK, record(**make(limit))))
    over = record(**make(limit + 1))
    with pytest.raises(LocalProtocolError):
        sign_record(CONTRACTOR, NETWORK, over)
    with pytest.raises(Malformed):
        opened(forced(over))


def test_the_size_limit_of_a_whole_record() -> None:
    def sized(extra: int) -> NodeRecord:
        rich = [
            capability(agent=f"a{n}", input_schema=b"1" * 8_000, output_schema=b"1" * 100)
            for n in range(7)
        ]
        return record(capabilities=rich, features=["f" * extra])

    room = limits.RECORD_SIZE_MAX - len(forced(sized(1_000))) + 1_000
    envelope = sign_record(CONTRACTOR, NETWORK, sized(room))
    assert len(envelope) == limits.RECORD_SIZE_MAX
    opened(envelope)
    with pytest.raises(LocalProtocolError, match="shorten"):
        sign_record(CONTRACTOR, NETWORK, sized(room + 1))
    with pytest.raises(TooLarge):
        opened(forced(sized(room + 1)))


@pytest.mark.parametrize(
    "fields",
    [
        {"x25519": b""},
        {"x25519": bytes(31)},
        {"x25519": bytes(32)},
        {"expires_ms": NOW_MS},
        {"addresses": [""]},
        {"addresses": ["127.0.0.1"]},
        {"sequence": -1},
        {"capabilities": [capability(), capability()]},  # two of one agent
        caps(agent=""),
        caps(agent="Upper"),
        caps(agent="a" * 65),
        caps(agent="a\n"),
        caps(name="code.security_audit"),  # no version
        caps(input_schema=b""),
        caps(price_mc=-1),
        caps(measured=Measured(latency_ms=-1)),  # would rank before everyone
        caps(measured=Measured(samples=-1)),
        caps(measured=Measured(tried=1, right=2)),
        caps(measured=Measured(tried=5)),
        caps(like=Likeness(alike_pct=101)),
        caps(checks=["Quoted"]),
        caps(limits=call(concurrency=0)),
        caps(limits=call(timeout_ms=0)),
        caps(limits=call(input_bytes=0)),
        caps(limits=call(output_bytes=0)),
    ],
)
def test_a_record_against_the_rules_is_neither_signed_nor_read(fields: dict[str, Any]) -> None:
    made = record(**fields)
    with pytest.raises(LocalProtocolError):
        sign_record(CONTRACTOR, NETWORK, made)
    with pytest.raises(Malformed):
        opened(forced(made))


def test_a_seed_node_offers_nothing() -> None:
    assert opened(sign_record(CONTRACTOR, NETWORK, record(capabilities=[]))).capabilities == []


# --- names ---


@pytest.mark.parametrize("text", ["text", "text.summarization@1", "a1.b_2@9999", "a" * 40])
def test_a_capability_name_is_written_as_it_was_read(text: str) -> None:
    assert str(CapabilityName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@1",
        "a.",
        ".a",
        "a..b",
        "a@0",
        "a@01",
        "a@10000",
        "a@",
        "A",
        "a b",
        "1a",
        "a\n",
        "é",
    ],
)
def test_what_is_no_capability_name_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        CapabilityName.parse(text)


@pytest.mark.parametrize("text", ["a@\u0661", "a" * 41, "a." * 48 + "a"])
def test_digits_and_lengths_of_a_capability_name_are_held(text: str) -> None:
    with pytest.raises(Malformed):
        CapabilityName.parse(text)


@examples(200)
@given(st.text(max_size=120))
def test_any_text_is_a_capability_name_or_blames_the_peer(text: str) -> None:
    try:
        name = CapabilityName.parse(text)
    except Malformed:
        return
    assert str(name) == text


@pytest.mark.parametrize(
    ("asked", "offered", "covered"),
    [
        ("code", "code.audit@1", True),
        ("code@1", "code.audit@1", True),
        ("code@2", "code.audit@1", False),
        ("code.audit@1", "code.audit@1", True),
        ("code.audit@1", "code@1", False),
        ("code", "codec@1", False),  # not a prefix by segments
    ],
)
def test_a_query_covers_what_is_as_special_or_more(
    asked: str, offered: str, *, covered: bool
) -> None:
    assert CapabilityName.parse(asked).covers(CapabilityName.parse(offered)) is covered


def test_prefixes_go_from_general_to_special() -> None:
    assert CapabilityName.parse("a.b.c@2").prefixes() == ["a", "a.b", "a.b.c"]
