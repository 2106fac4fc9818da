"""Vectors of proofs of work: what a nonce is worth for a key in a mesh."""

from collections.abc import Iterator

from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK
from tests.protocol.vector_answers import MALFORMED, Case, ok


def work_cases() -> Iterator[Case]:
    """Nonces of the contractor; what three are worth was reckoned with another library."""
    theirs = {"network": NETWORK, "peer": CONTRACTOR.peer}
    nonce = (43).to_bytes(8, "big")
    yield "eight bits", theirs, nonce, ok(8)
    yield "another's proof", {**theirs, "peer": BROKER.peer}, nonce, ok(1)
    yield "of another network", {**theirs, "network": "other"}, nonce, ok(0)
    yield "a short nonce", theirs, nonce[1:], MALFORMED
    yield "a long nonce", theirs, nonce + b"\0", MALFORMED
    yield "no nonce", theirs, b"", MALFORMED
    yield "no PeerId", {**theirs, "peer": "nobody"}, nonce, MALFORMED
