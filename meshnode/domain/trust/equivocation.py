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

from protocol.reputation import Contradiction, NoContradiction, Statement, culprit_of

#: A proof; read it with :func:`culprit_of`.
Equivocation = Contradiction

__all__ = [
    "Bans",
    "Equivocation",
    "NoContradiction",
    "Statement",
    "contradiction",
    "culprit_of",
]


def contradiction(
    statement: Statement, one: bytes, other: bytes, *, network: str
) -> Contradiction | None:
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
    proof = Contradiction(statement, first, second)
    try:
        culprit_of(proof, network=network)
    except NoContradiction:
        return None
    return proof


class Bans:
    """Who is banned, and by which proof; the first that came is kept.

    Filled again from the proofs it says the same.
    """

    def __init__(self, proofs: Iterable[Contradiction] = (), *, network: str) -> None:
        self._network = network
        self._proofs: dict[str, Contradiction] = {}
        for proof in proofs:
            self.add(proof)

    def add(self, proof: Contradiction) -> str:
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

    def proof(self, peer: str) -> Contradiction | None:
        """Return by which proof a peer is banned."""
        return self._proofs.get(peer)

    def proofs(self) -> list[Contradiction]:
        """Return all of them, by peer: what is to be kept and told others."""
        return [self._proofs[peer] for peer in sorted(self._proofs)]
