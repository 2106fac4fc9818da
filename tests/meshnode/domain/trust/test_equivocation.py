"""Two signed statements that contradict each other ban whoever signed them."""

from typing import Any

import msgspec
import pytest

from meshnode.domain.trust.equivocation import (
    Bans,
    Equivocation,
    NoContradiction,
    contradiction,
    culprit_of,
)
from protocol.errors import RemoteProtocolError
from protocol.keys import Identity
from protocol.messages import Message, sign_message
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    STRANGER,
    acceptance,
    deal,
    header,
    receipt,
)

DEAL = deal()


def accepted(
    by: Identity = BROKER, *, of_header: dict[str, Any] | None = None, **said: Any
) -> bytes:
    message = acceptance(DEAL.award, DEAL.receipt, **said)
    return _signed(by, message, of_header)


def charged(by: Identity = CONTRACTOR, **said: Any) -> bytes:
    return _signed(by, receipt(DEAL.award, DEAL.result, **said), None)


def _signed(by: Identity, message: Message, of_header: dict[str, Any] | None) -> bytes:
    to = CONTRACTOR if by is not CONTRACTOR else BROKER
    again = header(by, to, sequence=9, id=bytes(16), **of_header or {})
    return sign_message(by, msgspec.structs.replace(message, h=again))


def proven(one: bytes, other: bytes) -> Equivocation:
    """The proof that two acceptances are."""
    proof = contradiction("acceptance", one, other, network=NETWORK)
    assert proof is not None
    return proof


VERDICTS = proven(DEAL.acceptance, accepted(verdict="rejected", paid_mc=0))


def test_two_verdicts_on_one_award_name_the_broker() -> None:
    assert culprit_of(VERDICTS, network=NETWORK) == BROKER.peer


def test_two_charges_for_one_award_name_the_contractor() -> None:
    proof = contradiction("receipt", DEAL.receipt, charged(cost_mc=99), network=NETWORK)
    assert proof is not None
    assert culprit_of(proof, network=NETWORK) == CONTRACTOR.peer
    turned = contradiction("receipt", charged(cost_mc=99), DEAL.receipt, network=NETWORK)
    assert turned == proof, "a pair is one proof"


@pytest.mark.parametrize(
    "other",
    [
        accepted(),  # the same, signed again
        accepted(of_header={"epoch": 2}, verdict="rejected", paid_mc=0),  # taken over, and back
        accepted(STRANGER, verdict="rejected", paid_mc=0),
        accepted(award=bytes(32), verdict="rejected", paid_mc=0),
        DEAL.acceptance,
    ],
)
def test_what_may_both_be_said_is_no_proof(other: bytes) -> None:
    assert contradiction("acceptance", DEAL.acceptance, other, network=NETWORK) is None


def test_what_is_forged_or_of_another_type_or_network_proves_nothing() -> None:
    rejected = accepted(verdict="rejected", paid_mc=0)
    broken = rejected[:-1] + bytes([rejected[-1] ^ 1])
    for one in (broken, DEAL.receipt, b""):
        with pytest.raises(RemoteProtocolError):
            contradiction("acceptance", DEAL.acceptance, one, network=NETWORK)
    with pytest.raises(RemoteProtocolError):
        culprit_of(VERDICTS, network="other-net")
    with pytest.raises(NoContradiction):
        culprit_of(Equivocation("acceptance", VERDICTS.second, VERDICTS.first), network=NETWORK)


def test_a_ban_is_its_proof_and_a_restart_keeps_it() -> None:
    bans = Bans(network=NETWORK)
    assert BROKER.peer not in bans
    assert bans.add(VERDICTS) == BROKER.peer
    bans.add(proven(DEAL.acceptance, accepted(paid_mc=50)))
    assert bans.proof(BROKER.peer) == VERDICTS, "the first is kept"
    kept = msgspec.msgpack.encode(bans.proofs())
    again = Bans(msgspec.msgpack.decode(kept, type=list[Equivocation]), network=NETWORK)
    assert BROKER.peer in again
    assert CONTRACTOR.peer not in again
    assert again.proofs() == bans.proofs() == [VERDICTS]
