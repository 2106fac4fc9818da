"""A majority's grants prove one broker of an epoch, and nothing less does."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.charter import (
    Answer,
    Ask,
    Charter,
    Grant,
    read_answer,
    read_ask,
    read_certificate,
    read_charter,
    read_grant,
    sign_charter,
    sign_grant,
    write_certificate,
)
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, TooLarge
from protocol.messages import Budget
from tests.protocol.samples import (
    NETWORK,
    NOW_MS,
    STRANGER,
    changed,
    examples,
    identity,
    mutated,
)
from tests.protocol.vector_charter import CHARTERED, FIRST, OWNER, SECOND, certificate, grant

READ: dict[str, Any] = {"network": NETWORK, "now_ms": NOW_MS}
CHARTER_READ = read_charter(CHARTERED, **READ)


def granted(**fields: Any) -> Grant:
    """A grant of epoch 2 to the first standby."""
    told: dict[str, Any] = {
        "charter": CHARTER_READ.name,
        "epoch": 2,
        "broker": FIRST.peer,
        "asked_ms": NOW_MS,
        "until_ms": NOW_MS + 30_000,
    }
    return Grant(**{**told, **fields})


def test_any_majority_of_any_number_of_members_wins_and_no_minority_does() -> None:
    for count in range(limits.STANDBYS_MIN, limits.STANDBYS_MAX + 1):
        standbys = [identity(f"member-{n}") for n in range(count)]
        signed = sign_charter(
            OWNER,
            NETWORK,
            changed(CHARTER_READ.charter, standbys=[one.peer for one in standbys]),
        )
        chartered = read_charter(signed, **READ)
        told = granted(charter=chartered.name, broker=OWNER.peer)
        grants = [sign_grant(one, chartered, told) for one in (OWNER, *standbys)]
        members = count + 1
        assert 2 * chartered.majority > members, "two majorities share a member"
        for some in combinations(grants, chartered.majority):
            won = read_certificate(write_certificate(signed, some), **READ)
            assert (won.epoch, won.broker) == (2, OWNER.peer)
        for few in combinations(grants, chartered.majority - 1):
            with pytest.raises(Malformed, match="majority"):
                read_certificate(write_certificate(signed, few), **READ)


def test_with_two_standbys_a_job_survives_the_loss_of_one_member() -> None:
    assert len(CHARTER_READ.members) - CHARTER_READ.majority == 1
    assert CHARTER_READ.members == (OWNER.peer, FIRST.peer, SECOND.peer)


def test_a_charter_is_signed_by_its_owner_only() -> None:
    with pytest.raises(LocalProtocolError, match="owner"):
        sign_charter(FIRST, NETWORK, CHARTER_READ.charter)


@pytest.mark.parametrize(
    "fields",
    [{"standbys": []}, {"lease_ms": 1}, {"skew_ms": -1}, {"budget": Budget(tokens=-1)}],
)
def test_our_own_charter_against_the_rules_is_our_fault(fields: dict[str, Any]) -> None:
    charter: Charter = changed(CHARTER_READ.charter, **fields)
    with pytest.raises(LocalProtocolError):
        sign_charter(OWNER, NETWORK, charter)


def test_a_grant_is_between_members_and_says_whose_it_is() -> None:
    envelope = sign_grant(SECOND, CHARTER_READ, granted())
    assert read_grant(envelope, CHARTER_READ) == (SECOND.peer, granted())
    for signer, fields in (
        (STRANGER, {}),
        (SECOND, {"broker": STRANGER.peer}),
        (SECOND, {"epoch": 0}),
        (SECOND, {"charter": bytes(32)}),
    ):
        with pytest.raises(LocalProtocolError):
            sign_grant(signer, CHARTER_READ, granted(**fields))


@examples(200)
@given(data=st.data())
def test_any_bytes_are_a_certificate_or_blame_the_peer(data: st.DataObject) -> None:
    whole = certificate(grant(FIRST), grant(SECOND))
    body = data.draw(st.binary(max_size=80) | mutated(whole))
    try:
        won = read_certificate(body, **READ)
    except RemoteProtocolError:
        return
    # Only the list around the grants is signed by nobody: it may grow by an element.
    assert (won.epoch, won.broker, won.chartered) == (2, FIRST.peer, CHARTER_READ)


BODIES: list[tuple[Any, Any]] = [
    (Ask(CHARTERED, 2, NOW_MS, 1, 17), read_ask),
    (Answer(grant(FIRST), 0, ""), read_answer),
    (Answer(b"", 3, SECOND.peer), read_answer),
    (Answer(b"", 0, ""), read_answer),
]


@pytest.mark.parametrize(("body", "read"), BODIES)
@examples(100)
@given(data=st.data())
def test_any_bytes_are_a_body_or_blame_the_peer(
    body: Any, read: Any, data: st.DataObject
) -> None:
    whole = codec.encode(body)
    assert read(whole) == body
    try:
        read(data.draw(st.binary(max_size=80) | mutated(whole)))
    except RemoteProtocolError:
        return


def test_a_body_out_of_bounds_is_refused() -> None:
    with pytest.raises(TooLarge):
        read_ask(codec.encode(Ask(bytes(limits.CHARTER_SIZE_MAX + 1), 2, 0, 0, 0)))
    with pytest.raises(Malformed):
        read_ask(codec.encode(Ask(CHARTERED, 0, 0, 0, 0)))
    with pytest.raises(TooLarge):
        read_answer(codec.encode(Answer(bytes(limits.GRANT_SIZE_MAX + 1), 0, "")))
    for both in (Answer(grant(FIRST), 3, ""), Answer(grant(FIRST), 0, FIRST.peer)):
        with pytest.raises(Malformed):
            read_answer(codec.encode(both))
