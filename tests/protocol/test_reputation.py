"""What nodes tell each other of third ones: what is read, and what is not let pass."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.errors import RemoteProtocolError
from protocol.receipts import check_halves, check_receipt
from protocol.reputation import (
    Contradiction,
    Proofs,
    Question,
    Told,
    check_told,
    culprit_of,
    read_body,
)
from tests.protocol.samples import BROKER, NETWORK, examples
from tests.protocol.vector_reputation import (
    AUDIT,
    DEAL,
    REJECTED,
    accepted,
    halves,
    proof,
)

BODIES: list[Any] = [Question, Told, Proofs]
TOLD = encode(Told([halves(), halves(of_acceptance=REJECTED)], "17", more=True))
PROOF = proof("acceptance", DEAL.acceptance, accepted(**REJECTED))


@given(data=st.binary(max_size=200), kind=st.sampled_from(BODIES))
@examples(50)
def test_any_bytes_are_read_or_blame_the_peer(data: bytes, kind: Any) -> None:
    with suppress(RemoteProtocolError):
        assert encode(read_body(data, kind))


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@examples(100)
def test_of_a_changed_answer_no_changed_contract_is_taken(at: int, bit: int) -> None:
    whole = bytearray(TOLD)
    whole[at % len(whole)] ^= 1 << bit
    honest = read_body(TOLD, Told).contracts
    try:
        told = read_body(bytes(whole), Told)
        for one in told.contracts:
            check_told(one, by=BROKER.peer, capability=AUDIT, network=NETWORK)
    except RemoteProtocolError:
        return
    assert all(one in honest for one in told.contracts)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), first=st.booleans())
@examples(50)
def test_a_changed_proof_proves_nothing(at: int, bit: int, first: bool) -> None:
    name = "first" if first else "second"
    whole = bytearray(getattr(PROOF, name))
    whole[at % len(whole)] ^= 1 << bit
    changed: Contradiction = msgspec.structs.replace(PROOF, **{name: bytes(whole)})
    with pytest.raises(RemoteProtocolError):
        culprit_of(changed, network=NETWORK)


def test_halves_say_what_the_four_envelopes_say() -> None:
    *_, half, acceptance = check_receipt(
        DEAL.award, DEAL.result, DEAL.receipt, DEAL.acceptance, network=NETWORK
    )
    told = check_halves(DEAL.receipt, DEAL.acceptance, network=NETWORK)
    assert told == (half, acceptance)
