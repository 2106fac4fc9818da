"""Bodies of the session requests between broker and contractor, and the receipts both keep.

The envelopes inside are signed; these wrappers are not.
"""

from typing import Final

import msgspec

CFP: Final = "cfp"
OFFERS: Final = "offers"
DECLINE: Final = "decline"
AWARD: Final = "award"
CANCEL: Final = "cancel"
ACCEPTANCE: Final = "acceptance"
#: A certificate, of its sender: a job that is known here has a new broker.
SUCCEED: Final = "succeed"
PAYMENT: Final = "payment"

#: What a proposal, an offer or a contractor's half of a receipt may take, and a result:
#: unknown fields are let pass, and a journal's event must hold two of them.
TERMS_BYTES_MAX: Final = 8 * 1024
RESULT_BYTES_MAX: Final = 64 * 1024

#: Table of finished contracts at both sides: award hash -> :class:`ReceiptRow`.
RECEIPTS: Final = "receipt"


class AwardBody(msgspec.Struct, frozen=True, array_like=True):
    """Body of an ``award`` request: the award, and the proposal or offer that it binds.

    For a job with a charter also the certificate of its broker's epoch, which may be left
    out where it was shown before.  A later broker sends the awards of those before it as
    they were, to be answered what they were, with a certificate of its own.
    """

    award: bytes
    proposal: bytes
    certificate: bytes = b""


class ResultBody(msgspec.Struct, frozen=True, array_like=True):
    """Answer to an award: a refusal, or a result and the contractor's half of the receipt."""

    refuse: bytes
    result: bytes
    receipt: bytes


class OffersBody(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``offers`` (capability names, UTF-8) and of its answer (offer envelopes)."""

    items: list[bytes]


class ReceiptRow(msgspec.Struct, frozen=True, array_like=True):
    """A finished contract as both sides keep it: four envelopes."""

    award: bytes
    result: bytes
    receipt: bytes
    acceptance: bytes


AWARD_BODY: Final = msgspec.msgpack.Decoder(AwardBody)
RESULT_BODY: Final = msgspec.msgpack.Decoder(ResultBody)
OFFERS_BODY: Final = msgspec.msgpack.Decoder(OffersBody)
RECEIPT_ROW: Final = msgspec.msgpack.Decoder(ReceiptRow)
