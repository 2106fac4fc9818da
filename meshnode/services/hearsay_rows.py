"""What others told of contracts, in the store, and what this node makes of it.

A deal that counts is two rows: what it says, by who told it, the oldest first, and the halves
that prove it, by the award.  What is imported of an agent is a row too, so that a node that
starts again believes what it believed.
"""

from typing import Final

import msgspec

from meshnode.domain.trust.credibility import NOTHING, Imported
from meshnode.domain.trust.hearsay import Deal, Share
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Write
from protocol.codec import encode
from protocol.receipts import Verdict
from protocol.reputation import Halves

#: ``capability/rater/Unix time/award hash`` -> :class:`_Row`.
DEALS: Final = "hearsay_deal"
#: Award hash -> :class:`~protocol.reputation.Halves`.
HALVES: Final = "hearsay_halves"
#: ``capability/rater`` -> where its next answer goes on.
CURSORS: Final = "hearsay_cursor"
#: ``capability/peer/name`` -> :class:`Heard`.
HEARD: Final = "heard"


class _Row(msgspec.Struct, frozen=True, array_like=True):
    agent: str
    verdict: Verdict


class Heard(msgspec.Struct, frozen=True):
    """What is imported of an agent.

    Attributes:
        imported: All of it, within its limit.
        shares: What each rater adds, before the limit.
    """

    imported: Imported = NOTHING
    shares: list[Share] = []


_ROW: Final = msgspec.msgpack.Decoder(_Row)
_HEARD: Final = msgspec.msgpack.Decoder(Heard)
_HALVES: Final = msgspec.msgpack.Decoder(Halves)


def deal_writes(capability: str, award: str, deal: Deal, halves: Halves) -> list[Write]:
    """Return what keeps a deal that its buyer told, and what proves it."""
    row = _Row(deal.agent, deal.verdict)
    key = deal_key(capability, deal.buyer, deal.at_ms, award)
    return [Put(DEALS, key, encode(row)), Put(HALVES, award, encode(halves))]


def deal_forgets(capability: str, award: str, deal: Deal) -> list[Write]:
    """Return what forgets a deal."""
    key = deal_key(capability, deal.buyer, deal.at_ms, award)
    return [Delete(DEALS, key), Delete(HALVES, award)]


def deal_key(capability: str, rater: str, at_ms: int, award: str) -> str:
    """Return the key of a deal; of the award is its hash, in hex."""
    return f"{capability}/{rater}/{at_ms:015}/{award}"


def read_deal(key: str, raw: bytes) -> tuple[str, str, Deal]:
    """Return capability, award hash and deal of a row.

    Raises:
        StoreError: It is none.
    """
    try:
        capability, rater, at_ms, award = key.split("/")
        row = _ROW.decode(raw)
        deal = Deal(rater, row.agent, row.verdict, int(at_ms), both_signed=True, settled=True)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise StoreError(f"{DEALS}/{key!r:.200} is no deal: {exc}") from exc
    return capability, award, deal


def read_halves(raw: bytes) -> Halves:
    """Return the halves in a row.

    Raises:
        StoreError: There are none in it.
    """
    try:
        return _HALVES.decode(raw)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"a row of {HALVES} holds none: {exc}") from exc


def heard_write(capability: str, agent: str, heard: Heard | None) -> Write:
    """Return what keeps what is imported of an agent, or forgets it."""
    key = f"{capability}/{agent}"
    if heard is None:
        return Delete(HEARD, key)
    return Put(HEARD, key, msgspec.msgpack.encode(heard))


def read_heard(key: str, raw: bytes) -> tuple[str, str, Heard]:
    """Return capability, agent and what is imported of it.

    Raises:
        StoreError: A row holds something else.
    """
    capability, _, agent = key.partition("/")
    try:
        return capability, agent, _HEARD.decode(raw)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"{HEARD}/{key!r:.200} is nothing heard: {exc}") from exc
