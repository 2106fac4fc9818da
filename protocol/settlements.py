"""Payments between two nodes, outside the mesh: one says that it paid, the other that it got.

Neither moves money.  Once the payee has answered that a payment is settled, both take it
off what the payer owes, each in its own ledger, under the payment's hash.

Specified in protocol/spec/65-settlements.md; vectors in protocol/vectors/settlements.json.
"""

from typing import Annotated, ClassVar, Final, Literal

import msgspec

from protocol.codec import Hash
from protocol.limits import HEADER_TEXT_SIZE_MAX, NUMBER_MAX
from protocol.messages import Message

#: A payment and its answer count for so long: owners look at such things now and then.
PAYMENT_LIFETIME_MS: Final = 7 * 24 * 3_600_000

Amount = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=HEADER_TEXT_SIZE_MAX)]
_Text = Annotated[str, msgspec.Meta(max_length=HEADER_TEXT_SIZE_MAX)]


class Payment(Message, frozen=True, kw_only=True):
    """The issuer says that it has paid the audience, outside the mesh.

    Attributes:
        amount_mc: How much of what it owes that is.
        method: How, such as ``manual``.
        reference: By which the payee's owner finds it.
    """

    TYPE: ClassVar[str] = "payment"

    amount_mc: Amount
    method: _Text
    reference: Reference


class PaymentAnswer(Message, frozen=True, kw_only=True):
    """What the payee makes of a payment.

    Attributes:
        payment: Hash of the payment's envelope.
        state: ``settled``: it is off the payer's debt; ``noted``: the payee's owner is to
            confirm it; ``refused``: it counts for nothing.
        text: For people.
    """

    TYPE: ClassVar[str] = "payment_answer"

    payment: Hash
    state: Literal["settled", "noted", "refused"]
    text: _Text = ""
