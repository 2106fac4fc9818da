"""Two signed statements that contradict each other: a proof that needs no witness.

Whoever holds both shows both, and every reader checks the signatures itself; so a ban needs no
vote, no reputation and no trust in who brings the proof.  What contradicts:

* two *receipts* by one contractor for one award, with another result or charge;
* two *acceptances* by one broker for one award, in one epoch of its job, with another verdict,
  payment or receipt.

The same statement signed twice (another message id, another time) is none, and neither is what
two brokers of one job say, one after the other: those are two issuers or two epochs.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from protocol.errors import Malformed
from protocol.messages import Header, read_message
from protocol.receipts import Acceptance, Receipt

Statement = Literal["receipt", "acceptance"]
_TYPES: Final[dict[Statement, type[Receipt] | type[Acceptance]]] = {
    "receipt": Receipt,
    "acceptance": Acceptance,
}


class Equivocation(msgspec.Struct, frozen=True):
    """A proof; read it with :func:`culprit_of`.

    Attributes:
        statement: What was signed twice.
        first: Envelope; the lesser of the two by its bytes, so that a pair is one proof.
        second: Envelope.
    """

    statement: Statement
    first: bytes
    second: bytes


def contradiction(
    statement: Statement, one: bytes, other: bytes, *, network: str
) -> Equivocation | None:
    """Return the proof that two envelopes make, or None if they go together.

    Args:
        statement: What both are.
        one: Envelope.
        other: Envelope.
        network: Network id.

    Raises:
        RemoteProtocolError: One of them is forged or of another type: it proves nothing.
    """
    first, second = sorted((one, other))
    proof = Equivocation(statement, first, second)
    try:
        culprit_of(proof, network=network)
    except NoContradiction:
        return None
    return proof


class NoContradiction(Malformed):
    """Two statements that may both be made."""


def culprit_of(proof: Equivocation, *, network: str) -> str:
    """Return who signed both, proven.

    Raises:
        NoContradiction: The two go together.
        RemoteProtocolError: One of them is forged or of another type.
    """
    if proof.first >= proof.second:
        raise NoContradiction("it is one statement, or in the wrong order")
    kind = _TYPES[proof.statement]
    first = read_message(proof.first, kind, network=network)
    second = read_message(proof.second, kind, network=network)
    if _about(first.h, first.award) != _about(second.h, second.award):
        raise NoContradiction("they are by two, or about two things")
    if _said(first) == _said(second):
        raise NoContradiction("they say the same")
    return first.h.issuer


def _about(header: Header, award: bytes) -> tuple[str, bytes, bytes, int]:
    return header.issuer, award, header.charter, header.epoch


def _said(statement: Receipt | Acceptance) -> tuple[object, ...]:
    if isinstance(statement, Receipt):
        return statement.result, statement.cost_mc, statement.capability, statement.agent
    return statement.receipt, statement.verdict, statement.paid_mc


class Bans:
    """Who is banned, and by which proof; the first that came is kept.

    Filled again from the proofs it says the same.
    """

    def __init__(self, proofs: Iterable[Equivocation] = (), *, network: str) -> None:
        self._network = network
        self._proofs: dict[str, Equivocation] = {}
        for proof in proofs:
            self.add(proof)

    def add(self, proof: Equivocation) -> str:
        """Ban whom a proof names; return who that is.

        Raises:
            RemoteProtocolError: It proves nothing.
        """
        culprit = culprit_of(proof, network=self._network)
        self._proofs.setdefault(culprit, proof)
        return culprit

    def __contains__(self, peer: str) -> bool:
        """Tell whether a peer is banned."""
        return peer in self._proofs

    def proof(self, peer: str) -> Equivocation | None:
        """Return by which proof a peer is banned."""
        return self._proofs.get(peer)

    def proofs(self) -> list[Equivocation]:
        """Return all of them, by peer: what is to be kept and told others."""
        return [self._proofs[peer] for peer in sorted(self._proofs)]
