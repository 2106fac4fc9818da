"""Shipping: how a job's broker gives the other members its journal, as it grows.

The wrappers here are signed by nobody: the segment's head signs the events, and the
certificate says who may ship.

Specified in protocol/spec/86-shipping.md; vectors in protocol/vectors/shipping.json.
"""

from typing import Final

import msgspec

from protocol.codec import Count, Hash, decode_as

#: Name of the request.
SHIP: Final = "ship"


class Ship(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``ship``: what a member is to keep next of a segment.

    Attributes:
        certificate: Of the sender's epoch.
        header: Of the segment, its own or an earlier broker's.
        first: Events of the segment that went before these.
        events: Encoded, in order.
        head: That signs the segment up to the last of them.
        schemas: Output schemas that its awards name by hash.
        tickets: For the artifacts that its events say the broker holds.
    """

    certificate: bytes
    header: bytes
    first: Count
    events: list[bytes]
    head: bytes
    schemas: list[bytes]
    tickets: list[bytes]


class Shipped(msgspec.Struct, frozen=True, array_like=True):
    """Answer to ``ship``: what the member has of the journal now.

    Attributes:
        segment: Epoch of the newest segment, 0 for none.
        count: Events of it.
        chain: The chain after them; 32 zeros for none.
    """

    segment: Count
    count: Count
    chain: Hash


_SHIP: Final = msgspec.msgpack.Decoder(Ship)
_SHIPPED: Final = msgspec.msgpack.Decoder(Shipped)


def read_ship(body: bytes) -> Ship:
    """Return the body of ``ship``; nothing in it is verified yet.

    Raises:
        RemoteProtocolError: Not such a body.
    """
    return decode_as(body, _SHIP)


def read_shipped(body: bytes) -> Shipped:
    """Return the answer to ``ship``.

    Raises:
        RemoteProtocolError: Not such an answer.
    """
    return decode_as(body, _SHIPPED)
