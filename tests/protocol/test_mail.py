"""A letter is its sender's, for its reader, and nobody between can read or change it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, WrongAudience
from protocol.keys import digest
from protocol.mail import (
    Enclosed,
    check_letter_time,
    open_sealed,
    read_ack,
    read_letter,
    sign_ack,
    sign_letter,
)
from protocol.mailbox import Collect, Deposit, Inquiry, read_body
from protocol.records import sealing_key, sign_record
from protocol.signing import seal
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    STRANGER,
    examples,
    mutated,
    record,
)
from tests.protocol.vector_mail import ack, closed, letter

POSTED = sign_letter(BROKER, letter())
ACKED = sign_ack(CONTRACTOR, ack(POSTED))
SEALED = closed(Enclosed(POSTED, []))


def test_a_letter_comes_back() -> None:
    assert read_letter(POSTED, network=NETWORK) == letter()
    assert read_ack(ACKED, network=NETWORK).letter == digest(POSTED)
    assert open_sealed(CONTRACTOR, SEALED, network=NETWORK) == Enclosed(POSTED, [])


@examples(200)
@given(data=st.data())
def test_any_bytes_are_a_letter_or_blame_the_peer(data: st.DataObject) -> None:
    envelope = data.draw(st.binary(max_size=80) | mutated(POSTED))
    try:
        read_letter(envelope, network=NETWORK)
    except RemoteProtocolError:
        return
    assert envelope == POSTED, "nothing but the signed bytes hold"


@examples(200)
@given(data=st.data())
def test_any_bytes_are_what_was_sealed_or_blame_the_peer(data: st.DataObject) -> None:
    sealed = data.draw(st.binary(max_size=80) | mutated(SEALED))
    try:
        opened = open_sealed(CONTRACTOR, sealed, network=NETWORK)
    except RemoteProtocolError:
        return
    assert (sealed, opened.letter) == (SEALED, POSTED)


@examples(100)
@given(data=st.data())
@pytest.mark.parametrize(
    "body",
    [
        Deposit(CONTRACTOR.peer, NOW_MS, SEALED),
        Collect(b"record", [ACKED]),
        Inquiry([digest(SEALED)], []),
    ],
)
def test_any_bytes_are_a_body_or_blame_the_peer(body: Any, data: st.DataObject) -> None:
    whole = codec.encode(body)
    assert read_body(whole, type(body)) == body
    try:
        read_body(data.draw(st.binary(max_size=80) | mutated(whole)), type(body))
    except RemoteProtocolError:
        return


def test_a_mailbox_sees_nothing_of_what_is_said() -> None:
    secret = b"the combination is 4711"
    posted = sign_letter(BROKER, letter(subject="our safe", body=secret))
    sealed = closed(Enclosed(posted, []))
    seen = codec.encode(Deposit(CONTRACTOR.peer, NOW_MS, sealed))
    for part in (secret, b"our safe", BROKER.peer.encode(), BROKER.public, posted[:64]):
        assert part in posted
        assert part not in seen
    with pytest.raises(Malformed):
        open_sealed(STRANGER, sealed, network=NETWORK)


def test_two_seals_of_one_letter_have_nothing_in_common() -> None:
    again = closed(Enclosed(POSTED, []), secret=digest(b"another"))
    assert again != SEALED
    assert open_sealed(CONTRACTOR, again, network=NETWORK).letter == POSTED


def test_a_letter_sealed_on_to_a_third_party_is_not_for_it() -> None:
    onward = closed(
        Enclosed(POSTED, []), recipient=STRANGER.peer, x25519=STRANGER.x25519_public
    )
    opened = open_sealed(STRANGER, onward, network=NETWORK)
    passed_on = read_letter(opened.letter, network=NETWORK)
    with pytest.raises(WrongAudience):
        check_letter_time(passed_on, audience=STRANGER.peer, now_ms=NOW_MS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"body": bytes(limits.LETTER_BODY_SIZE_MAX + 1)},
        {"subject": "a" * (limits.LETTER_SUBJECT_SIZE_MAX + 1)},
        {"kind": "a" * (limits.LETTER_KIND_SIZE_MAX + 1)},
        {"h": {"expires_ms": NOW_MS + limits.LETTER_LIFETIME_MS_MAX + 1}},
        {"h": {"issuer": STRANGER.peer}},
    ],
)
def test_no_letter_is_signed_that_a_reader_refuses(wrong: Any) -> None:
    with pytest.raises(LocalProtocolError):
        sign_letter(BROKER, letter(**wrong))


def test_the_largest_letter_can_be_signed_sealed_and_read() -> None:
    most = letter(
        body=bytes(limits.LETTER_BODY_SIZE_MAX),
        subject="ü" * limits.LETTER_SUBJECT_SIZE_MAX,
        kind="k" * limits.LETTER_KIND_SIZE_MAX,
        answers=digest(POSTED),
    )
    posted = sign_letter(BROKER, most)
    links = [bytes(limits.LINK_SIZE_MAX)] * limits.CHAIN_LINKS_MAX
    sealed = closed(Enclosed(posted, links))
    opened = open_sealed(CONTRACTOR, sealed, network=NETWORK)
    assert read_letter(opened.letter, network=NETWORK) == most
    whole = codec.encode(Deposit(CONTRACTOR.peer, NOW_MS, sealed))
    assert read_body(whole, Deposit).sealed == sealed


def test_nothing_is_sealed_to_a_key_that_everyone_knows() -> None:
    for key in (bytes(32), b"\x01" + bytes(31), bytes(31)):
        with pytest.raises(Malformed):
            closed(Enclosed(POSTED, []), x25519=key)


def test_a_record_tells_the_key_also_when_it_has_expired() -> None:
    kept = sign_record(CONTRACTOR, NETWORK, record(issued_ms=1, expires_ms=2))
    key = sealing_key(kept, peer=CONTRACTOR.peer, network=NETWORK)
    assert key == CONTRACTOR.x25519_public


@pytest.mark.parametrize(("peer", "network"), [(STRANGER.peer, NETWORK), (None, "other")])
def test_another_record_tells_no_key(peer: str | None, network: str) -> None:
    kept = sign_record(CONTRACTOR, NETWORK, record())
    with pytest.raises(RemoteProtocolError):
        sealing_key(kept, peer=peer or CONTRACTOR.peer, network=network)
    foreign = seal(STRANGER, "record", NETWORK, codec.encode(record()))
    with pytest.raises(RemoteProtocolError):
        sealing_key(foreign, peer=CONTRACTOR.peer, network=NETWORK)
