"""Task messages: signed by whom they name, for whom they name, within their limits."""

from collections.abc import Callable
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol import messages as read_cache
from protocol.errors import (
    BadSignature,
    Expired,
    LocalProtocolError,
    Malformed,
    RemoteProtocolError,
    UnknownType,
    WrongAudience,
    WrongNetwork,
)
from protocol.keys import digest
from protocol.mail import Letter, LetterAck
from protocol.messages import (
    Award,
    Binding,
    Budget,
    Cfp,
    Header,
    Label,
    Message,
    Metering,
    Part,
    Progress,
    Proposal,
    Refuse,
    Result,
    StandingOffer,
    read_message,
    sign_message,
)
from protocol.receipts import Acceptance, Receipt
from protocol.signing import peek, seal
from protocol.timely import check_timely
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    STRANGER,
    changed,
    examples,
    messages,
    mutated,
    signer_of,
)

# Each claim here is about reading; what was read lately is a claim of its own.
REMEMBERED = read_cache._READ_MAX


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_cache, "_READ_MAX", 0)
    read_cache._READ.clear()


MESSAGES = messages()
TYPES = list(MESSAGES)
SIGNED = {kind: sign_message(signer_of(message), message) for kind, message in MESSAGES.items()}

each_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.TYPE)


def forced(message: Message, signer: Any = None) -> bytes:
    """Sign what ``sign_message`` would refuse to."""
    signer = signer or signer_of(message)
    return seal(signer, message.TYPE, NETWORK, codec.encode(message))


def refuse(message: Message) -> None:
    """Prove that ``message`` is neither signed here nor read from others."""
    with pytest.raises(LocalProtocolError):
        sign_message(signer_of(message), message)
    with pytest.raises(RemoteProtocolError):
        read_message(forced(message), type(message), network=NETWORK)


def test_every_message_type_has_a_sample_and_a_name_of_its_own() -> None:
    known = {kind for kind in _subclasses(Message) if kind.__module__.startswith("protocol.")}
    letters = {Letter, LetterAck}  # with samples and claims of their own, in test_mail
    assert known == set(TYPES) | letters
    assert len({kind.TYPE for kind in known}) == len(known)


def _subclasses(kind: type[Message]) -> set[type[Message]]:
    direct = set(kind.__subclasses__())
    return direct.union(*(_subclasses(one) for one in direct))


@each_type
def test_a_message_comes_back(kind: type[Message]) -> None:
    assert read_message(SIGNED[kind], kind, network=NETWORK) == MESSAGES[kind]


def test_what_was_read_lately_is_not_read_again_and_is_no_other_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_cache, "_READ_MAX", REMEMBERED)
    envelope = SIGNED[Award]
    read = read_message(envelope, Award, network=NETWORK)
    assert read_message(envelope, Award, network=NETWORK) is read
    with pytest.raises(UnknownType):
        read_message(envelope, Proposal, network=NETWORK)
    with pytest.raises(WrongNetwork):
        read_message(envelope, Award, network="other")
    flipped = envelope[:-1] + bytes([envelope[-1] ^ 1])
    with pytest.raises(RemoteProtocolError):
        read_message(flipped, Award, network=NETWORK)


def test_only_so_many_and_no_large_messages_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_cache, "_READ_MAX", 3)
    for kind in TYPES:
        read_message(SIGNED[kind], kind, network=NETWORK)
    assert len(read_cache._READ) == 3
    monkeypatch.setattr(read_cache, "_READ_BYTES_MAX", len(SIGNED[Award]) - 1)
    read = read_message(SIGNED[Award], Award, network=NETWORK)
    assert read_message(SIGNED[Award], Award, network=NETWORK) is not read


@pytest.mark.parametrize(
    ("signed_as", "read_as"), [(a, b) for a, b in product(TYPES, TYPES) if a is not b]
)
def test_signed_as_one_type_it_is_never_read_as_another(
    signed_as: type[Message], read_as: type[Message]
) -> None:
    with pytest.raises(UnknownType):
        read_message(SIGNED[signed_as], read_as, network=NETWORK)
    renamed = codec.encode(changed(peek(SIGNED[signed_as]), t=read_as.TYPE))
    with pytest.raises(BadSignature):
        read_message(renamed, read_as, network=NETWORK)


@each_type
def test_signed_for_one_network_it_is_read_in_no_other(kind: type[Message]) -> None:
    with pytest.raises(WrongNetwork):
        read_message(SIGNED[kind], kind, network="other")
    moved = codec.encode(changed(peek(SIGNED[kind]), n="other"))
    with pytest.raises(BadSignature):
        read_message(moved, kind, network="other")
    # Signed again for another network by its own issuer, the header still names the first.
    copied = seal(signer_of(MESSAGES[kind]), kind.TYPE, "other", codec.encode(MESSAGES[kind]))
    with pytest.raises(WrongNetwork):
        read_message(copied, kind, network="other")


@each_type
@examples(60)
@given(data=st.data())
def test_a_changed_message_is_refused(kind: type[Message], data: st.DataObject) -> None:
    other = data.draw(mutated(SIGNED[kind]))
    if other == SIGNED[kind]:
        return
    with pytest.raises(RemoteProtocolError):
        read_message(other, kind, network=NETWORK)


@each_type
@examples(60)
@given(data=st.data())
def test_any_signed_payload_is_a_message_or_blames_the_peer(
    kind: type[Message], data: st.DataObject
) -> None:
    payload = data.draw(st.binary(max_size=100) | mutated(codec.encode(MESSAGES[kind])))
    signer = signer_of(MESSAGES[kind])
    try:
        message = read_message(seal(signer, kind.TYPE, NETWORK, payload), kind, network=NETWORK)
    except RemoteProtocolError:
        return
    sign_message(signer, message)  # what may be read may be said


@each_type
def test_unknown_fields_are_passed_over_and_signed_all_the_same(kind: type[Message]) -> None:
    fields = codec.decode(codec.encode(MESSAGES[kind]))
    assert isinstance(fields, dict)
    later = seal(
        signer_of(MESSAGES[kind]), kind.TYPE, NETWORK, codec.encode(fields | {"zz": {"a": 1}})
    )
    assert read_message(later, kind, network=NETWORK) == MESSAGES[kind]
    assert digest(later) != digest(SIGNED[kind])


@each_type
def test_every_field_of_the_header_is_required(kind: type[Message]) -> None:
    fields = codec.decode(codec.encode(MESSAGES[kind]))
    assert isinstance(fields, dict)
    names = {field.name for field in msgspec.structs.fields(Header)}
    assert names == set(fields["h"])
    for name in names:
        lacking = fields | {"h": {k: v for k, v in fields["h"].items() if k != name}}
        envelope = seal(signer_of(MESSAGES[kind]), kind.TYPE, NETWORK, codec.encode(lacking))
        with pytest.raises(Malformed, match=name):
            read_message(envelope, kind, network=NETWORK)


@each_type
def test_the_header_names_the_signer(kind: type[Message]) -> None:
    message = MESSAGES[kind]
    with pytest.raises(BadSignature):
        read_message(forced(message, STRANGER), kind, network=NETWORK)
    with pytest.raises(LocalProtocolError):
        sign_message(STRANGER, message)


# --- when and for whom ---


def test_a_message_counts_for_its_audience_from_issue_to_expiry() -> None:
    message = MESSAGES[Cfp]
    expires_ms = message.h.expires_ms
    us = CONTRACTOR.peer
    check_timely(message, audience=us, now_ms=NOW_MS - limits.SKEW_MS_MAX)
    check_timely(message, audience=us, now_ms=expires_ms + limits.SKEW_MS_MAX - 1)
    with pytest.raises(Expired):
        check_timely(message, audience=us, now_ms=NOW_MS - limits.SKEW_MS_MAX - 1)
    with pytest.raises(Expired):
        check_timely(message, audience=us, now_ms=expires_ms + limits.SKEW_MS_MAX)
    with pytest.raises(WrongAudience):
        check_timely(message, audience=STRANGER.peer, now_ms=NOW_MS)


@pytest.mark.parametrize("kind", [Cfp, Proposal, StandingOffer, Award])
def test_what_binds_lives_ten_minutes_at_most(kind: type[Message]) -> None:
    message = MESSAGES[kind]
    longest = changed(message.h, expires_ms=NOW_MS + limits.LIFETIME_MS_MAX)
    read_message(forced(changed(message, h=longest)), kind, network=NETWORK)
    refuse(changed(message, h=changed(longest, expires_ms=longest.expires_ms + 1)))


# --- limits and ranges ---

HEADER_WRONG: dict[str, dict[str, Any]] = {
    "short id": {"id": bytes(15)},
    "long id": {"id": bytes(17)},
    "no lifetime": {"expires_ms": NOW_MS},
    "hops over the limit": {"hops": limits.HOPS_MAX + 1},
    "negative hops": {"hops": -1},
    "charter": {"charter": bytes(31)},
    "epoch": {"epoch": -1},
    "replica": {"replica": -1},
    "sequence": {"sequence": -1},
    "large number": {"sequence": limits.NUMBER_MAX + 1},
    "budget": {"budget": Budget(cost_mc=-1)},
    "tokens": {"budget": Budget(tokens=-1)},
    "sub-tasks": {"budget": Budget(subtasks=-1)},
    "secrecy below": {"label": Label(secrecy=-1)},
    "secrecy above": {"label": Label(secrecy=4)},
    "taint below": {"label": Label(taint=-1)},
    "taint above": {"label": Label(taint=3)},
    "job": {"job": "j" * (limits.HEADER_TEXT_SIZE_MAX + 1)},
    "sub-task": {"subtask": "j" * (limits.HEADER_TEXT_SIZE_MAX + 1)},
    "key": {"idempotency_key": "j" * (limits.HEADER_TEXT_SIZE_MAX + 1)},
    "traceparent": {"traceparent": "j" * (limits.HEADER_TEXT_SIZE_MAX + 1)},
}


@pytest.mark.parametrize("what", HEADER_WRONG)
@each_type
def test_a_header_out_of_range_is_refused(kind: type[Message], what: str) -> None:
    refuse(changed(MESSAGES[kind], h=changed(MESSAGES[kind].h, **HEADER_WRONG[what])))


def test_a_header_at_its_limits_is_read() -> None:
    text = "j" * limits.HEADER_TEXT_SIZE_MAX
    header = changed(
        MESSAGES[Refuse].h,
        hops=limits.HOPS_MAX,
        sequence=limits.NUMBER_MAX,
        job=text,
        subtask=text,
        idempotency_key=text,
        traceparent=text,
        charter=bytes(32),
        label=Label(secrecy=3, taint=2),
    )
    sign_message(CONTRACTOR, changed(MESSAGES[Refuse], h=header))


def numbers(kind: type[Message]) -> list[str]:
    """Names of the fields of ``kind`` that hold a number."""
    return [
        field.name
        for field in msgspec.structs.fields(kind)
        if isinstance(getattr(MESSAGES[kind], field.name), int)
        and not isinstance(getattr(MESSAGES[kind], field.name), bool)
    ]


@each_type
def test_no_number_is_negative_or_beyond_what_others_hold(kind: type[Message]) -> None:
    for name in numbers(kind):
        for value in (-1, limits.NUMBER_MAX + 1, 2**64 - 1):
            refuse(changed(MESSAGES[kind], **{name: value}))


#: Type -> its fields that must be a hash, and those that may be left empty.
HASHES: dict[type[Message], tuple[set[str], set[str]]] = {
    Proposal: ({"cfp"}, set()),
    Refuse: ({"of"}, set()),
    Award: ({"proposal"}, {"cfp", "result_key"}),
    Progress: ({"award"}, {"checkpoint"}),
    Result: ({"award"}, set()),
    Receipt: ({"award", "result"}, set()),
    Acceptance: ({"award", "receipt"}, set()),
}


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.TYPE)
def test_what_names_another_message_is_a_whole_hash(kind: type[Message]) -> None:
    required, optional = HASHES[kind]
    for name in required | optional:
        for size in (1, 31, 33):
            refuse(changed(MESSAGES[kind], **{name: bytes(size)}))
    for name in required:
        refuse(changed(MESSAGES[kind], **{name: b""}))
    for name in optional:
        sign_message(signer_of(MESSAGES[kind]), changed(MESSAGES[kind], **{name: b""}))


def bound(*parts: Part, gather: bool = True) -> dict[str, Any]:
    """Fields of an award with one input of ``parts``."""
    return {"inputs": {"x": Binding(parts=list(parts), gather=gather)}, "each": []}


INLINE = Part(inline=b"1")
LIMITED: dict[str, tuple[type[Message], Callable[[int], dict[str, Any]], int]] = {
    "inputs": (
        Award,
        lambda n: {"inputs": {f"f{i}": Binding(parts=[INLINE]) for i in range(n)}},
        limits.BINDINGS_MAX,
    ),
    "parts": (Award, lambda n: bound(*[INLINE] * n), limits.PARTS_MAX),
    "inline input": (Award, lambda n: bound(Part(inline=b"1" * n)), limits.INLINE_SIZE_MAX),
    "inline output": (
        Result,
        lambda n: {"inline": b"1" * n, "output": digest(b"1" * n), "size": n},
        limits.INLINE_SIZE_MAX,
    ),
    "progress": (Progress, lambda n: {"text": "é" * n}, limits.PROGRESS_SIZE_MAX),
}


@pytest.mark.parametrize("what", LIMITED)
def test_the_limit_passes_and_one_more_is_refused(what: str) -> None:
    kind, make, limit = LIMITED[what]
    valid = MESSAGES[kind]
    read_message(forced(changed(valid, **make(limit))), kind, network=NETWORK)
    refuse(changed(valid, **make(limit + 1)))


WRONG: list[tuple[type[Message], dict[str, Any]]] = [
    (Award, {"items": 0}),
    (Award, {"timeout_ms": 0}),
    (Award, {"lease_ms": -1}),
    (Award, {"each": ["ghost"]}),
    (Award, bound(INLINE, INLINE, gather=False)),
    (Award, bound(gather=False)),
    (Award, bound(Part())),  # neither inline nor an artifact
    (Award, bound(Part(inline=b"1", artifact=bytes(32)))),  # both
    (Award, bound(Part(artifact=bytes(31)))),
    (Award, bound(Part(inline=b"1", start=-1))),
    (Award, bound(Part(inline=b"1", count=-2))),
    (Award, bound(Part(artifact=bytes(32), size=-1))),
    (Result, {"state": "done"}),
    (Result, {"output": b"", "inline": b"", "size": 0}),  # completed without an output
    (Result, {"state": "failed", "inline": b"", "size": 0}),  # an output all the same
    (Result, {"state": "failed", "output": b""}),  # an inline output all the same
    (Result, {"output": bytes(32)}),  # the inline output has another hash
    (Result, {"size": 1}),
    (Result, {"output": bytes(31), "inline": b""}),
    (Result, {"lengths": {"/issues": -1}}),  # would split a map into batches of nothing
    (Result, {"metering": Metering(run_ms=-1)}),
    (Acceptance, {"verdict": "fine"}),
]


@pytest.mark.parametrize(("kind", "fields"), WRONG)
def test_a_message_against_the_rules_is_neither_signed_nor_read(
    kind: type[Message], fields: dict[str, Any]
) -> None:
    refuse(changed(MESSAGES[kind], **fields))


def test_an_empty_gathered_input_is_an_empty_list() -> None:
    sign_message(BROKER, changed(MESSAGES[Award], **bound()))
