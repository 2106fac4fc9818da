"""Contracts that were finished before a test begins: signed by both, kept by one of them."""

from typing import Any, Final

from meshnode.node import Node
from meshnode.services.bodies import ReceiptRow
from meshnode.services.receipts import receipt_writes
from protocol.keys import Identity, digest
from protocol.messages import Message, sign_message
from simulations.mesh import NETWORK
from tests.protocol import samples
from tests.protocol.samples import changed, header

SHOUT: Final = "text.shout@1"


def contract(
    buyer: Identity, worker: Identity, number: int, *, at_ms: int, **said: Any
) -> ReceiptRow:
    """Return a finished contract.

    Args:
        buyer: Who awarded it.
        worker: Who did it.
        number: Makes it another than others between the two.
        at_ms: When it was accepted, Unix time.
        said: What the acceptance says; or ``below``, of the receipt.
    """
    there = {"network": NETWORK, "job": f"job-{number}", "issued_ms": at_ms}
    there["expires_ms"] = at_ms + 60_000
    to, back = header(buyer, worker, **there), header(worker, buyer, **there)
    below = said.pop("below", [])
    awarded = sign(buyer, samples.award(h=to, agent="shout", capability=SHOUT))
    delivered = sign(worker, samples.result(awarded, h=back))
    half = samples.receipt(
        awarded, delivered, h=back, agent="shout", capability=SHOUT, below=below
    )
    claimed = sign(worker, half)
    accepted = sign(buyer, samples.acceptance(awarded, claimed, h=to, **said))
    return ReceiptRow(awarded, delivered, claimed, accepted)


def sign(by: Identity, message: Message) -> bytes:
    """Return the envelope of a message."""
    return sign_message(by, message)


def said_otherwise(row: ReceiptRow, by: Identity, worker: Identity, at_ms: int) -> ReceiptRow:
    """Return the contract with a rejection by its buyer, instead of what it had said."""
    said = samples.acceptance(row.award, row.receipt, verdict="rejected", paid_mc=0)
    h = header(by, worker, network=NETWORK, job="job-0", issued_ms=at_ms, id=bytes(16))
    h = changed(h, expires_ms=at_ms + 60_000)
    return ReceiptRow(row.award, row.result, row.receipt, sign(by, changed(said, h=h)))


async def keep(node: Node, *rows: ReceiptRow) -> None:
    """Have a node keep finished contracts, each a millisecond later than the one before."""
    now_ms = node.clock.now_ms()
    for number, row in enumerate(rows):
        writes = receipt_writes(digest(row.award), row, now_ms=now_ms + number)
        await node._ports.store.commit(*writes)
