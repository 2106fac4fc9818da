"""No to a proposal: a courtesy, on which nothing depends.

Specified in protocol/spec/60-contracts.md; vectors in protocol/vectors/contracts.json.
"""

from typing import ClassVar

from protocol.codec import Hash
from protocol.messages import Message


class Decline(Message, frozen=True, kw_only=True):
    """Another was preferred to a proposal; nothing follows from it.

    Attributes:
        proposal: Hash of the proposal's envelope.
        reason: Stable code, such as ``price`` or ``latency``.
    """

    TYPE: ClassVar[str] = "decline"

    proposal: Hash
    reason: str
